/* SPDX-License-Identifier: Apache-2.0 */
/* doze_none.c - built without liburing */
#include <errno.h>
#include <stddef.h>

#include "doze.h"

struct doze *doze_open(struct wfi_env *env)
{
	(void)env;
	return NULL;
}

void doze_close(struct doze *d)
{
	(void)d;
}

int doze_wait(struct doze *d, const struct futex_waitv *v, unsigned nr, const int *fds,
	      unsigned nr_fds, uint64_t timeout_ns)
{
	(void)d;
	(void)v;
	(void)nr;
	(void)fds;
	(void)nr_fds;
	(void)timeout_ns;
	return -ENOSYS;
}

void doze_leave(struct doze *d)
{
	(void)d;
}
