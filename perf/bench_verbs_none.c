/* SPDX-License-Identifier: Apache-2.0 */
/* bench_verbs_none.c - in place of bench_verbs.c where libibverbs or librdmacm is missing */
#include <errno.h>
#include "perf/perf.h"

static int verbs_run(const struct wfi_perf *p, int nr_args, char **args)
{
	(void)p;
	(void)nr_args;
	(void)args;
	return wfi_perf_fail(
		-EOPNOTSUPP,
		"built without RDMA: install libibverbs-dev and librdmacm-dev, build anew");
}

const struct wfi_perf_bench wfi_perf_verbs = {
	.name = "verbs",
	.summary = "RDMA (not in this build)",
	.takes_files = true,
	.run = verbs_run,
};
