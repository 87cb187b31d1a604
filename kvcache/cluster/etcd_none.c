/* SPDX-License-Identifier: Apache-2.0 */
/* etcd_none.c - stands in for etcd.c where there is no libcurl */
#include <errno.h>

#include "kvcache/cluster/member_private.h"
#include "weft_internal/log.h"

int member_etcd_open(struct wfi_members *m, const struct wfi_members_opts *opts)
{
	(void)m;
	(void)opts;
	wfi_err("membership: this build has no etcd: build with libcurl (meson -Detcd=enabled), or "
		"name the members in a file");
	return -EOPNOTSUPP;
}

void member_etcd_close(struct wfi_members *m)
{
	(void)m;
}
