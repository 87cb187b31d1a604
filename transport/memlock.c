/* SPDX-License-Identifier: Apache-2.0 */
#include <linux/capability.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "weft_internal/memlock.h"

/* those that have it pin what they want: the kernel asks for it only beyond the limit */
static int may_lock(void)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = { { 0 } };

	return !syscall(SYS_capget, &head, data) &&
	       data[CAP_TO_INDEX(CAP_IPC_LOCK)].effective & CAP_TO_MASK(CAP_IPC_LOCK);
}

uint64_t wfi_memlock_limit(void)
{
	struct rlimit lim;

	if (getrlimit(RLIMIT_MEMLOCK, &lim) || lim.rlim_cur == RLIM_INFINITY || may_lock())
		return UINT64_MAX;
	return lim.rlim_cur;
}

int wfi_memlock_says(uint64_t len, uint64_t limit, char *out, size_t out_len)
{
	return snprintf(out, out_len,
			"%llu KiB can't be pinned, RLIMIT_MEMLOCK is %llu KiB: set LimitMEMLOCK or "
			"ulimit -l to unlimited",
			(unsigned long long)len >> 10, (unsigned long long)limit >> 10);
}
