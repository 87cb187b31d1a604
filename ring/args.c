/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "ring/args.h"
#include "weft_internal/util.h"

#define UNIT_LOG2 6u
#define ARGS_FREE 0x80u
#define NO_UNIT UINT32_MAX

int wfi_args_init(struct wfi_args *args, uint32_t bytes)
{
	uint32_t units = bytes >> UNIT_LOG2;

	memset(args, 0, sizeof(*args));
	args->bytes = bytes;
	/* a page of either is touched only when its part of the area comes into use */
	args->next = calloc(units, sizeof(*args->next));
	args->state = calloc(units, 1);
	if (!args->next || !args->state) {
		wfi_args_fini(args);
		return -ENOMEM;
	}
	return 0;
}

void wfi_args_fini(struct wfi_args *args)
{
	free(args->next);
	free(args->state);
	args->next = NULL;
	args->state = NULL;
}

void wfi_args_reset(struct wfi_args *args)
{
	memset(args->state, 0, args->bump >> UNIT_LOG2);
	args->bump = 0;
	args->nonempty = 0;
	args->freed = 0;
}

uint32_t wfi_args_max(const struct wfi_args *args)
{
	return 1u << (31 - __builtin_clz(args->bytes));
}

static void list_push(struct wfi_args *args, uint32_t unit, unsigned cls)
{
	args->next[unit] = args->nonempty & (1u << cls) ? args->free[cls] : NO_UNIT;
	args->free[cls] = unit;
	args->nonempty |= 1u << cls;
	args->state[unit] = (uint8_t)(ARGS_FREE | (cls + 1));
}

static uint32_t list_pop(struct wfi_args *args, unsigned cls)
{
	uint32_t unit = args->free[cls];

	args->free[cls] = args->next[unit];
	if (args->free[cls] == NO_UNIT)
		args->nonempty &= ~(1u << cls);
	return unit;
}

/* from the untouched end; what alignment leaves over goes on the lists */
static uint32_t carve(struct wfi_args *args, unsigned cls)
{
	uint64_t size = 64ull << cls;
	uint64_t off = wfi_align_up(args->bump, size);

	if (off + size > args->bytes)
		return NO_UNIT;
	while (args->bump < off) {
		unsigned gap = (unsigned)__builtin_ctz(args->bump) - UNIT_LOG2;

		list_push(args, args->bump >> UNIT_LOG2, gap);
		args->bump += 64u << gap;
	}
	args->bump = (uint32_t)(off + size);
	return (uint32_t)off >> UNIT_LOG2;
}

/* the lower part of the smallest larger block; its upper halves go on the lists */
static uint32_t split(struct wfi_args *args, unsigned cls)
{
	uint32_t larger = args->nonempty & ~((2u << cls) - 1);
	uint32_t unit;
	unsigned from;

	if (!larger)
		return NO_UNIT;
	from = (unsigned)__builtin_ctz(larger);
	unit = list_pop(args, from);
	while (from-- > cls)
		list_push(args, unit + (1u << from), from);
	return unit;
}

/* the block at @unit with the free buddies below it. Return: its class now, @unit its start */
static unsigned merge_down(struct wfi_args *args, uint32_t *unit, unsigned cls)
{
	while (*unit & (1u << cls) && args->state[*unit - (1u << cls)] == (ARGS_FREE | (cls + 1))) {
		args->state[*unit] = 0;
		*unit -= 1u << cls;
		cls++;
		args->state[*unit] = (uint8_t)(ARGS_FREE | (cls + 1));
	}
	return cls;
}

static __attribute__((cold, noinline)) void merge_all(struct wfi_args *args)
{
	uint32_t end = args->bump >> UNIT_LOG2, used_end = 0, unit, next;

	for (unit = 0; unit < end; unit = next) {
		unsigned cls = (args->state[unit] & ~ARGS_FREE) - 1u;
		uint32_t start = unit;

		next = unit + (1u << cls);
		if (args->state[unit] & ARGS_FREE)
			merge_down(args, &start, cls);
		else
			used_end = next;
	}
	args->nonempty = 0;
	for (unit = 0; unit < used_end; unit += 1u << ((args->state[unit] & ~ARGS_FREE) - 1u))
		if (args->state[unit] & ARGS_FREE)
			list_push(args, unit, (args->state[unit] & ~ARGS_FREE) - 1u);
	memset(args->state + used_end, 0, end - used_end);
	args->bump = used_end << UNIT_LOG2;
	args->freed = 0;
}

static uint32_t find(struct wfi_args *args, unsigned cls)
{
	uint32_t unit = carve(args, cls);

	return unit != NO_UNIT ? unit : split(args, cls);
}

int wfi_args_get(struct wfi_args *args, uint32_t len, uint32_t *off, uint8_t *cls)
{
	unsigned c = len <= 64 ? 0 : 26u - (unsigned)__builtin_clz(len - 1);
	uint32_t unit;

	if (wfi_likely(args->nonempty & (1u << c))) {
		unit = list_pop(args, c);
	} else {
		unit = find(args, c);
		if (unit == NO_UNIT && args->freed) {
			merge_all(args);
			unit = find(args, c);
		}
		if (unit == NO_UNIT)
			return -EAGAIN;
	}
	args->state[unit] = (uint8_t)(c + 1);
	*off = unit << UNIT_LOG2;
	*cls = (uint8_t)c;
	return 0;
}

void wfi_args_put(struct wfi_args *args, uint32_t off, uint8_t cls)
{
	list_push(args, off >> UNIT_LOG2, cls);
	args->freed = 1;
}
