"""Makes tests/golden/blocks.safetensors: blocks of every format of ggml, and what they stand for.

usage: make_blocks.py [--check]      needs gguf, numpy and safetensors

For each format, <FORMAT>.blocks (blocks, bytes) U8 and <FORMAT>.values (blocks, values) F32, which the
Python package gguf makes of them. The blocks are random bytes, and some with every bit clear or set; scales
in f16 are finite, and among them are subnormals, negative ones, zeros and the largest. With --check nothing
is written: what is made is compared, bit for bit, with what is committed.
"""
import argparse
import sys
from pathlib import Path

import numpy as np
from gguf import quants
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from safetensors.numpy import load_file, save_file

FILE = Path(__file__).parent / "blocks.safetensors"
# Where in its blocks a format has f16 numbers.
HALVES = {"Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "Q2_K": [80, 82],
          "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208], "IQ4_NL": [0], "IQ4_XS": [0],
          "MXFP4": []}
ODD_HALVES = [0x0000, 0x8000, 0x0001, 0x83FF, 0x03FF, 0x0400, 0x7BFF, 0xFBFF]


def blocks_of(name: str, random: np.random.Generator) -> np.ndarray:
    size, count = GGML_QUANT_SIZES[GGMLQuantizationType[name]]
    blocks = random.integers(0, 256, (24 if size == 32 else 10, count), dtype=np.uint8)
    for fill, block in ((0, 0), (0xFF, 1)):
        blocks[block] = fill
    for at in HALVES[name]:
        halves = random.normal(0, 0.01, len(blocks)).astype(np.float16).view(np.uint16)
        halves[:2] = np.float16(0.5).view(np.uint16)
        halves[2:2 + len(ODD_HALVES)] = random.permutation(ODD_HALVES)
        blocks[:, at:at + 2] = halves.view(np.uint8).reshape(-1, 2)
    if name == "MXFP4":
        blocks[:6, 0] = (0, 1, 2, 127, 253, 254)
    return blocks


def make() -> dict[str, np.ndarray]:
    tensors = {}
    for seed, name in enumerate(HALVES):
        blocks = blocks_of(name, np.random.default_rng(seed))
        tensors[name + ".blocks"] = blocks
        with np.errstate(over="ignore"):
            tensors[name + ".values"] = quants.dequantize(blocks, GGMLQuantizationType[name])
    return tensors


def main() -> None:
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--check", action="store_true", help="compare with what is committed, write nothing")
    made = make()
    if not parser.parse_args().check:
        save_file(made, FILE)
        return
    committed = load_file(FILE)
    nothing = np.zeros(0)
    differ = [name for name in made | committed
              if made.get(name, nothing).tobytes() != committed.get(name, nothing).tobytes()]
    if differ:
        sys.exit(f"{FILE.name}: not what is committed: {', '.join(differ)}")
    print(f"{FILE.name}: {len(made) // 2} formats, bit for bit what is committed")


if __name__ == "__main__":
    main()
