/* SPDX-License-Identifier: Apache-2.0 */
/* listen.c - the node's socket in the file system: its own place, and nobody else's file */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "listen.h"
#include "weft_internal/log.h"

int unix_socket(const char *path, struct sockaddr_un *addr)
{
	int fd;

	if (strlen(path) >= sizeof(addr->sun_path))
		return -ENAMETOOLONG;
	*addr = (struct sockaddr_un){ .sun_family = AF_UNIX };
	memcpy(addr->sun_path, path, strlen(path));
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	return fd < 0 ? -errno : fd;
}

static void make_folder(const char *socket)
{
	char dir[sizeof(((struct sockaddr_un *)0)->sun_path)];
	char *slash;

	snprintf(dir, sizeof(dir), "%s", socket);
	slash = strrchr(dir, '/');
	if (slash && slash != dir) {
		*slash = 0;
		mkdir(dir, 0755);
	}
}

/* what stands at @path makes way when it is the socket of a node that was killed. Return: 0, or
 * -errno with the reason logged */
static int clear_place(const char *path)
{
	struct sockaddr_un addr;
	struct stat st;
	int fd;

	if (lstat(path, &st))
		return 0; /* bind() says what is wrong, if something is */
	/* connecting to a plain file is refused as well: it may be anything of anybody's */
	if (!S_ISSOCK(st.st_mode)) {
		wfi_err("%s is there already, and no socket: remove it, or set another socket",
			path);
		return -EEXIST;
	}
	fd = unix_socket(path, &addr);
	if (fd < 0)
		return fd;
	/* one that is stopped takes nobody any more, and lives */
	if (!connect(fd, (struct sockaddr *)&addr, sizeof(addr)) || errno == EAGAIN) {
		close(fd);
		wfi_err("a node listens on %s already: stop it, or set another socket", path);
		return -EADDRINUSE;
	}
	if (errno == ECONNREFUSED)
		unlink(path);
	close(fd);
	return 0;
}

int unix_listen(const char *path)
{
	struct sockaddr_un addr;
	int fd = unix_socket(path, &addr), ret;

	if (fd == -ENAMETOOLONG)
		wfi_err("socket path %s is too long: %zu bytes at most", path,
			sizeof(addr.sun_path) - 1);
	else if (fd < 0)
		wfi_err("no socket for %s: %s", path, strerror(-fd));
	if (fd < 0)
		return fd;
	make_folder(path);
	ret = clear_place(path);
	if (ret)
		goto err_close;
	if (bind(fd, (struct sockaddr *)&addr, sizeof(addr)) || chmod(path, 0660) ||
	    listen(fd, 128)) {
		ret = -errno;
		wfi_err("can't listen on %s: %s: set socket (or WEFT_SOCKET) to a path in a folder "
			"that this user may write to",
			path, strerror(-ret));
		goto err_close;
	}
	return fd;

err_close:
	close(fd);
	return ret;
}
