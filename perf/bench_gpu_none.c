/* SPDX-License-Identifier: Apache-2.0 */
/* bench_gpu of a build without nvcc */
#include "perf/perf.h"
#include <errno.h>

static int run(const struct wfi_perf *p, int nr_args, char **args)
{
	(void)p;
	(void)nr_args;
	(void)args;
	return wfi_perf_fail(-EOPNOTSUPP, "gpu: built without kernels: install nvcc, build anew");
}

const struct wfi_perf_bench wfi_perf_gpu = {
	.name = "gpu",
	.summary = "GPU memory (not in this build)",
	.takes_files = true,
	.run = run,
};
