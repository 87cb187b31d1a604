/* SPDX-License-Identifier: Apache-2.0 */
/* client_why.c - what every call of the client needs: the sentence, option structs, the
 * connector */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include "weft_internal/client.h"
#include "weft_internal/util.h"

#define CONNECT_S 5

static _Thread_local char why_buf[256];
static _Thread_local const char *why_text = "no error";

void wfi_client_why(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why_buf, sizeof(why_buf), fmt, ap);
	va_end(ap);
	why_text = why_buf;
}

int wfi_client_fail(int ret, const char *text)
{
	why_text = text;
	return ret;
}

const char *weft_why(void)
{
	return why_text;
}

int wfi_client_opts(void *out, size_t known, const void *in, size_t least, const char *name)
{
	size_t size, i;

	memcpy(&size, in, sizeof(size));
	if (size < least || size > (1u << 16)) {
		wfi_client_why("%s.size is %zu: set it to sizeof(%s)", name, size, name);
		return -EINVAL;
	}
	for (i = known; i < size; i++) {
		if (((const char *)in)[i]) {
			wfi_client_why("%s has an option set that libweft " WEFT_VERSION
				       " does not know: use a newer library",
				       name);
			return -EINVAL;
		}
	}
	memset(out, 0, known);
	memcpy(out, in, size < known ? size : known);
	return 0;
}

/* ---- a node at a path ---- */

struct unix_connector {
	struct wfi_connector base;
	struct sockaddr_un addr;
};

/* waits for a place in the node's queue, whatever signals come meanwhile. Return: 0, -errno */
static int connect_in_time(int fd, const struct sockaddr_un *addr)
{
	const uint64_t end_ms = wfi_client_now_ms() + CONNECT_S * 1000;
	struct timeval wait;
	uint64_t now_ms;

	while ((now_ms = wfi_client_now_ms()) < end_ms) {
		wait.tv_sec = (time_t)((end_ms - now_ms) / 1000);
		wait.tv_usec = (suseconds_t)((end_ms - now_ms) % 1000 * 1000);
		setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof(wait));
		if (!connect(fd, (const struct sockaddr *)addr, sizeof(*addr)))
			return 0;
		if (errno != EINTR)
			return -errno;
	}
	return -EAGAIN;
}

static int unix_connect(struct wfi_connector *base)
{
	struct unix_connector *c = wfi_container_of(base, struct unix_connector, base);
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	int ret;

	if (fd < 0) {
		ret = -errno;
		wfi_client_why("no socket: %s", strerror(-ret));
		return ret;
	}
	ret = connect_in_time(fd, &c->addr);
	if (!ret)
		return fd;
	if (ret == -ECONNREFUSED || ret == -ENOTDIR)
		ret = -ENOENT;
	close(fd);
	if (ret == -EAGAIN)
		return wfi_client_fail(-ETIMEDOUT, "the node takes nobody: is it stopped, or "
						   "overloaded?");
	if (ret == -ENOENT)
		wfi_client_why(
			"no node listens on %s: start weftd, or set WEFT_SOCKET to its socket",
			c->addr.sun_path);
	else
		wfi_client_why("can't connect to %s: %s", c->addr.sun_path, strerror(-ret));
	return ret;
}

static void unix_destroy(struct wfi_connector *base)
{
	free(wfi_container_of(base, struct unix_connector, base));
}

/* Return: as snprintf() */
static int default_path(char *buf, size_t len)
{
	const char *dir = getenv("XDG_RUNTIME_DIR");
	int ret;

	if (dir && *dir) {
		ret = snprintf(buf, len, "%s/weft/weftd.sock", dir);
		if (ret < (int)len && !access(buf, F_OK))
			return ret;
	}
	return snprintf(buf, len, "/run/weft/weftd.sock");
}

int wfi_connector_unix(const char *path, struct wfi_connector **out)
{
	struct unix_connector *c = calloc(1, sizeof(*c));
	int len;

	if (!c)
		return wfi_client_fail(-ENOMEM, "no memory for a session");
	c->base = (struct wfi_connector){ .connect = unix_connect, .destroy = unix_destroy };
	c->addr.sun_family = AF_UNIX;
	if (!path)
		path = getenv("WEFT_SOCKET");
	if (path && *path)
		len = snprintf(c->addr.sun_path, sizeof(c->addr.sun_path), "%s", path);
	else
		len = default_path(c->addr.sun_path, sizeof(c->addr.sun_path));
	if (len >= (int)sizeof(c->addr.sun_path)) {
		wfi_client_why("the socket's path has %d bytes, and may have %zu", len,
			       sizeof(c->addr.sun_path) - 1);
		free(c);
		return -EINVAL;
	}
	*out = &c->base;
	return 0;
}
