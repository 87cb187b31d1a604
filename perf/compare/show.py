#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""show.py FIGURES [PNG]: a table of what weft-perf --json printed, and a plot of its ratios."""

import json
import os
import subprocess
import sys


def table(rows):
    print(f"{'case':24} {'unit':8} {'weft':>12}  {'peer':16} {'peer value':>12} {'ratio':>8}")
    for r in rows:
        if r["ratio"] is None:
            said = f"skipped: {r['skipped']}"
        else:
            said = f"{r['peer_value']:12.5g} {r['ratio']:8.2f}"
        print(f"{r['case']:24} {r['unit']:8} {r['weft']:12.5g}  {r['peer']:16} {said}")


def plot(rows, path):
    bars = [r for r in rows if r["ratio"] is not None]
    lines = [f'"{r["case"]}\\n{r["peer"]}" {r["ratio"]}' for r in bars]
    script = """
set terminal pngcairo size 1200,700
set output system("printf %s \\"$WEFT_PLOT\\"")
set title 'how many times as fast as its peers Weft was' noenhanced
set logscale y 10
set grid y
set style fill solid 0.6
set boxwidth 0.7
set xtics rotate by -60 noenhanced
set bmargin 11
plot '-' using 0:2:xtic(1) with boxes notitle, 1 with lines dashtype 2 notitle
"""
    env = dict(os.environ, WEFT_PLOT=path)
    data = script + "\n".join(lines) + "\ne\n"
    subprocess.run(["gnuplot"], input=data, text=True, env=env, check=True)


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    with open(sys.argv[1], encoding="utf-8") as f:
        figures = [json.loads(line) for line in f]
    table(figures)
    if len(sys.argv) == 3 and sys.argv[2]:
        plot(figures, sys.argv[2])
