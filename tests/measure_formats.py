#!/usr/bin/env python3
"""Measures what each weight format costs: a table of bits per weight, perplexity and error of the logits.

usage: tests/measure_formats.py FATHOM [FORMAT...]

For every format that --quantize takes (or those named), against the weights as stored:
  bits       per weight in device memory, of all weights of fathom-tiny (norms, router and fallbacks included)
  ppl        perplexity of fathom-tiny on tests/golden/tiny/held_out.txt
  NMSE tiny  of its logits over that text
  NMSE 256   of the logits of a random-weight model whose rows are all whole blocks of 256
No test: what is too much is for people to say. Standard library only.
"""
import array
import json
import math
import os
import random
import re
import struct
import subprocess
import sys
import tempfile

import measure_loading

SOURCE = measure_loading.SOURCE
TINY = os.path.join(SOURCE, "models/tiny")
RANDOM = dict(measure_loading.CONFIG, vocab_size=2048, hidden_size=512, intermediate_size=1024,
              moe_intermediate_size=256, num_hidden_layers=4, num_attention_heads=4,
              num_key_value_heads=4, kv_lora_rank=256,
              n_routed_experts=8, num_experts_per_tok=2, n_shared_experts=1)


def write_random_model(folder):
    """Normally distributed bf16 weights, norms of 1."""
    noise = random.Random(1)
    deviates = array.array("f", (noise.gauss(0, 0.04) for _ in range(1 << 20)))
    halves = array.array("H", (int.from_bytes(struct.pack("<f", x)[2:], "little") for x in deviates))
    one, header, data = array.array("H", [0x3F80]), {}, bytearray()
    for name, shape in measure_loading.tensors(RANDOM):
        count, start, begin = math.prod(shape), noise.randrange(len(halves)), len(data)
        random_values = halves[start:] + halves * (count // len(halves) + 1)
        data += (one * count if name.endswith("norm.weight") else random_values[:count]).tobytes()
        header[name] = dict(dtype="BF16", shape=shape, data_offsets=[begin, len(data)])
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(os.path.join(folder, "model.safetensors"), "wb") as out:
        out.write(struct.pack("<Q", len(text)) + text + data)
    with open(os.path.join(folder, "config.json"), "w", encoding="utf-8") as out:
        json.dump(RANDOM, out)


def logits(fathom, model, tokens, quantize, folder):
    """The logits after each token: a list of rows."""
    path = os.path.join(folder, "logits.safetensors")
    command = [fathom, "logits", model, "--tokens", ",".join(map(str, tokens)), "-o", path, "-q"]
    subprocess.run(command + quantize, check=True)
    with open(path, "rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
        rows, cols = header["logits"]["shape"]
        file.seek(header["logits"]["data_offsets"][0], os.SEEK_CUR)
        values = array.array("f", file.read(4 * rows * cols))
    return [values[r * cols:(r + 1) * cols] for r in range(rows)]


def perplexity(rows, tokens):
    loss = 0.0
    for row, token in zip(rows, tokens[1:]):
        most = max(row)
        loss += most + math.log(sum(map(math.exp, (x - most for x in row)))) - row[token]
    return math.exp(loss / (len(tokens) - 1))


def nmse(rows, reference):
    error = sum((a - b) ** 2 for x, y in zip(rows, reference) for a, b in zip(x, y))
    return error / sum(b * b for y in reference for b in y)


def bits_per_weight(fathom, quantize, folder):
    path = os.path.join(folder, "stats.json")
    command = [fathom, "run", TINY, "-p", "x", "--max-tokens", "1", "--ignore-eos", "-q", "--stats", path]
    subprocess.run(command + quantize, check=True, stdout=subprocess.DEVNULL)
    with open(path, encoding="utf-8") as file:
        items = json.load(file)["memory"]
    with open(os.path.join(TINY, "model.safetensors"), "rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
    mtp = "model.layers.7."  # not loaded
    count = sum(math.prod(t["shape"]) for n, t in header.items() if n != "__metadata__" and mtp not in n)
    return 8 * sum(i["bytes"] for i in items if i["owner"].startswith("weights")) / count


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    fathom, formats = sys.argv[1], sys.argv[2:]
    if not formats:
        text = subprocess.run([fathom, "run", "--help"], check=True, capture_output=True, text=True).stdout
        formats = re.search(r"while\s+loading:\s*([a-z0-9_, \n]+)", text).group(1).replace(",", " ").split()
    with open(os.path.join(SOURCE, "tests/golden/tiny/held_out.json"), encoding="utf-8") as file:
        tokens = json.load(file)["tokens"]
    noise = random.Random(2)
    random_tokens = [noise.randrange(RANDOM["vocab_size"]) for _ in range(32)]
    print(f"{'format':<10} {'bits':>6} {'ppl':>8} {'NMSE tiny':>10} {'NMSE 256':>10}")
    with tempfile.TemporaryDirectory() as folder:
        write_random_model(folder)
        tiny = large = None
        for name in ["as stored"] + formats:
            quantize = [] if name == "as stored" else ["--quantize", name]
            rows = logits(fathom, TINY, tokens, quantize, folder)
            random_rows = logits(fathom, folder, random_tokens, quantize, folder)
            tiny, large = tiny or rows, large or random_rows
            bits, loss = bits_per_weight(fathom, quantize, folder), perplexity(rows, tokens)
            print(f"{name:<10} {bits:6.2f} {loss:8.3f} {nmse(rows, tiny):10.2e} "
                  f"{nmse(random_rows, large):10.2e}", flush=True)


if __name__ == "__main__":
    main()
