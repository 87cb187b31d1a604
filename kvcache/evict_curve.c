/* SPDX-License-Identifier: Apache-2.0 */
#include "kvcache/evict_curve.h"

#define MEMORY 16384.0f /* blocks of a class after which old ones count half */
#define PRIOR_WEIGHT 128.0f /* blocks' worth of belief before any is seen */
#define SHAPE_WEIGHT 64.0f /* uses' worth of belief in a flat shape */

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

/* chance of a use in each span of ages, and of none before it */
static void chances(const struct wfi_curve *c, const float shape[WFI_CURVE_AGES], uint32_t ticks,
		    float *use, float *kept)
{
	const float per_tick = 1 / (float)(ticks + 1);
	float sum = SHAPE_WEIGHT, used = 0, prior;

	for (unsigned i = 0; i < WFI_CURVE_AGES; i++)
		sum += shape[i];
	prior = PRIOR_WEIGHT * c->prior / sum;
	for (unsigned i = 0; i < WFI_CURVE_AGES; i++) {
		const float seen = 1 - (float)age_start(i) * per_tick;
		float nr = PRIOR_WEIGHT;

		/* the younger the node, the fewer blocks can have reached this age */
		if (seen > 0)
			nr += c->nr * seen;
		use[i] = ((float)c->uses[i] + prior * (shape[i] + SHAPE_WEIGHT / WFI_CURVE_AGES)) /
			 nr;
		kept[i] = used < .99f ? 1 - used : .01f;
		used += use[i];
	}
}

/* the steepest way on from each age: the upper hull of uses over time, from the last age back */
static void hull(struct wfi_curve *c, const float *use, const float *kept)
{
	float hull_uses[WFI_CURVE_AGES], hull_time[WFI_CURVE_AGES];
	unsigned top = 0;

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

void wfi_curve_learn(struct wfi_curve *c, const float shape[WFI_CURVE_AGES], uint32_t ticks)
{
	float use[WFI_CURVE_AGES], kept[WFI_CURVE_AGES];

	c->nr += (float)c->since;
	c->since = 0;
	if (c->nr > MEMORY)
		forget_half(c);
	chances(c, shape, ticks, use, kept);
	hull(c, use, kept);
}

void wfi_curve_shape(const struct wfi_curve *curves, unsigned nr, float out[WFI_CURVE_AGES])
{
	float sum[WFI_CURVE_AGES] = { 0 };

	for (unsigned c = 0; c < nr; c++)
		for (unsigned i = 0; i < WFI_CURVE_AGES; i++)
			sum[i] += (float)curves[c].uses[i];
	for (unsigned i = 0; i < WFI_CURVE_AGES; i++)
		out[i] = sum[i];
}
