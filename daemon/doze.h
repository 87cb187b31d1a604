/* SPDX-License-Identifier: Apache-2.0 */
/**
 * doze.h - one thread waits for futexes and for files together: io_uring, Linux 6.7
 *
 * Context: the thread that opens it, alone.
 */
#ifndef WEFTD_DOZE_H
#define WEFTD_DOZE_H

#include <linux/futex.h>
#include <stdint.h>

#define DOZE_FDS_MAX 32u

struct wfi_env;
struct doze;

/* Return: NULL: this kernel, or this build, can't */
struct doze *doze_open(struct wfi_env *env);
void doze_close(struct doze *d);
/**
 * doze_wait - until a futex is woken or has another value, a file is readable, or time is over
 * @v: as futex_waitv() has them, at most 128
 *
 * Return: 0, whatever ended it; -errno: nothing was waited for
 */
int doze_wait(struct doze *d, const struct futex_waitv *v, unsigned nr, const int *fds,
	      unsigned nr_fds, uint64_t timeout_ns);
/* what the last wait was for and did not end it is let go of: until then, or until the next wait, a
 * file of it that is closed is not */
void doze_leave(struct doze *d);

#endif
