/* SPDX-License-Identifier: Apache-2.0 */
/**
 * ctl.h - one control message, with file descriptors beside it, on a SOCK_SEQPACKET socket
 *
 * Both sides of every control connection use this. What arrives is input: only the framing is
 * checked here, the content is the caller's to check.
 */
#ifndef WFI_CTL_H
#define WFI_CTL_H

#include <stddef.h>

#define WFI_CTL_FDS_MAX 32

/**
 * wfi_ctl_send - send one message
 * @fds: borrowed; the peer gets copies. At most WFI_CTL_FDS_MAX
 *
 * Context: any thread; messages of two threads do not mix. Never waits, never raises SIGPIPE.
 * Return: 0; -ECONNRESET the peer is gone; -EAGAIN no room now; other -errno.
 */
int wfi_ctl_send(int fd, const void *buf, size_t len, const int *fds, unsigned nr);

/**
 * wfi_ctl_recv - receive one message
 * @len: bytes of room in @buf; a longer message is refused
 * @fds: room for @max; the descriptors are the caller's, close-on-exec. NULL with max 0
 * @nr: how many came, written on success; may be NULL when @max is 0
 *
 * A message that was cut, or came with more than @max descriptors, is refused as a whole: -EPROTO,
 * and none of its descriptors stays open. The socket remains usable; whoever talks like this should
 * rather be hung up on.
 *
 * Return: bytes received, at least 1; -ECONNRESET the peer hung up; -EPROTO; -EAGAIN on a
 * non-blocking socket; other -errno.
 */
int wfi_ctl_recv(int fd, void *buf, size_t len, int *fds, unsigned max, unsigned *nr);

#endif
