/* SPDX-License-Identifier: Apache-2.0 */
/* accept.c - connections, where descriptors may be short */
#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "weft_internal/accept.h"

int wfi_accept_spare(void)
{
	const int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

int wfi_accept(int listen_fd, int flags, int *spare_fd)
{
	int fd = accept4(listen_fd, NULL, NULL, flags), err = errno;

	if (fd >= 0)
		return fd;
	if (err != EMFILE && err != ENFILE)
		return -err;
	if (*spare_fd >= 0)
		close(*spare_fd);
	fd = accept4(listen_fd, NULL, NULL, flags);
	if (fd >= 0)
		close(fd);
	fd = wfi_accept_spare();
	*spare_fd = fd < 0 ? -1 : fd;
	return -err;
}
