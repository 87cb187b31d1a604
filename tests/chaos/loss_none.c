/* SPDX-License-Identifier: Apache-2.0 */
/* loss_none.c - where libbpf is not */
#include <errno.h>
#include "tests/chaos/hosts.h"

int loss_attach(int ifindex)
{
	(void)ifindex;
	return -EOPNOTSUPP;
}

int loss_set(int map, unsigned from, unsigned percent, uint32_t seed)
{
	(void)map;
	(void)from;
	(void)percent;
	(void)seed;
	return -EOPNOTSUPP;
}
