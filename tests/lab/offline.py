#!/usr/bin/env python3
"""What compilers make of the kernels, for chips of AMD, Intel and NVIDIA that are not here.

usage: offline.py [--preset NAME] [--format FORMAT] [--chips VENDOR:CHIP,...] [--out FOLDER] [--table FILE]

Runs `fathom bench --offline` in the lab (../shared/tools/lab) on one pretended chip after another, and
prints registers, spills, shared memory, occupancy and static cycles of every kernel for all of them; with
--out, FOLDER gets the reports, to be compared later; with --table, FILE the tables (engine/bench/results/
chips.md is what they were). Fails when a kernel spills or does not compile somewhere, or a driver says
nothing of it. Standard library only.
"""
import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
LAB = ROOT / "../shared/tools/lab"
CHIPS = ("amd:polaris10,amd:vega20,amd:navi10,amd:navi21,amd:navi31,amd:strix1,amd:gfx1201,"
         "intel:skl,intel:tgl,intel:dg2,intel:lnl,intel:bmg,nvidia:turing,nvidia:ampere,nvidia:ada,"
         "nvidia:blackwell")
TOLD = ("registers", "spills", "subgroup", "shared", "occupancy", "cycles")
PROGRAM = "build/debian-forky-release/fathom"  # as the lab's `./fathom` builds it


def report_of(vendor: str, chip: str, options: list[str]) -> dict:
    command = [LAB, vendor, chip, PROGRAM, "bench", "--offline", "--json", "-", *options]
    result = subprocess.run(command, cwd=ROOT, text=True, capture_output=True)
    if result.returncode != 0:
        sys.exit(f"{vendor} {chip}: exit code {result.returncode}\n{result.stderr}")
    return json.loads(result.stdout)


def number(value: float | None) -> str:
    return "" if value is None else f"{value:.0f}"


def table_of(kernels: list, reports: dict, options: argparse.Namespace) -> str:
    """The figures of every kernel and chip, in Markdown."""
    lines = ["# What compilers make of the kernels", "",
             f"{options.preset} in {options.format}; by `tests/lab/offline.py --table`. Registers: of",
             "an invocation (AMD, NVIDIA) or live at once (Intel). Occupancy: subgroups that share a",
             "SIMD (AMD) or an SM (NVIDIA); Intel's driver tells none. Shared memory in bytes. Cycles: one",
             "subgroup's, as the compiler estimates them, each in its own way: not to be compared.", ""]
    for what in TOLD:
        lines += [f"## {what}", "", "| kernel | " + " | ".join(reports) + " |",
                  "|---" * (1 + len(reports)) + "|"]
        for kernel in kernels:
            cells = [rows.get(kernel, {}).get("summary", {}).get(what) for rows in reports.values()]
            lines.append(f"| {' '.join(kernel)} | " + " | ".join(number(cell) for cell in cells) + " |")
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--preset", default="v2-lite")
    parser.add_argument("--format", default="q4_k")
    parser.add_argument("--chips", default=CHIPS)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--table", type=Path)
    options = parser.parse_args()
    build = [LAB, "run", "./fathom", "--version"]
    built = subprocess.run(build, cwd=ROOT, text=True, capture_output=True)
    if built.returncode != 0:
        sys.exit(f"no build in the lab:\n{built.stdout}{built.stderr}")
    reports, problems = {}, []
    chips = [name.split(":") for name in options.chips.split(",")]
    shape = ["--preset", options.preset, "--format", options.format]
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # the drivers' compilers have one thread each
        made = list(pool.map(lambda chip: report_of(*chip, shape), chips))
    for (vendor, chip), report in zip(chips, made):
        reports[chip] = {(row["step"], row["op"], row["format"]): row for row in report["pipelines"]}
        print(f"{chip}: {report['device']['name']}, {report['device']['driver']}", flush=True)
        for row in report["pipelines"]:
            told = row["summary"]
            if row["failure"] or told.get("registers", 0) <= 0 or told.get("cycles", 0) <= 0:
                problems.append(f"{chip}: {row['step']} {row['op']}: {row['failure'] or 'nothing is told'}")
            if told.get("spills", 0) > 0:
                problems.append(f"{chip}: {row['step']} {row['op']} spills {told['spills']:.0f} registers")
        if options.out:
            options.out.mkdir(parents=True, exist_ok=True)
            (options.out / f"{vendor}-{chip}.json").write_text(json.dumps(report, indent=2) + "\n")
    kernels = list(dict.fromkeys(key for rows in reports.values() for key in rows))
    if options.table:
        options.table.write_text(table_of(kernels, reports, options))
    for what in TOLD:
        print(f"\n{what:<44}" + "".join(f"{chip:>11}" for chip in reports))
        for kernel in kernels:
            cells = [rows.get(kernel, {}).get("summary", {}).get(what) for rows in reports.values()]
            print(f"  {' '.join(kernel):<42}" + "".join(f"{number(cell):>11}" for cell in cells))
    if problems:
        sys.exit("\n".join(problems))
    print(f"\n{len(kernels)} kernels compiled for {len(reports)} chips")


if __name__ == "__main__":
    main()
