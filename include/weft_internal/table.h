/* SPDX-License-Identifier: Apache-2.0 */
/**
 * table.h - a table that fills from its start and never moves
 *
 * It has address space for the most that it may come to, and memory for what is used. Large ones
 * are on huge pages, which come ahead of their use, in the background: who fills the table waits
 * neither for the kernel to clear a page, nor for anything to be copied.
 *
 * Context: one owner thread.
 */
#ifndef WFI_TABLE_H
#define WFI_TABLE_H

#include "weft_internal/env.h"
#include "weft_internal/util.h"

#define WFI_TABLE_HUGE_BYTES (16ull << 20) /* a table of less is content with small pages */
#define WFI_TABLE_AHEAD_BYTES (2ull << 20)

struct wfi_table {
	void *addr; /* zeroed; of init, for good */
	struct wfi_map map;
	uint64_t called; /* pages up to here come, or are there */
};

/* pages for the first @bytes are called for, and for a little more. Cold, takes microseconds */
static inline void wfi_table_use(struct wfi_env *env, struct wfi_table *t, uint64_t bytes)
{
	const uint64_t end = wfi_min(t->map.len, wfi_align_up(bytes + WFI_TABLE_AHEAD_BYTES / 2,
							      WFI_TABLE_AHEAD_BYTES));

	if (t->map.len < WFI_TABLE_HUGE_BYTES || end <= t->called)
		return;
	env->mem->populate(env, &t->map, t->called, end - t->called);
	t->called = end;
}

/* room for @max_bytes; 0 is a table too. @flags: 0, or those of a shared one.
 * Return: 0, or as map */
static inline int wfi_table_init(struct wfi_env *env, struct wfi_table *t, uint64_t max_bytes,
				 unsigned flags)
{
	int ret;

	*t = (struct wfi_table){ .map.fd = -1 };
	if (!max_bytes)
		return 0;
	flags |= WFI_MAP_SPARSE;
	if (max_bytes >= WFI_TABLE_HUGE_BYTES)
		flags |= WFI_MAP_HUGE;
	ret = env->mem->map(env, max_bytes, flags, &t->map);
	if (ret)
		return ret;
	t->addr = t->map.addr;
	wfi_table_use(env, t, 0);
	return 0;
}

static inline void wfi_table_fini(struct wfi_env *env, struct wfi_table *t)
{
	env->mem->unmap_begin(env, &t->map);
	t->addr = NULL;
}

#endif
