#!/usr/bin/env python3
"""Fathom beside llama.cpp's Vulkan back end: tokens a second on one software driver, in the same minutes.

usage: bench_llama.py [--rounds N] [--decode N] [--prefill N] [--only llama|fathom] [--json FILE]

Runs the embedded model in Fathom and a random-weight GGUF of its shape (f16; with a q-LoRA of 128,
without which llama.cpp refuses the shape) in llama-bench, both on lavapipe in the lab
(../shared/tools/lab). After one round that is thrown away (shader caches), rounds alternate in the order
A B, B A, so that a machine that slows down slows both. Prints each round, medians with their range, and
the ratio of the medians. A benchmark, not a test: it fails only when a program does. Prefill is one
prompt of exactly --prefill tokens into an empty context; decode is --decode tokens after the first, from
an almost empty context.
"""
import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LAB = ROOT / "../shared/tools/lab"
GGUF = "build/bench-tiny.gguf"  # relative to the repository, which the lab sees too
SHAPE = dict(layers=7, dense=1, hidden=256, heads=4, qlora=128, kvlora=64, nope=32, rope=16, v=32, experts=16,
             topk=4, shared=1, moe=96, ffn=704, vocab=4096, dtype="f16")
# llama.cpp skips software drivers unless told which device to take.
LAVAPIPE = ["VK_DRIVER_FILES=/usr/share/vulkan/icd.d/lvp_icd.json", "GGML_VK_VISIBLE_DEVICES=0"]
# The beginning of a text that has exactly the tokens asked for, BOS included.
CUT = """
import sys
from tokenizers import Tokenizer
tokenizer, want = Tokenizer.from_file("models/tiny/tokenizer.json"), int(sys.argv[1]) - 1
text = open("tests/golden/tiny/held_out.txt", encoding="utf-8").read()
text = text * (1 + want // len(tokenizer.encode(text).ids))
fits = [n for n in range(len(text)) if len(tokenizer.encode(text[:n]).ids) == want]
sys.stdout.write(text[:fits[0]])
"""


def in_lab(*command: str) -> str:
    """Runs a command in the lab, in the repository; returns what it printed."""
    whole = [LAB, "run", "env", *LAVAPIPE, *command]
    result = subprocess.run(whole, cwd=ROOT, text=True, capture_output=True)
    if result.returncode != 0:
        sys.exit(f"{' '.join(command[:4])} ... failed ({result.returncode}):\n{result.stdout}{result.stderr}")
    return result.stdout


class Llama:
    name = "llama.cpp"

    def __init__(self, args: argparse.Namespace):
        self.args = args
        options = [word for key, value in SHAPE.items() for word in (f"--{key}", str(value))]
        in_lab("python3", "../shared/tools/make_gguf.py", GGUF, *options, "--v3")

    def measure(self) -> dict[str, float]:
        rows = json.loads(in_lab("llama-bench", "-m", GGUF, "-ngl", "99", "-r", "1", "-o", "json",
                                 "-p", str(self.args.prefill), "-n", str(self.args.decode)))
        if not all("llvmpipe" in row["gpu_info"] for row in rows):
            sys.exit(f"llama-bench did not run on lavapipe but on {rows[0]['gpu_info']!r}")
        return {"decode" if row["n_gen"] else "prefill": row["avg_ts"] for row in rows}


class Fathom:
    name = "fathom"

    def __init__(self, args: argparse.Namespace):
        self.args = args
        in_lab("./fathom", "--version")  # builds it for the lab's system
        self.prompt = in_lab("python3", "-c", CUT, str(args.prefill))

    def run(self, prompt: str, tokens: int) -> dict:
        with tempfile.NamedTemporaryFile(dir=ROOT / "build", suffix=".json") as stats:
            path = str(Path(stats.name).relative_to(ROOT))
            in_lab("./fathom", "run", "-q", "-p", prompt, "-n", str(tokens), "--ignore-eos", "--greedy",
                   "--stats", path)
            result = json.loads((ROOT / path).read_text())
        if "llvmpipe" not in result["device"]:
            sys.exit(f"fathom did not run on lavapipe but on {result['device']!r}")
        if result["generated_tokens"] != tokens:
            sys.exit(f"fathom generated {result['generated_tokens']} tokens instead of {tokens}")
        return result

    def measure(self) -> dict[str, float]:
        prefill, decode = self.run(self.prompt, 1), self.run("", self.args.decode + 1)
        if prefill["prompt_tokens"] != self.args.prefill:
            sys.exit(f"fathom's prompt had {prefill['prompt_tokens']} tokens instead of {self.args.prefill}")
        return {"prefill": prefill["tokens_per_second"]["prefill"],
                "decode": decode["tokens_per_second"]["decode"]}


def compare(samples: dict[str, list[dict[str, float]]]) -> dict[str, dict[str, float]]:
    """Prints medians and ratios; returns the medians."""
    medians = {name: {} for name in samples}
    for kind in ("decode", "prefill"):
        for name, rounds in samples.items():
            values = sorted(sample[kind] for sample in rounds)
            medians[name][kind] = statistics.median(values)
            print(f"{kind:8} {name:10} {medians[name][kind]:9.1f} tokens/s "
                  f"({values[0]:.1f} to {values[-1]:.1f})")
        if len(samples) == 2:
            print(f"{kind:8} fathom / llama.cpp {medians['fathom'][kind] / medians['llama.cpp'][kind]:.2f}")
    return medians


def main() -> None:
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--decode", type=int, default=64)
    parser.add_argument("--prefill", type=int, default=256)
    parser.add_argument("--only", choices=["llama", "fathom"])
    parser.add_argument("--json", type=Path, help="write every sample there")
    args = parser.parse_args()
    if args.rounds < 1 or args.decode < 1 or args.prefill < 2:
        parser.error("--rounds and --decode are at least 1, --prefill is at least 2")
    subprocess.run([LAB, "setup"], check=True, stdout=sys.stderr)
    makers = {"llama": Llama, "fathom": Fathom}
    programs = [make(args) for key, make in makers.items() if args.only in (None, key)]
    samples = {program.name: [] for program in programs}
    for number in range(args.rounds + 1):
        for program in programs if number % 2 else reversed(programs):
            sample = program.measure()
            print(f"round {number or 'thrown away'}: {program.name:10} decode {sample['decode']:.1f}, "
                  f"prefill {sample['prefill']:.1f} tokens/s", flush=True)
            if number:
                samples[program.name].append(sample)
    medians = compare(samples)
    if args.json:
        args.json.write_text(json.dumps(dict(samples=samples, medians=medians), indent=1) + "\n")


if __name__ == "__main__":
    main()
