/* SPDX-License-Identifier: Apache-2.0 */
/**
 * evict_curve.h - what a class of blocks earns for its place, by age: learned online
 *
 * A class counts its blocks, and their uses by age since the last use. From these follows, for each
 * age, the most uses to be hoped for per tick that a block is kept, over all the times it could be
 * kept for: its Gittins index. Ages are in ticks, in steps of half an octave.
 *
 * Context: the policy's thread. Counting is hot; learning takes some hundred nanoseconds.
 */
#ifndef WFI_EVICT_CURVE_H
#define WFI_EVICT_CURVE_H

#include <stdbool.h>
#include <stdint.h>

#define WFI_CURVE_AGES 32u /* two an octave of ticks */

struct wfi_curve {
	uint32_t uses[WFI_CURVE_AGES]; /* by age at the use */
	float index[WFI_CURVE_AGES];
	float nr; /* blocks that entered the class, but for those in since */
	float prior; /* chance of another use, before any is seen */
	uint32_t since; /* entered since the index was computed */
};

static inline unsigned wfi_curve_age(uint32_t ticks)
{
	unsigned log, age;

	ticks += 2;
	log = 31 - (unsigned)__builtin_clz(ticks);
	age = 2 * log - 2 + (ticks >> (log - 1) & 1);
	return age < WFI_CURVE_AGES ? age : WFI_CURVE_AGES - 1;
}

/* counts a use of a block of the class; @weight: of how many like it this one was seen */
static inline void wfi_curve_use(struct wfi_curve *c, uint32_t ticks, uint32_t weight)
{
	c->uses[wfi_curve_age(ticks)] += weight;
}

/* enough is new for an index that differs */
static inline bool wfi_curve_is_due(const struct wfi_curve *c)
{
	return c->since >= 16 && (float)c->since * 16 >= c->nr;
}

/**
 * wfi_curve_learn - compute the index anew, and forget what is long ago
 * @shape: uses of all classes by age, which a class with few of its own is believed to follow
 * @ticks: that the node has run for: who is younger has had no time to come back
 */
void wfi_curve_learn(struct wfi_curve *c, const float shape[WFI_CURVE_AGES], uint32_t ticks);
/* @out: sum of uses by age */
void wfi_curve_shape(const struct wfi_curve *curves, unsigned nr, float out[WFI_CURVE_AGES]);

#endif
