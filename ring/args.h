/* SPDX-License-Identifier: Apache-2.0 */
/**
 * args.h - the client's allocator of argument areas; private to ring/
 *
 * Blocks of 64 bytes << class, each aligned to its size within the area, as buddies are. Freed
 * blocks go on a list of their class, last in first out, so that hot memory is used again; they are
 * merged only when the area has run out. Its own notes lie in private memory: the node writes to
 * the area.
 */
#ifndef WFI_RING_ARGS_H
#define WFI_RING_ARGS_H

#include <stdint.h>

#define WFI_ARGS_CLASSES 25u /* 64 B .. 1 GiB */
#define WFI_ARGS_NONE UINT8_MAX

struct wfi_args {
	uint32_t bytes; /* of the area */
	uint32_t bump; /* nothing was carved from here on */
	uint32_t nonempty; /* bit c: free[c] is not */
	uint32_t freed; /* since merging last failed */
	uint32_t free[WFI_ARGS_CLASSES]; /* first unit of 64 bytes */
	uint32_t *next; /* by unit: list of its class */
	uint8_t *state; /* by unit, where a block starts: class + 1, and ARGS_FREE */
};

/* Return: 0, -ENOMEM */
int wfi_args_init(struct wfi_args *args, uint32_t bytes);
void wfi_args_fini(struct wfi_args *args);
/* all blocks are free again */
void wfi_args_reset(struct wfi_args *args);
/* the largest length that an empty area gives */
uint32_t wfi_args_max(const struct wfi_args *args);
/* @len: up to 1 GiB. Hot. Return: 0, -EAGAIN no room now */
int wfi_args_get(struct wfi_args *args, uint32_t len, uint32_t *off, uint8_t *cls);
/* Hot */
void wfi_args_put(struct wfi_args *args, uint32_t off, uint8_t cls);

#endif
