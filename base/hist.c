/* SPDX-License-Identifier: Apache-2.0 */
/*
 * log-linear histograms, read side. A histogram may be another process's memory that changes while
 * we look, or is plain wrong: each value is loaded once, and nothing relies on sums that fit.
 */
#include "weft_internal/metrics.h"

#define STEPS (1u << WFI_HIST_STEPS_LOG2)

uint64_t wfi_hist_lower(unsigned idx)
{
	if (idx >= WFI_HIST_NR_BUCKETS)
		idx = WFI_HIST_NR_BUCKETS - 1;
	if (idx < STEPS)
		return idx;
	return (uint64_t)(STEPS + idx % STEPS) << (idx / STEPS - 1);
}

static uint64_t load(const uint64_t *value)
{
	return __atomic_load_n(value, __ATOMIC_RELAXED);
}

static uint64_t bucket_middle(unsigned idx)
{
	const uint64_t lower = wfi_hist_lower(idx);

	return idx + 1 < WFI_HIST_NR_BUCKETS ? lower + (wfi_hist_lower(idx + 1) - lower) / 2
					     : lower;
}

/* 1-based place of the value that we look for, in order of size */
static uint64_t rank_of(double q, uint64_t total)
{
	const double place = q * (double)total;
	uint64_t rank;

	/* also said so that what is no number becomes the smallest */
	if (!(place >= 1.0))
		return 1;
	if (q >= 1.0)
		return total;
	rank = (uint64_t)place;
	return (double)rank < place ? rank + 1 : rank;
}

uint64_t wfi_hist_quantile(const struct wfi_hist *hist, double q)
{
	const uint64_t max = load(&hist->max);
	uint64_t total = 0, rank, seen = 0, value;
	unsigned idx;

	/* not hist->nr: a writer at work may have counted in one and not yet in the other */
	for (idx = 0; idx < WFI_HIST_NR_BUCKETS; idx++)
		total += load(&hist->bucket[idx]);
	if (!total)
		return 0;
	rank = rank_of(q, total);
	for (idx = 0; idx < WFI_HIST_NR_BUCKETS - 1; idx++) {
		seen += load(&hist->bucket[idx]);
		if (seen >= rank)
			break;
	}
	if (idx == WFI_HIST_NR_BUCKETS - 1)
		return max > wfi_hist_lower(idx) ? max : wfi_hist_lower(idx);
	value = bucket_middle(idx);
	return max && value > max ? max : value;
}

void wfi_hist_merge(struct wfi_hist *into, const struct wfi_hist *from)
{
	uint64_t max = load(&from->max);
	unsigned idx;

	into->nr += load(&from->nr);
	into->sum += load(&from->sum);
	if (max > into->max)
		into->max = max;
	for (idx = 0; idx < WFI_HIST_NR_BUCKETS; idx++)
		into->bucket[idx] += load(&from->bucket[idx]);
}
