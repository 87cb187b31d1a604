/* SPDX-License-Identifier: Apache-2.0 */
#include "kvcache/evict_curve.h"
#include "weft_internal/util.h"

#define MEMORY 8192.0f /* blocks of a class after which old ones count half */
#define DUE_MIN 16u /* blocks that are new, and what part of all, when a curve is learned anew */
#define DUE_PART 8u
#define CHANCE_MAX .95f
#define SCALE_WEIGHT 8192.0f /* uses' worth of belief in the priors of kin */
#define KIN_WEIGHT 4096.0f /* in kin that age as all others do */
#define FLAT_WEIGHT 64.0f /* and in all ages being alike */

static uint32_t age_start(unsigned age)
{
	return ((2u + (age & 1)) << (age / 2)) - 2;
}

static void forget_half(struct wfi_curve *c)
{
	c->nr /= 2;
	for (unsigned i = 0; i < WFI_CURVE_AGES; i++)
		c->uses[i] /= 2;
}

/* part of the blocks that have had the time to reach an age: the younger the node, the fewer */
static float part_seen(unsigned age, uint32_t ticks)
{
	const float seen = 1 - (float)age_start(age) / (float)(ticks + 1);

	return seen > 0 ? seen : 0;
}

/* chance of a use in each span of ages. Return: in any */
static float chances(const struct wfi_curve *c, const struct wfi_curve_kin *kin, uint32_t ticks,
		     float use[WFI_CURVE_AGES])
{
	float chance = c->prior.chance * kin->scale, used = 0;

	if (chance > CHANCE_MAX)
		chance = CHANCE_MAX;
	for (unsigned i = 0; i < WFI_CURVE_AGES; i++) {
		use[i] = ((float)c->uses[i] + c->prior.weight * chance * kin->shape[i]) /
			 (c->prior.weight + c->nr * part_seen(i, ticks));
		used += use[i];
	}
	return used;
}

/* how likely a class is used tells it from its kin, and soon; at which ages, hardly and late */
static void blend(const struct wfi_curve *c, const struct wfi_curve_kin *kin, float used,
		  float use[WFI_CURVE_AGES])
{
	float all = c->prior.ages, part;

	if (!c->prior.ages)
		return;
	for (unsigned i = 0; i < WFI_CURVE_AGES; i++)
		all += (float)c->uses[i];
	part = c->prior.ages / all;
	for (unsigned i = 0; i < WFI_CURVE_AGES; i++)
		use[i] += part * (used * kin->shape[i] - use[i]);
}

/* the steepest way on from each age: the upper hull of uses over time, from the last age back */
static void hull(struct wfi_curve *c, const float use[WFI_CURVE_AGES])
{
	float kept[WFI_CURVE_AGES], used = 0;
	float hull_uses[WFI_CURVE_AGES], hull_time[WFI_CURVE_AGES];
	unsigned top = 0;

	for (unsigned i = 0; i < WFI_CURVE_AGES; i++) {
		kept[i] = used < .99f ? 1 - used : .01f;
		used += use[i];
	}
	for (unsigned i = WFI_CURVE_AGES; i-- > 0;) {
		const float span = (float)(age_start(i + 1) - age_start(i));
		float uses = use[i];
		float time = (kept[i] > use[i] ? kept[i] - use[i] / 2 : kept[i] / 2) * span;

		while (top && hull_uses[top - 1] * time > uses * hull_time[top - 1]) {
			uses += hull_uses[--top];
			time += hull_time[top];
		}
		hull_uses[top] = uses;
		hull_time[top++] = time;
		c->index[i] = uses / time;
	}
}

void wfi_curve_learn(struct wfi_curve *c, const struct wfi_curve_kin *kin, uint32_t ticks)
{
	float use[WFI_CURVE_AGES];
	float used;

	c->nr += (float)c->since;
	c->since = 0;
	if (c->nr > MEMORY)
		forget_half(c);
	c->due = (uint32_t)wfi_max(DUE_MIN, (uint32_t)c->nr / DUE_PART);
	used = chances(c, kin, ticks, use);
	blend(c, kin, used, use);
	hull(c, use);
}

/* adds up the uses by age. Return: all of them */
static float uses_add(const struct wfi_curve *c, float sum[WFI_CURVE_AGES])
{
	float all = 0;

	for (unsigned i = 0; i < WFI_CURVE_AGES; i++) {
		sum[i] += (float)c->uses[i];
		all += (float)c->uses[i];
	}
	return all;
}

/* the ages of all uses, as parts. Return: the part that there has been time for */
static float shape_of_all(const struct wfi_curve *curves, unsigned nr, uint32_t ticks,
			  unsigned alone, float shape[WFI_CURVE_AGES])
{
	float all = FLAT_WEIGHT, seen = 0;

	for (unsigned i = 0; i < WFI_CURVE_AGES; i++)
		shape[i] = FLAT_WEIGHT / WFI_CURVE_AGES;
	for (unsigned c = 0; c < nr; c++) {
		if (curves[c].prior.kin != alone)
			all += uses_add(&curves[c], shape);
	}
	for (unsigned i = 0; i < WFI_CURVE_AGES; i++) {
		shape[i] /= all;
		seen += shape[i] * part_seen(i, ticks);
	}
	return seen;
}

void wfi_curve_kin_learn(const struct wfi_curve *curves, unsigned nr, uint32_t ticks,
			 struct wfi_curve_kin *kin, unsigned nr_kin, unsigned alone)
{
	float shape[WFI_CURVE_AGES];
	const float seen = shape_of_all(curves, nr, ticks, alone, shape);

	for (unsigned k = 0; k < nr_kin; k++) {
		float uses = 0, foretold = SCALE_WEIGHT;

		for (unsigned i = 0; i < WFI_CURVE_AGES; i++)
			kin[k].shape[i] = KIN_WEIGHT * shape[i];
		for (unsigned c = 0; c < nr; c++) {
			if (curves[c].prior.kin != k)
				continue;
			uses += uses_add(&curves[c], kin[k].shape);
			foretold += curves[c].nr * curves[c].prior.chance * seen;
		}
		kin[k].scale = (uses + SCALE_WEIGHT) / foretold;
		for (unsigned i = 0; i < WFI_CURVE_AGES; i++)
			kin[k].shape[i] /= uses + KIN_WEIGHT;
	}
}
