#!/usr/bin/env python3
"""Every tier of kernels right on the lab's lavapipe, cooperative matrices among them; a spoiled one caught.

usage: tiers.py

Loads the embedded model in the lab with `--tier tune`, as stored and quantised, and looks at what the tuner
wrote down: every tier was tried, each is right against the reference, and text comes out. Then once more with
the test hook that spoils the matrix kernels: those and no others are wrong. Debian 12's glslang cannot build
cooperative matrices, so only the lab runs them. Standard library only.
"""
import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
LAB = ROOT / "../shared/tools/lab"
LAVAPIPE = "VK_DRIVER_FILES=/usr/share/vulkan/icd.d/lvp_icd.json"


def trials(cache: Path, *options: str, wrong: str = "") -> tuple[list, str]:
    command = [LAB, "run", "env", "-u", "VK_ICD_FILENAMES", LAVAPIPE, f"XDG_CACHE_HOME={cache}",
               f"FATHOM_WRONG_TIER={wrong}", "./fathom", "run", "--tier", "tune", "-p", "Once upon a time",
               "--greedy", "-n", "12", "-q", *options]
    result = subprocess.run(command, cwd=ROOT, text=True, capture_output=True)
    if result.returncode != 0:
        sys.exit(f"{' '.join(options)}: exit code {result.returncode}\n{result.stdout}{result.stderr}")
    found = list((cache / "fathom").glob("tuning-*.json"))
    if len(found) != 1:
        sys.exit(f"{len(found)} tuning files in {cache}")
    return json.loads(found[0].read_text())["trials"], result.stdout


def main() -> None:
    with tempfile.TemporaryDirectory(dir=ROOT / "build") as folder:
        cache = Path(folder)
        for options in ([], ["--quantize", "q8_0"], ["--quantize", "q4_0"]):
            found, text = trials(cache, *options)
            told = {trial["tier"] for trial in found}
            wrong = [trial for trial in found if trial["failure"]]
            missing = {"base", "tiled", "half", "matrix"} | ({"int8"} if options else set())
            missing -= told
            missing |= {(kernel, tier) for kernel in ("expanded_attention", "cached_attention")
                        for tier in ("base", "tiled", "matrix")}
            missing -= {(trial["kernel"], trial["tier"]) for trial in found}
            print(f"{' '.join(options) or 'as stored'}: {len(found)} trials, {sorted(told)}")
            if wrong or missing or len(text.split()) < 6:
                sys.exit(f"wrong: {wrong}\nnot tried: {missing}\ntext: {text}")
        found, text = trials(cache, "--quantize", "q8_0", wrong="matrix")
        q8 = [trial for trial in found if trial["format"] == "q8_0"]
        for trial in q8:
            if (trial["tier"] == "matrix") != bool(trial["failure"]):
                sys.exit(f"spoiled matrix kernels: {trial}")
        caught = sum(bool(trial["failure"]) for trial in q8)
        print(f"spoiled: {caught} of {len(q8)} trials caught")
        if caught < 3:
            sys.exit("too few of them")


if __name__ == "__main__":
    main()
