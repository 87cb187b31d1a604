/* SPDX-License-Identifier: Apache-2.0 */
/* store.h - the rows of weft-perf compare that have a store beside them (bench_store.c) */
#ifndef WFI_PERF_STORE_H
#define WFI_PERF_STORE_H

#include "perf/perf.h"

/* @peer: the peer's side of a case; lent until the next call. Return: 0, -errno (said) */
int wfi_perf_store(const struct wfi_perf *p,
		   int (*peer)(void *ctx, const char *name, unsigned ops,
			       struct wfi_perf_side *out),
		   void *ctx);

#endif
