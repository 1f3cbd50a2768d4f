#!/usr/bin/env python3
"""Fathom beside llama.cpp, by Vulkan and by its CPU code: tokens a second, in the same minutes.

usage: bench_llama.py [--model tiny|q8_0|q4_0|FILE] [--rounds N] [-p N,...] [-n N] [-d N,...]
                      [--sessions N,...] [--json FILE]

Runs `llama-bench` on lavapipe and on its own CPU back end, and `fathom bench --like-llama-bench` on lavapipe,
all in the lab (../shared/tools/lab) on one random-weight GGUF: a tiny one in f16, a larger one in q8_0 or
q4_0, or FILE, which must lie in the repository. After one round that is thrown away (shader caches), rounds
alternate in their order, so that a machine that slows down slows all. Prints each round, medians with their
range, the ratios of the medians, what each depth of -d adds to a token that is generated beside what the
measured roofs allow, and the rates of sessions side by side: Fathom's, and those of llama-server's slots with
as many requests at once. A benchmark, not a test: it fails only when a program does.
"""
import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LAB = ROOT / "../shared/tools/lab"
sys.path.insert(0, str(ROOT / "tests/lab"))
from gguf import Llama  # noqa: E402
PROGRAM = "build/debian-forky-release/fathom"  # as the lab's `./fathom` builds it
LARGER = dict(qlora=512)  # make_gguf.py has the rest by default
MODELS = {
    "tiny": dict(layers=8, hidden=256, heads=4, qlora=128, kvlora=64, nope=32, rope=16, v=32, experts=16,
                 topk=4, shared=1, moe=128, ffn=768, vocab=4096, dtype="f16"),
    "q8_0": LARGER | dict(dtype="q8_0"),
    "q4_0": LARGER | dict(dtype="q4_0"),
}
DEFAULTS = dict(layers=4, heads=8, kvlora=512, rope=64)
# llama.cpp skips software drivers unless told which device to take.
LAVAPIPE = ["VK_DRIVER_FILES=/usr/share/vulkan/icd.d/lvp_icd.json", "GGML_VK_VISIBLE_DEVICES=0"]

def in_lab(*command: str) -> str:
    """Runs a command in the lab, in the repository; returns what it printed."""
    whole = [LAB, "run", "env", *LAVAPIPE, *command]
    result = subprocess.run(whole, cwd=ROOT, text=True, capture_output=True)
    if result.returncode != 0:
        sys.exit(f"{' '.join(command[:4])} ... failed ({result.returncode}):\n{result.stdout}{result.stderr}")
    return result.stdout


def probe_cpu_code(commands: dict[str, list[str]]) -> None:
    """Leaves llama.cpp's CPU code out where it does not run; AMX code aborts, which --repack 0 avoids."""
    whole = commands.pop("llama.cpp CPU")
    for extra in [], ["--repack", "0"]:
        probe = [LAB, "run", *whole, *extra, "-p", "8", "-n", "0", "-r", "1"]
        if subprocess.run(probe, cwd=ROOT, capture_output=True).returncode == 0:
            commands["llama.cpp CPU"] = whole + extra
            if extra:
                print("llama.cpp's CPU code aborts with repacked weights: run with --repack 0", flush=True)
            return
    print("llama.cpp's CPU code does not run this model here: left out", flush=True)


def name_of(row: dict) -> str:
    kind = f"pp{row['n_prompt']}" if row["n_prompt"] else f"tg{row['n_gen']}"
    return f"{kind} @ d{row['n_depth']}" if row["n_depth"] else kind


def measure(command: list[str], args: argparse.Namespace) -> dict[str, float]:
    """Tokens a second of each test: prompts and generations, and generations behind other texts."""
    rows = json.loads(in_lab(*command, "-p", args.p, "-n", args.n, "-r", "1"))
    if args.d:
        rows += json.loads(in_lab(*command, "-p", "0", "-n", args.n, "-d", args.d, "-r", "1"))
    wanted = "" if "GGML_VK_VISIBLE_DEVICES=" in command else "llvmpipe"
    if not all(wanted in row["gpu_info"] for row in rows):
        sys.exit(f"{command[0]} did not run on lavapipe but on {rows[0]['gpu_info']!r}")
    return {name_of(row): row["avg_ts"] for row in rows}


def compare(samples: dict[str, list[dict[str, float]]]) -> dict[str, dict[str, float]]:
    """Prints medians and ratios; returns the medians."""
    medians = {program: {} for program in samples}
    for test in samples["fathom"][0]:
        for program, rounds in samples.items():
            values = sorted(sample[test] for sample in rounds)
            medians[program][test] = statistics.median(values)
            print(f"{test:14} {program:14} {medians[program][test]:9.1f} tokens/s "
                  f"({values[0]:.1f} to {values[-1]:.1f})")
        for other in [program for program in samples if program != "fathom"]:
            print(f"{test:14} fathom / {other}: {medians['fathom'][test] / medians[other][test]:.2f}")
    return medians


def roofs() -> dict[str, float]:
    report = json.loads(in_lab(PROGRAM, "bench", "--only", "roofs", "--json", "-", "-q"))
    return {roof["name"]: roof["rate"]["median"] for roof in report["roofs"]}


def print_depths(medians: dict[str, dict[str, float]], shape: dict) -> None:
    """What each depth adds to a token, and what the cache's bytes and products would take at the roofs."""
    measured = roofs()
    for test in medians["fathom"]:
        base, _, depth = test.partition(" @ d")
        if not depth or not test.startswith("tg"):
            continue
        row = shape["kvlora"] + shape["rope"]
        bytes_read = shape["layers"] * int(depth) * row * 4
        flops = shape["layers"] * int(depth) * shape["heads"] * 2 * (row + shape["kvlora"])
        least = max(bytes_read / measured["read"], flops / measured["fma_f32"]) * 1e-9
        for program, rates in medians.items():
            added = 1 / rates[test] - 1 / rates[base]
            print(f"{test:14} {program:14} adds {1e3 * added:8.2f} ms to a token, {added / least:5.1f} times "
                  f"the {1e3 * least:.2f} ms that the roofs allow")


def slots_rate(gguf: str, sessions: int) -> float:
    """Tokens a second of llama-server on lavapipe with so many requests at once, each of 16 tokens."""
    options = ["-ngl", "99", "-np", str(sessions), "-c", str(128 * sessions)]
    with tempfile.TemporaryFile("w+") as log, Llama(gguf, log, options, LAVAPIPE) as server, \
            ThreadPoolExecutor(sessions) as pool:

        def generate(seed: int) -> int:
            return server.request("/completion", dict(prompt="ab", n_predict=16, ignore_eos=True, seed=seed,
                                                      cache_prompt=False))["tokens_predicted"]

        list(pool.map(generate, range(sessions)))  # its shaders, once
        start = time.monotonic()
        made = sum(pool.map(generate, range(sessions)))
        return made / (time.monotonic() - start)


def print_batches(args: argparse.Namespace, gguf: str) -> None:
    wanted = ["-p", "0", "-n", "16", "--parallel", args.sessions, "-r", "3"]
    rows = json.loads(in_lab(*args.fathom, *wanted))
    for row in rows:
        theirs = slots_rate(gguf, row["n_parallel"])
        print(f"{row['n_parallel']:3} sessions     fathom {row['avg_ts']:9.1f}, llama-server {theirs:9.1f} "
              f"tokens/s together: {row['avg_ts'] / theirs:.2f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("-p", default="64,512")
    parser.add_argument("-n", default="64")
    parser.add_argument("-d", default="", help="generate behind so many tokens too")
    parser.add_argument("--sessions", default="1,2,4,8,16,32", help="side by side; empty: do not")
    parser.add_argument("--model", default="tiny", help="tiny, q8_0, q4_0, or a file in the repository")
    parser.add_argument("--json", type=Path, help="write every sample there")
    args = parser.parse_args()
    if args.rounds < 1:
        parser.error("--rounds is at least 1")
    subprocess.run([LAB, "setup"], check=True, stdout=sys.stderr)
    gguf, shape = args.model, MODELS.get(args.model)
    if shape:
        gguf = f"build/bench-{args.model}.gguf"  # relative to the repository, which the lab sees too
        options = [word for key, value in shape.items() for word in (f"--{key}", str(value))]
        in_lab("python3", "../shared/tools/make_gguf.py", gguf, *options)
    in_lab("./fathom", "--version")  # builds it for the lab's system
    args.fathom = [PROGRAM, "bench", gguf, "--like-llama-bench", "--json", "-", "-q"]
    theirs = ["llama-bench", "-m", gguf, "-o", "json", "--no-warmup"]  # the first round is thrown away
    commands = {"llama.cpp": [*theirs, "-ngl", "99"],
                "llama.cpp CPU": ["env", "GGML_VK_VISIBLE_DEVICES=", *theirs, "-ngl", "0", "-t", "2"],
                "fathom": args.fathom}
    probe_cpu_code(commands)
    samples = {program: [] for program in commands}
    for number in range(args.rounds + 1):
        for program in list(commands) if number % 2 else reversed(commands):
            sample = measure(commands[program], args)
            rates = ", ".join(f"{test} {rate:.1f}" for test, rate in sample.items())
            print(f"round {number or 'thrown away'}: {program:14} {rates} tokens/s", flush=True)
            if number:
                samples[program].append(sample)
    medians = compare(samples)
    if shape:
        print_depths(medians, DEFAULTS | shape)
    if args.sessions:
        print_batches(args, gguf)
    if args.json:
        args.json.write_text(json.dumps(dict(samples=samples, medians=medians), indent=1) + "\n")


if __name__ == "__main__":
    main()
