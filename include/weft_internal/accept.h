/* SPDX-License-Identifier: Apache-2.0 */
#ifndef WEFT_INTERNAL_ACCEPT_H
#define WEFT_INTERNAL_ACCEPT_H

/*
 * A listener whose process has no descriptor left stays readable, and who polls it busy, while
 * somebody waits in its backlog. So one descriptor is kept to hang up on who can't be taken.
 *
 * Context: one thread for a listener and its spare.
 */

/* Return: the spare, or -errno */
int wfi_accept_spare(void);

/**
 * wfi_accept - take who waits first
 * @flags: as of accept4()
 * @spare_fd: of wfi_accept_spare(); another one, or -1, afterwards
 *
 * Return: the connection, or -errno; -EMFILE, -ENFILE: one was hung up on.
 */
int wfi_accept(int listen_fd, int flags, int *spare_fd);

#endif
