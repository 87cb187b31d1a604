/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>
#include "kvcache/evict_stacks.h"

static uint32_t ticks_since(const struct wfi_stacks *s, uint32_t tick)
{
	return (s->tick - tick) & WFI_STACK_TICKS;
}

unsigned wfi_stacks_far_column(const struct wfi_stacks *s, uint32_t age)
{
	unsigned i = 0;

	while (i + 1 < s->nr_spans && ticks_since(s, s->spans[i].first) < age)
		i++;
	return s->spans[i].column;
}

/* ---- spans ---- */

static void join(struct wfi_stack_block *blocks, struct wfi_stack *into, struct wfi_stack *from)
{
	if (from->top == WFI_STACK_END)
		return;
	if (into->top == WFI_STACK_END)
		into->top = from->top;
	else
		blocks[into->bottom].next = from->top;
	into->bottom = from->bottom;
	from->top = WFI_STACK_END;
}

/* the span after @at becomes part of it */
static void span_merge(struct wfi_stacks *s, struct wfi_stack_block *blocks, unsigned at)
{
	struct wfi_stack_span *span = &s->spans[at];
	const uint32_t old = 1u << span[1].column;

	for (unsigned cls = 0; cls < WFI_NR_CLASSES; cls++) {
		if (!(s->filled[cls] & old))
			continue;
		join(blocks, &s->stacks[cls][span->column], &s->stacks[cls][span[1].column]);
		s->filled[cls] = (s->filled[cls] & ~old) | 1u << span->column;
	}
	span->first = span[1].first;
	s->free_columns |= old;
	s->nr_spans--;
	memmove(span + 1, span + 2, (s->nr_spans - at - 1) * sizeof(*span));
}

/* a span may be as long as half of the age at its young end */
static void spans_merge(struct wfi_stacks *s, struct wfi_stack_block *blocks)
{
	for (unsigned at = 1; at + 1 < s->nr_spans;) {
		const struct wfi_stack_span *span = &s->spans[at];
		const uint32_t len = ((span->last - span[1].first) & WFI_STACK_TICKS) + 1;

		if (2 * len <= ticks_since(s, span->last))
			span_merge(s, blocks, at);
		else
			at++;
	}
	if (s->nr_spans == WFI_STACK_SPANS)
		span_merge(s, blocks, WFI_STACK_SPANS - 2);
}

static void near_fill(struct wfi_stacks *s)
{
	uint32_t age = 0;

	for (unsigned i = 0; i < s->nr_spans; i++) {
		const struct wfi_stack_span *span = &s->spans[i];
		const uint32_t end = ticks_since(s, span->first);

		s->column_age[span->column] = (uint8_t)wfi_curve_age(ticks_since(s, span->last));
		/* ticks in which nothing came are the older span's */
		for (; age <= end && age < WFI_STACK_NEAR; age++)
			s->near[age] = span->column;
	}
	for (; age < WFI_STACK_NEAR; age++)
		s->near[age] = s->spans[s->nr_spans - 1].column;
}

void wfi_stacks_tick(struct wfi_stacks *s, struct wfi_stack_block *blocks, uint32_t tick)
{
	s->tick = tick;
	spans_merge(s, blocks);
	memmove(s->spans + 1, s->spans, s->nr_spans * sizeof(*s->spans));
	s->nr_spans++;
	s->spans[0] = (struct wfi_stack_span){
		.first = tick & WFI_STACK_TICKS,
		.last = tick & WFI_STACK_TICKS,
		.column = (uint8_t)__builtin_ctz(s->free_columns),
	};
	s->free_columns &= s->free_columns - 1;
	near_fill(s);
	s->stale = (1ull << WFI_NR_CLASSES) - 1;
}

void wfi_stacks_init(struct wfi_stacks *s)
{
	s->free_columns = UINT32_MAX;
	for (unsigned i = 0; i < WFI_STACK_WORTHS; i++)
		s->worth[i] = WFI_STACK_NONE;
	s->least = WFI_STACK_NONE;
	memset(s->stacks, 0xff, sizeof(s->stacks));
	wfi_stacks_tick(s, NULL, 0);
}

/* ---- the least ---- */

/* by what a stack is worth, then by its column: bits that sort as integers do */
static int32_t column_worth(const struct wfi_stacks *s, const struct wfi_curve *curve,
			    unsigned column)
{
	int32_t worth;

	memcpy(&worth, &curve->index[s->column_age[column]], sizeof(worth));
	return (worth & -(int32_t)WFI_STACK_SPANS) | (int32_t)column;
}

/* @worth: of the best of its stacks, as column_worth() */
static void class_set(struct wfi_stacks *s, unsigned cls, int32_t worth)
{
	s->best[cls] = (uint8_t)((uint32_t)worth % WFI_STACK_SPANS);
	s->worth[cls] = (worth & -WFI_STACK_WORTHS) | (int32_t)cls;
}

static void class_refresh(struct wfi_stacks *s, const struct wfi_curve *curve, unsigned cls)
{
	int32_t least = WFI_STACK_NONE;

	/* no branch on what they are worth: it cannot be foreseen */
	for (uint32_t columns = s->filled[cls]; columns; columns &= columns - 1) {
		const int32_t worth = column_worth(s, curve, (unsigned)__builtin_ctz(columns));

		least = worth < least ? worth : least;
	}
	if (s->filled[cls])
		class_set(s, cls, least);
	else
		s->worth[cls] = WFI_STACK_NONE;
}

void wfi_stacks_open(struct wfi_stacks *s, const struct wfi_curve *curve, struct wfi_stack_at at)
{
	const int32_t worth = column_worth(s, curve, at.column);
	const int32_t old = s->worth[at.cls];

	s->filled[at.cls] |= 1u << at.column;
	if (s->stale & 1u << at.cls)
		return;
	if (old != WFI_STACK_NONE && ((old & -WFI_STACK_WORTHS) | s->best[at.cls]) < worth)
		return;
	class_set(s, at.cls, worth);
	s->least = wfi_min(s->least, s->worth[at.cls]);
}

void wfi_stacks_refresh(struct wfi_stacks *s, const struct wfi_curve *curves)
{
	int32_t least = WFI_STACK_NONE;

	for (uint32_t stale = s->stale; stale; stale &= stale - 1) {
		const unsigned cls = (unsigned)__builtin_ctz(stale);

		class_refresh(s, &curves[cls], cls);
	}
	s->stale = 0;
	/* compilers make some vectors' minima of this */
	for (unsigned i = 0; i < WFI_STACK_WORTHS; i++)
		least = s->worth[i] < least ? s->worth[i] : least;
	s->least = least;
}
