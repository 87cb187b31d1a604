/* SPDX-License-Identifier: Apache-2.0 */
/**
 * evict_stacks.h - leaves by what they are worth
 *
 * There is a stack for each class and each span of ages, so that all leaves on one are worth the
 * same. Where ages of two spans have come close, their stacks become one. The least of what all
 * classes are worth leads to the stack that is worth least. Nothing is taken out of the middle of a
 * stack: who pops a block looks whether it still belongs there.
 *
 * Context: the policy's thread. Pushing and popping is constant work; a tick, and the first choice
 * after it, look at all classes.
 */
#ifndef WFI_EVICT_STACKS_H
#define WFI_EVICT_STACKS_H

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>
#include "kvcache/evict_class.h"
#include "kvcache/evict_curve.h"
#include "weft_internal/util.h"

#define WFI_STACK_END UINT32_MAX
#define WFI_STACK_NONE INT32_MAX /* no stack of this class */
#define WFI_STACK_TICKS (UINT32_MAX >> 11) /* ticks are counted modulo one more than that */
#define WFI_STACK_SPANS 32u /* of ages: bits of a mask */
#define WFI_STACK_NEAR 64u /* ticks back whose span is in a table */
#define WFI_STACK_WORTHS 32 /* a power of two: one for each class */

/* a block, and the one below it on its stack */
struct wfi_stack_block {
	uint32_t word;
	uint32_t next;
};

static_assert(sizeof(struct wfi_stack_block) == 8, "eight blocks a cache line");
static_assert(WFI_NR_CLASSES <= WFI_STACK_WORTHS, "one for each class");

struct wfi_stack {
	uint32_t top; /* WFI_STACK_END: empty */
	uint32_t bottom;
};

/* where a stack is */
struct wfi_stack_at {
	unsigned cls;
	unsigned column;
};

/* ticks in which leaves were used last, and the column of stacks that is theirs */
struct wfi_stack_span {
	uint32_t first;
	uint32_t last;
	uint8_t column;
};

struct wfi_stacks {
	uint32_t stale; /* classes whose worth must be found anew */
	uint32_t tick;
	uint32_t filled[WFI_NR_CLASSES]; /* columns whose stack is not known to be empty */
	uint8_t best[WFI_NR_CLASSES]; /* the column with the least index */
	/*
	 * by class, the bits of its least index (not negative, so that they sort as integers do),
	 * with the class in the lowest five; and the least of all
	 */
	int32_t worth[WFI_STACK_WORTHS];
	int32_t least;
	uint8_t near[WFI_STACK_NEAR]; /* column by age */
	uint8_t column_age[WFI_STACK_SPANS]; /* as wfi_curve_age() */
	struct wfi_stack stacks[WFI_NR_CLASSES][WFI_STACK_SPANS];

	unsigned nr_spans;
	struct wfi_stack_span spans[WFI_STACK_SPANS]; /* the youngest first */
	uint32_t free_columns;
};

void wfi_stacks_init(struct wfi_stacks *s);
/* a later @tick has begun */
void wfi_stacks_tick(struct wfi_stacks *s, struct wfi_stack_block *blocks, uint32_t tick);
/* cold end of wfi_stacks_column() */
unsigned wfi_stacks_far_column(const struct wfi_stacks *s, uint32_t age);
/* cold end of a push: where there was no stack there is one, which may be worth least */
void wfi_stacks_open(struct wfi_stacks *s, const struct wfi_curve *curve, struct wfi_stack_at at);
/* finds what stale classes are worth, and the least, anew */
void wfi_stacks_refresh(struct wfi_stacks *s, const struct wfi_curve *curves);

static inline unsigned wfi_stacks_column(const struct wfi_stacks *s, uint32_t age)
{
	return wfi_likely(age < WFI_STACK_NEAR) ? s->near[age] : wfi_stacks_far_column(s, age);
}

static inline void wfi_stacks_push(struct wfi_stacks *s, const struct wfi_curve *curves,
				   struct wfi_stack_block *blocks, uint32_t slot,
				   struct wfi_stack_at at)
{
	struct wfi_stack *stack = &s->stacks[at.cls][at.column];

	blocks[slot].next = stack->top;
	if (stack->top == WFI_STACK_END)
		stack->bottom = slot;
	stack->top = slot;
	if (wfi_unlikely(!(s->filled[at.cls] & 1u << at.column)))
		wfi_stacks_open(s, &curves[at.cls], at);
}

/* Return: whether there is a stack; @at: the one that is worth least. It may be empty by now */
static inline bool wfi_stacks_least(struct wfi_stacks *s, const struct wfi_curve *curves,
				    struct wfi_stack_at *at)
{
	if (s->stale)
		wfi_stacks_refresh(s, curves);
	if (s->least == WFI_STACK_NONE)
		return false;
	at->cls = (uint32_t)s->least % WFI_STACK_WORTHS;
	at->column = s->best[at->cls];
	return true;
}

/* Return: WFI_STACK_END when there is none. Only then is it known to be empty: often more comes */
static inline uint32_t wfi_stacks_pop(struct wfi_stacks *s, const struct wfi_stack_block *blocks,
				      struct wfi_stack_at at)
{
	struct wfi_stack *stack = &s->stacks[at.cls][at.column];
	const uint32_t slot = stack->top;

	if (slot == WFI_STACK_END) {
		s->filled[at.cls] &= ~(1u << at.column);
		s->stale |= 1u << at.cls;
		return WFI_STACK_END;
	}
	stack->top = blocks[slot].next;
	__builtin_prefetch(&blocks[stack->top], 1);
	return slot;
}

#endif
