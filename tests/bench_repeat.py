#!/usr/bin/env python3
"""How well `fathom bench` repeats: medians of five runs that were not flagged.

usage: bench_repeat.py [--runs N] [--attempts N] [--program PROGRAM] [-- ARGUMENTS of fathom bench...]

Runs the default benchmark until N runs (5) came without a flag of noise or throttling: a flagged run is
repeated, never judged. Prints, for every median of roofs and of the model, its range over those runs, and
fails where one exceeds 5 %, or where the attempts (30) end before. Kernels of some microseconds are printed
with them, and not judged. A benchmark, not a test. Standard library only.
"""
import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIMIT = 0.05


def medians(report: dict) -> dict[str, float]:
    out = {f"roof {roof['name']}": roof["rate"]["median"] for roof in report["roofs"]}
    out |= {f"model {row['name']}": row["tokens_per_second"]["median"] for row in report["model"]}
    for row in report["kernels"]:
        out[f"kernel {row['step']} {row['op']} {row['shape']}"] = row["cold"]["median"]
    return out


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--attempts", type=int, default=30)
    parser.add_argument("--program", default=str(ROOT / "fathom"))
    parser.add_argument("arguments", nargs="*")
    options = parser.parse_args()
    calm, flagged = [], 0
    while len(calm) < options.runs and len(calm) + flagged < options.attempts:
        command = [*options.program.split(), "bench", "--json", "-", *options.arguments]
        done = subprocess.run(command, cwd=ROOT, text=True, capture_output=True)
        if done.returncode != 0:
            sys.exit(done.stderr)
        report = json.loads(done.stdout)
        noise = [flag for flag in report["flags"] if flag.startswith(("noisy", "throttled"))]
        print(f"run {len(calm) + flagged + 1}: " + ("; ".join(noise) or "calm"), flush=True)
        if noise:
            flagged += 1
        else:
            calm.append(medians(report))
    if len(calm) < options.runs:
        sys.exit(f"only {len(calm)} of {len(calm) + flagged} runs were calm: this machine is too noisy today")
    worst = 0.0
    for name in calm[0]:
        values = [run[name] for run in calm if name in run]
        width = (max(values) - min(values)) / statistics.median(values)
        if not name.startswith("kernel"):
            worst = max(worst, width)
        print(f"{name:<70}{statistics.median(values):>12.4g}   range {100 * width:5.1f} %")
    print(f"worst of roofs and model: {100 * worst:.1f} % (limit {100 * LIMIT:.0f} %)")
    if worst > LIMIT:
        sys.exit(1)


if __name__ == "__main__":
    main()
