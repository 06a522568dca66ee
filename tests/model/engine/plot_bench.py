#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Draws what model_bench measured: plot_bench.py OUT.png REPORT.json...

A bar for each row of the reports: milliseconds a chunk by stage, and the floor
as a line across. Needs gnuplot.
"""

import json
import subprocess
import sys

STAGES = {
    "vision": "#4477aa",
    "prefill": "#66ccee",
    "denoise": "#228833",
    "copies, waiting": "#bbbbbb",
}


def bars(paths):
    """(label, ms a chunk by stage, floor) of each row."""
    for path in paths:
        with open(path) as file:
            report = json.load(file)
        for row in report["rows"]:
            label = (
                f"{report['variant']}, rows: {row['rows']}\\n"
                f"cameras: {row['cameras']}\\ntokens: {row['prompt_tokens']}"
            )
            stages = {
                name: row["stage_p50_ms"].get(name, 0) / row["rows"]
                for name in STAGES
            }
            rest = row["p50_ms"] / row["rows"] - sum(stages.values())
            stages["copies, waiting"] = max(rest, 0)
            yield label, stages, row["floor_ms"] / row["rows"]


def script(out, rows):
    width = 140 * len(rows) + 220
    lines = [
        f"set terminal pngcairo size {width},480 font 'Sans,10'",
        "set bmargin 5",
        f"set output '{out}'",
        "set style data histogram",
        "set style histogram rowstacked",
        "set style fill solid noborder",
        "set boxwidth 0.6",
        "set ylabel 'ms a chunk'",
        "set yrange [0:]",
        "set grid y",
        "set key outside right",
        "$data << END",
    ]
    for label, stages, floor in rows:
        values = " ".join(f"{value:.4f}" for value in stages.values())
        lines.append(f'"{label}" {values} {floor:.4f}')
    lines.append("END")
    parts = [
        f"$data using {i + 2}:xtic(1) title '{name}' linecolor rgb '{colour}'"
        for i, (name, colour) in enumerate(STAGES.items())
    ]
    floor = len(STAGES) + 2
    parts.append(
        f"$data using ($0-0.35):{floor}:(0.7):(0) with vectors nohead "
        "linewidth 3 linecolor rgb '#aa3377' title 'floor'"
    )
    lines.append("plot " + ", ".join(parts))
    return "\n".join(lines) + "\n"


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    out, *reports = sys.argv[1:]
    text = script(out, list(bars(reports)))
    subprocess.run(["gnuplot"], input=text, text=True, check=True)


if __name__ == "__main__":
    main()
