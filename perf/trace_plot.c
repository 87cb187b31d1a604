/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include "perf/perf.h"
#include "perf/trace_plot.h"

#define EXIT_NOT_FOUND 127 /* of the shell */

static void write_script(FILE *out, const struct wfi_trace_shares *shares, const char *title)
{
	fprintf(out,
		"set terminal pngcairo size 900,600\n"
		/* read from the environment: a path needs no quoting there */
		"set output system(\"printf %%s \\\"$WEFT_PLOT\\\"\")\n"
		"set title '%s' noenhanced\n"
		"set xlabel 'blocks that the cache holds'\n"
		"set ylabel 'share of blocks found'\n"
		"set logscale x 10\nset grid\nset key left top\nset yrange [0:*]\n"
		"plot ",
		title);
	for (unsigned s = 0; s < shares->nr; s++)
		fprintf(out, "%s'-' with linespoints title '%s'", s ? ", " : "", shares->names[s]);
	fputs("\n", out);
	for (unsigned s = 0; s < shares->nr; s++) {
		for (unsigned i = 0; i < shares->nr_capacities; i++)
			fprintf(out, "%u %.6f\n", shares->capacities[i], shares->value[s][i]);
		fputs("e\n", out);
	}
}

int wfi_trace_plot(const struct wfi_trace_shares *shares, const char *title, const char *path)
{
	FILE *out;
	int status;

	if (setenv("WEFT_PLOT", path, 1))
		return wfi_perf_fail(-ENOMEM, "no memory");
	/* a gnuplot that is not there must not end us */
	signal(SIGPIPE, SIG_IGN);
	out = popen("gnuplot", "we");
	if (!out)
		return wfi_perf_fail(-EIO, "--plot: no shell to start gnuplot: %s",
				     strerror(errno));
	write_script(out, shares, title);
	status = pclose(out);
	if (WIFEXITED(status) && WEXITSTATUS(status) == EXIT_NOT_FOUND)
		return wfi_perf_fail(-ENOENT, "--plot wants gnuplot: install it, or leave --plot "
					      "away; the figures are above");
	if (status)
		return wfi_perf_fail(-EIO, "--plot: gnuplot could not write %s", path);
	return 0;
}
