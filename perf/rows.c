/* SPDX-License-Identifier: Apache-2.0 */
/* rows.c - alternating rounds, medians, and one row a peer: a table for people, or JSON */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "perf/perf.h"

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double median(double *values, unsigned nr)
{
	qsort(values, nr, sizeof(*values), by_value);
	return nr & 1 ? values[nr / 2] : (values[nr / 2 - 1] + values[nr / 2]) / 2;
}

static void print_heading(void)
{
	static bool printed;

	if (printed)
		return;
	printed = true;
	printf("%-8s %-24s %-10s %12s  %-22s %12s %8s\n", "bench", "case", "unit", "weft", "peer",
	       "peer value", "ratio");
}

static void row_json(const struct wfi_perf_case *c, double weft, const char *peer, double value,
		     double ratio, const char *skipped)
{
	printf("{\"bench\":\"%s\",\"case\":\"%s\",\"unit\":\"%s\",\"weft\":%.6g,", c->bench,
	       c->name, c->unit, weft);
	if (!peer)
		printf("\"peer\":null,\"peer_value\":null,\"ratio\":null}\n");
	else if (skipped)
		printf("\"peer\":\"%s\",\"peer_value\":null,\"ratio\":null,\"skipped\":\"%s\"}\n",
		       peer, skipped);
	else
		printf("\"peer\":\"%s\",\"peer_value\":%.6g,\"ratio\":%.4g}\n", peer, value, ratio);
}

static void row_text(const struct wfi_perf_case *c, double weft, const char *peer, double value,
		     double ratio, const char *skipped)
{
	print_heading();
	printf("%-8s %-24s %-10s %12.5g", c->bench, c->name, c->unit, weft);
	if (!peer)
		putchar('\n');
	else if (skipped)
		printf("  %-22s skipped: %s\n", peer, skipped);
	else
		printf("  %-22s %12.5g %8.3f\n", peer, value, ratio);
}

static void row(const struct wfi_perf *p, const struct wfi_perf_case *c, double weft,
		const char *peer, double value, const char *skipped)
{
	double ratio = c->rate ? weft / value : value / weft;

	(p->json ? row_json : row_text)(c, weft, peer, value, ratio, skipped);
	fflush(stdout);
}

void wfi_perf_row(const struct wfi_perf *p, const struct wfi_perf_case *c, double weft,
		  const char *peer, double value)
{
	row(p, c, weft, peer, value, NULL);
}

void wfi_perf_fact(const struct wfi_perf *p, const struct wfi_perf_case *c, double value)
{
	row(p, c, value, NULL, 1, NULL);
}

static int side_round(const struct wfi_perf_case *c, const struct wfi_perf_side *side, double *out)
{
	int ret = side->round(side->ctx, out);

	if (ret < 0)
		return wfi_perf_fail(ret, "%s %s: %s: %s", c->bench, c->name,
				     side->name ? side->name : "weft", strerror(-ret));
	return 0;
}

static int measure(const struct wfi_perf *p, const struct wfi_perf_case *c,
		   const struct wfi_perf_side *sides, unsigned nr, double *medians)
{
	double *values = calloc((size_t)nr * p->rounds, sizeof(*values));
	double warm_up;
	unsigned s, r;
	int ret = 0;

	if (!values)
		return wfi_perf_fail(-ENOMEM, "out of memory");
	for (s = 0; s < nr && !ret; s++)
		if (!sides[s].skipped)
			ret = side_round(c, &sides[s], &warm_up);
	for (r = 0; r < p->rounds; r++)
		for (s = 0; s < nr && !ret; s++)
			if (!sides[s].skipped)
				ret = side_round(c, &sides[s], &values[s * p->rounds + r]);
	for (s = 0; s < nr && !ret; s++)
		medians[s] = median(&values[s * p->rounds], p->rounds);
	free(values);
	return ret;
}

int wfi_perf_compare(const struct wfi_perf *p, const struct wfi_perf_case *c,
		     const struct wfi_perf_side *sides, unsigned nr)
{
	double medians[WFI_PERF_SIDES_MAX];
	unsigned s;
	int ret;

	if (nr > WFI_PERF_SIDES_MAX)
		return -EINVAL;
	ret = measure(p, c, sides, nr, medians);
	for (s = 1; s < nr && !ret; s++)
		row(p, c, medians[0], sides[s].name, medians[s], sides[s].skipped);
	return ret;
}

int wfi_perf_measure(const struct wfi_perf *p, const struct wfi_perf_case *c,
		     const struct wfi_perf_side *side)
{
	double value;
	int ret = measure(p, c, side, 1, &value);

	if (!ret)
		wfi_perf_fact(p, c, value);
	return ret;
}
