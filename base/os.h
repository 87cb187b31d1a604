/* SPDX-License-Identifier: Apache-2.0 */
/* os.h - what the real and the simulated environment share: mappings, and the rules of disk I/O */
#ifndef WFI_OS_H
#define WFI_OS_H

#include <errno.h>

#include "weft_internal/env.h"
#include "weft_internal/util.h"

/* zeroed, aligned to a cache line */
void *wfi_os_alloc(size_t len);
int wfi_os_map(size_t len, unsigned flags, struct wfi_map *out);
void wfi_os_unmap(struct wfi_map *map);
int wfi_os_discard(const struct wfi_map *map, size_t off, size_t len);
/* map_job.c: as in struct wfi_alloc_ops */
void wfi_os_map_begin(size_t len, unsigned flags, struct wfi_map *out);
void wfi_os_populate(struct wfi_map *map, size_t off, size_t len);
size_t wfi_os_populated(struct wfi_map *map);
void wfi_os_unmap_begin(struct wfi_map *map);

/* disk_uring.c, or its twin disk_none.c */
extern const struct wfi_disk_ops wfi_os_disk_ops;

/* head of each kind of disk */
struct wfi_disk {
	uint64_t len;
};

/* a completion counts bytes in 32 bits with a sign */
#define WFI_DISK_MAX_IO (1u << 30)

/* Return: 0, or -EINVAL when the request is none that the disk takes */
static inline int wfi_disk_check(const struct wfi_disk *disk, uint64_t off, const void *buf,
				 size_t len)
{
	const uint64_t unaligned = (off | len | (uintptr_t)buf) & (WFI_DISK_ALIGN - 1);

	if (!len || len > WFI_DISK_MAX_IO || unaligned || !wfi_range_ok(off, len, disk->len))
		return -EINVAL;
	return 0;
}

#endif
