#!/usr/bin/env python3
"""Fathom beside llama.cpp's Vulkan back end: tokens a second on one software driver, in the same minutes.

usage: bench_llama.py [--rounds N] [-p N,...] [-n N,...] [-d N,...] [--gguf FILE] [--json FILE]

Runs `llama-bench` and `fathom bench --like-llama-bench` on one file, both on lavapipe in the lab
(../shared/tools/lab). The file is a random-weight GGUF of fathom-tiny's shape (f16; with a q-LoRA of 128 and
one group, without which llama.cpp refuses or mis-routes the shape), or FILE, which must lie in the
repository. After one round that is thrown away (shader caches), rounds alternate in the order A B, B A, so
that a machine that slows down slows both. Prints each round, medians with their range, and the ratio of the
medians. A benchmark, not a test: it fails only when a program does.
"""
import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LAB = ROOT / "../shared/tools/lab"
GGUF = "build/bench-tiny.gguf"  # relative to the repository, which the lab sees too
SHAPE = dict(layers=7, dense=1, hidden=256, heads=4, qlora=128, kvlora=64, nope=32, rope=16, v=32, experts=16,
             topk=4, shared=1, moe=96, ffn=704, vocab=4096, dtype="f16")
# llama.cpp skips software drivers unless told which device to take.
LAVAPIPE = ["VK_DRIVER_FILES=/usr/share/vulkan/icd.d/lvp_icd.json", "GGML_VK_VISIBLE_DEVICES=0"]

def in_lab(*command: str) -> str:
    """Runs a command in the lab, in the repository; returns what it printed."""
    whole = [LAB, "run", "env", *LAVAPIPE, *command]
    result = subprocess.run(whole, cwd=ROOT, text=True, capture_output=True)
    if result.returncode != 0:
        sys.exit(f"{' '.join(command[:4])} ... failed ({result.returncode}):\n{result.stdout}{result.stderr}")
    return result.stdout


def name_of(row: dict) -> str:
    kind = f"pp{row['n_prompt']}" if row["n_prompt"] else f"tg{row['n_gen']}"
    return f"{kind} @ d{row['n_depth']}" if row["n_depth"] else kind


def measure(command: list[str], args: argparse.Namespace) -> dict[str, float]:
    """Tokens a second of each test."""
    rows = json.loads(in_lab(*command, "-p", args.p, "-n", args.n, "-d", args.d, "-r", "1"))
    if not all("llvmpipe" in row["gpu_info"] for row in rows):
        sys.exit(f"{command[0]} did not run on lavapipe but on {rows[0]['gpu_info']!r}")
    return {name_of(row): row["avg_ts"] for row in rows}


def compare(samples: dict[str, list[dict[str, float]]]) -> dict[str, dict[str, float]]:
    """Prints medians and ratios; returns the medians."""
    medians = {program: {} for program in samples}
    for test in samples["fathom"][0]:
        for program, rounds in samples.items():
            values = sorted(sample[test] for sample in rounds)
            medians[program][test] = statistics.median(values)
            print(f"{test:14} {program:10} {medians[program][test]:9.1f} tokens/s "
                  f"({values[0]:.1f} to {values[-1]:.1f})")
        print(f"{test:14} fathom / llama.cpp {medians['fathom'][test] / medians['llama.cpp'][test]:.2f}")
    return medians


def main() -> None:
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("-p", default="64,512")
    parser.add_argument("-n", default="64")
    parser.add_argument("-d", default="0")
    parser.add_argument("--gguf", help="a file of your own, by its path in the repository")
    parser.add_argument("--json", type=Path, help="write every sample there")
    args = parser.parse_args()
    if args.rounds < 1:
        parser.error("--rounds is at least 1")
    subprocess.run([LAB, "setup"], check=True, stdout=sys.stderr)
    if not args.gguf:
        options = [word for key, value in SHAPE.items() for word in (f"--{key}", str(value))]
        in_lab("python3", "../shared/tools/make_gguf.py", GGUF, *options, "--v3")
        args.gguf = GGUF
    in_lab("./fathom", "--version")  # builds it for the lab's system
    commands = {"llama.cpp": ["llama-bench", "-m", args.gguf, "-ngl", "99", "-o", "json"],
                "fathom": ["./fathom", "bench", args.gguf, "--like-llama-bench", "--json", "-", "-q"]}
    samples = {program: [] for program in commands}
    for number in range(args.rounds + 1):
        for program in list(commands) if number % 2 else reversed(commands):
            sample = measure(commands[program], args)
            rates = ", ".join(f"{test} {rate:.1f}" for test, rate in sample.items())
            print(f"round {number or 'thrown away'}: {program:10} {rates} tokens/s", flush=True)
            if number:
                samples[program].append(sample)
    medians = compare(samples)
    if args.json:
        args.json.write_text(json.dumps(dict(samples=samples, medians=medians), indent=1) + "\n")


if __name__ == "__main__":
    main()
