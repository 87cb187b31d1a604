/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "weft_internal/ctl.h"

#define SCM_FDS_MAX 253 /* the kernel's limit a message: whatever comes fits, and can be closed */

int wfi_ctl_send(int fd, const void *buf, size_t len, const int *fds, unsigned nr)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int) * WFI_CTL_FDS_MAX)];
	} ctl;
	struct iovec iov = { .iov_base = (void *)buf, .iov_len = len };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	struct cmsghdr *cmsg;
	ssize_t ret;

	if (nr > WFI_CTL_FDS_MAX || !len)
		return -EINVAL;
	if (nr) {
		memset(&ctl, 0, sizeof(ctl));
		msg.msg_control = ctl.bytes;
		msg.msg_controllen = CMSG_SPACE(sizeof(int) * nr);
		cmsg = CMSG_FIRSTHDR(&msg);
		cmsg->cmsg_level = SOL_SOCKET;
		cmsg->cmsg_type = SCM_RIGHTS;
		cmsg->cmsg_len = CMSG_LEN(sizeof(int) * nr);
		memcpy(CMSG_DATA(cmsg), fds, sizeof(int) * nr);
	}
	do
		ret = sendmsg(fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
	while (ret < 0 && errno == EINTR);
	if (ret < 0)
		return errno == EPIPE || errno == ENOTCONN ? -ECONNRESET : -errno;
	return (size_t)ret == len ? 0 : -EPROTO;
}

/* every descriptor of every SCM_RIGHTS header: the first @max into @fds. Return: how many there
 * are */
static unsigned collect_fds(struct msghdr *msg, int *fds, unsigned max)
{
	struct cmsghdr *cmsg;
	unsigned seen = 0;

	for (cmsg = CMSG_FIRSTHDR(msg); cmsg; cmsg = CMSG_NXTHDR(msg, cmsg)) {
		unsigned i, nr;

		if (cmsg->cmsg_level != SOL_SOCKET || cmsg->cmsg_type != SCM_RIGHTS ||
		    cmsg->cmsg_len < CMSG_LEN(0))
			continue;
		nr = (unsigned)((cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int));
		for (i = 0; i < nr; i++, seen++) {
			int fd;

			memcpy(&fd, CMSG_DATA(cmsg) + i * sizeof(int), sizeof(fd));
			if (seen < max)
				fds[seen] = fd;
			else
				close(fd);
		}
	}
	return seen;
}

int wfi_ctl_recv(int fd, void *buf, size_t len, int *fds, unsigned max, unsigned *nr)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int) * SCM_FDS_MAX)];
	} ctl;
	struct iovec iov = { .iov_base = buf, .iov_len = len };
	struct msghdr msg = { .msg_iov = &iov,
			      .msg_iovlen = 1,
			      .msg_control = ctl.bytes,
			      .msg_controllen = sizeof(ctl.bytes) };
	int got[WFI_CTL_FDS_MAX];
	unsigned seen, i;
	ssize_t ret;

	if (max > WFI_CTL_FDS_MAX || !len || len > INT_MAX)
		return -EINVAL;
	do
		ret = recvmsg(fd, &msg, MSG_CMSG_CLOEXEC);
	while (ret < 0 && errno == EINTR);
	if (ret < 0)
		return -errno;
	seen = collect_fds(&msg, got, max);
	if (!ret || seen > max || (msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC)))
		goto err_close;
	for (i = 0; i < seen; i++)
		fds[i] = got[i];
	if (nr)
		*nr = seen;
	return (int)ret;

err_close:
	for (i = 0; i < seen && i < max; i++)
		close(got[i]);
	return ret ? -EPROTO : -ECONNRESET;
}
