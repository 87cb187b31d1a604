/* SPDX-License-Identifier: Apache-2.0 */
/* trace_plot.h - hit shares by policy and capacity, and their picture */
#ifndef WFI_PERF_TRACE_PLOT_H
#define WFI_PERF_TRACE_PLOT_H

#include <stdint.h>

#define WFI_TRACE_COLUMNS 32u
#define WFI_TRACE_SERIES 16u

struct wfi_trace_shares {
	const char *names[WFI_TRACE_SERIES];
	unsigned nr;
	const uint32_t *capacities;
	unsigned nr_capacities;
	double value[WFI_TRACE_SERIES][WFI_TRACE_COLUMNS];
};

/**
 * wfi_trace_plot - write a PNG through gnuplot
 * @title: letters, digits, - and _
 *
 * Return: 0; -ENOENT no gnuplot, -EIO it failed (both said)
 */
int wfi_trace_plot(const struct wfi_trace_shares *shares, const char *title, const char *path);

#endif
