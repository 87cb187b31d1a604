/* SPDX-License-Identifier: Apache-2.0 */
/**
 * copy.h - copying by CPU: cached for small pieces, around the cache for large ones
 *
 * Streaming stores save the read of the target's lines and leave the cache to others; several pages
 * are walked side by side, so that four DRAM rows and prefetchers work at a time.
 */
#ifndef WFI_COPY_H
#define WFI_COPY_H

#include <stddef.h>
#include <stdint.h>

/* a piece of this size goes around the cache, whatever stands beside it */
#define WFI_COPY_STREAM_BYTES (256u << 10)
/* so does one of this size in a batch of that size */
#define WFI_COPY_STREAM_PIECE (16u << 10)
#define WFI_COPY_STREAM_BATCH (512u << 10)

struct wfi_copy_ops {
	const char *name;
	void (*plain)(void *dst, const void *src, size_t len);
	/* needs a store fence before the bytes are shown to others: wfi_copy_runs() does it */
	void (*stream)(void *dst, const void *src, size_t len);
	void (*fence)(void);
};

struct wfi_copy_run {
	void *dst;
	const void *src;
	uint64_t len;
};

/* the best of this CPU; cold. Return: never NULL */
const struct wfi_copy_ops *wfi_copy_pick(void);
/* NULL-terminated list of all that this CPU can run; for tests and benchmarks */
const struct wfi_copy_ops *const *wfi_copy_all(void);

/**
 * wfi_copy_runs - copy pieces that do not overlap
 * @batch_bytes: of the whole batch that these runs are part of
 *
 * On return all bytes are globally visible before later stores. Hot.
 */
void wfi_copy_runs(const struct wfi_copy_ops *ops, const struct wfi_copy_run *runs, unsigned nr,
		   uint64_t batch_bytes);

#endif
