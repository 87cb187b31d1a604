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

/* what is believed of a class before any of its blocks is seen */
struct wfi_curve_prior {
	float chance; /* of another use */
	float weight; /* as if so many blocks had been seen */
	float ages; /* and so many uses, at the ages of its kin's; 0: it has its own */
	unsigned kin; /* classes that are like it */
};

struct wfi_curve {
	uint32_t uses[WFI_CURVE_AGES]; /* by age at the use */
	float index[WFI_CURVE_AGES];
	float nr; /* blocks that entered the class, but for those in since */
	uint32_t since; /* entered since the index was computed */
	uint32_t due; /* to enter, until it is to be computed anew */
	struct wfi_curve_prior prior;
};

/* what classes that are like each other have shown together */
struct wfi_curve_kin {
	float scale; /* uses, to those that the priors foretold */
	float shape[WFI_CURVE_AGES]; /* parts of them by age */
};

static inline unsigned wfi_curve_age(uint32_t ticks)
{
	unsigned log, age;

	ticks += 2;
	log = 31 - (unsigned)__builtin_clz(ticks);
	/* the bit below the highest one, which is added as a 2 */
	age = 2 * log - 4 + (ticks >> (log - 1));
	return age < WFI_CURVE_AGES ? age : WFI_CURVE_AGES - 1;
}

/* counts a use of a block of the class; @weight: of how many like it this one was seen */
static inline void wfi_curve_use(struct wfi_curve *c, uint32_t ticks, uint32_t weight)
{
	c->uses[wfi_curve_age(ticks)] += weight;
}

/* so many blocks entered the class. Return: whether enough is new for an index that differs */
static inline bool wfi_curve_enter(struct wfi_curve *c, uint32_t nr)
{
	c->since += nr;
	return c->since >= c->due;
}

/**
 * wfi_curve_learn - compute the index anew, and forget what is long ago
 * @kin: those of the class: what little it has shown by itself is not to be taken for all
 * @ticks: that the node has run for: who is younger has had no time to come back
 */
void wfi_curve_learn(struct wfi_curve *c, const struct wfi_curve_kin *kin, uint32_t ticks);
/* what all kin have shown; @alone: kin whose ages tell nothing of the others' */
void wfi_curve_kin_learn(const struct wfi_curve *curves, unsigned nr, uint32_t ticks,
			 struct wfi_curve_kin *kin, unsigned nr_kin, unsigned alone);

#endif
