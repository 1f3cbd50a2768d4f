#!/usr/bin/env python3
"""Measures what loading costs: the rate, and peak resident memory against the device's copy.

usage: tests/measure_loading.py FATHOM [GIB [FORMAT...]]

Writes a random bf16 checkpoint of about GIB (1.2 by default) in a temporary folder, in V2-Lite's
proportions, and of it a GGUF in each FORMAT (q8_0 q6_k q4_k by default); runs `FATHOM run` on each for one
token. A row says the bytes of the file, the rate at which they went from the page cache to the device, the
opening of both included, how many times longer that took than `cat` right before, the device's copy and how
much more memory the process had at its peak, which is to stay under 200 MiB. On a software device the copy
itself is host memory. --quantize FORMAT of the folder comes last: it is encoding, not loading. The tokenizer
is the embedded model's. Standard library only.
"""
import json
import math
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import time

SOURCE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
CONFIG = dict(
    architectures=["DeepseekV2ForCausalLM"], model_type="deepseek_v2", vocab_size=102400, hidden_size=1024,
    intermediate_size=4096, moe_intermediate_size=704, num_hidden_layers=2, num_attention_heads=16,
    num_key_value_heads=16, q_lora_rank=None, kv_lora_rank=512, qk_nope_head_dim=128, qk_rope_head_dim=64,
    v_head_dim=128, n_routed_experts=64, n_shared_experts=2, num_experts_per_tok=6, n_group=1, topk_group=1,
    topk_method="greedy", scoring_func="softmax", norm_topk_prob=False, routed_scaling_factor=1.0,
    first_k_dense_replace=1, moe_layer_freq=1, hidden_act="silu", attention_bias=False, rms_norm_eps=1e-6,
    rope_theta=10000, rope_scaling=None, max_position_embeddings=4096, tie_word_embeddings=False,
    bos_token_id=0, eos_token_id=1, torch_dtype="bfloat16")


def tensors(c):
    """Name and shape of every tensor of the configuration."""
    h, heads = c["hidden_size"], c["num_attention_heads"]
    yield "model.embed_tokens.weight", (c["vocab_size"], h)
    yield "lm_head.weight", (c["vocab_size"], h)
    yield "model.norm.weight", (h,)
    for n in range(c["num_hidden_layers"]):
        p = f"model.layers.{n}."
        yield p + "input_layernorm.weight", (h,)
        yield p + "post_attention_layernorm.weight", (h,)
        a = p + "self_attn."
        yield a + "q_proj.weight", (heads * (c["qk_nope_head_dim"] + c["qk_rope_head_dim"]), h)
        yield a + "kv_a_proj_with_mqa.weight", (c["kv_lora_rank"] + c["qk_rope_head_dim"], h)
        yield a + "kv_a_layernorm.weight", (c["kv_lora_rank"],)
        yield a + "kv_b_proj.weight", (heads * (c["qk_nope_head_dim"] + c["v_head_dim"]), c["kv_lora_rank"])
        yield a + "o_proj.weight", (h, heads * c["v_head_dim"])
        mlps = [(p + "mlp.", c["intermediate_size"])]
        if n >= c["first_k_dense_replace"]:
            yield p + "mlp.gate.weight", (c["n_routed_experts"], h)
            width = c["moe_intermediate_size"]
            mlps = [(f"{p}mlp.experts.{e}.", width) for e in range(c["n_routed_experts"])]
            mlps.append((p + "mlp.shared_experts.", c["n_shared_experts"] * width))
        for prefix, width in mlps:
            yield prefix + "gate_proj.weight", (width, h)
            yield prefix + "up_proj.weight", (width, h)
            yield prefix + "down_proj.weight", (h, width)


def write_checkpoint(folder, gib):
    per_layer = sum(2 * math.prod(shape) for name, shape in tensors(CONFIG) if ".layers.1." in name)
    fixed = sum(2 * math.prod(shape) for name, shape in tensors(CONFIG)) - per_layer
    config = dict(CONFIG, num_hidden_layers=1 + max(1, round((gib * 2**30 - fixed) / per_layer)))
    header, offset = {}, 0
    for name, shape in tensors(config):
        end = offset + 2 * math.prod(shape)
        header[name] = dict(dtype="BF16", shape=shape, data_offsets=[offset, end])
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    # 4 MiB of small random bf16 values (exponent byte 0x3c or 0xbc), repeated: their content does not matter
    noise = bytes(b for low in os.urandom(2 << 20) for b in (low, 0x3C | (low & 1) << 7))
    with open(os.path.join(folder, "model.safetensors"), "wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        for start in range(0, offset, len(noise)):
            out.write(noise[: min(len(noise), offset - start)])
    json.dump(config, open(os.path.join(folder, "config.json"), "w"))
    shutil.copy(os.path.join(SOURCE, "models/tiny/tokenizer.json"), folder)
    return offset


def timed(command):
    start = time.monotonic()
    with open("/dev/null", "wb") as nothing:
        process = subprocess.Popen(command, stdout=nothing, stderr=nothing)
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"failed: {command}")
    return time.monotonic() - start, usage.ru_maxrss * 1024


def measure(program, name, model, file, options=()):
    """Prints a row; whether the memory stayed within its limit."""
    stats_file = os.path.join(os.path.dirname(file), "stats.json")
    size = os.path.getsize(file)
    timed(["cat", file])  # it was just written: into the page cache
    cat, _ = timed(["cat", file])
    _, peak = timed([program, "run", model, "-p", "x", "--max-tokens", "1", "--ignore-eos", "--context",
                     "512", "--stats", stats_file, *options])
    with open(stats_file, encoding="utf-8") as stats:
        stats = json.load(stats)
    device, load = sum(item["reserved"] for item in stats["memory"]), stats["seconds"]["load"]
    more = (peak - device) / 2**20
    rate = size / load / 1e9
    print(f"{name:<16}{size / 1e9:>8.2f} GB{load:>8.2f} s{rate:>8.2f} GB/s{load / cat:>8.1f} x cat",
          f"{device / 2**20:>8.0f} MiB copy{more:>6.0f} MiB more", flush=True)
    return more <= 200


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    program, gib = os.path.abspath(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 1.2
    formats = sys.argv[3:] or ["q8_0", "q6_k", "q4_k"]
    with tempfile.TemporaryDirectory() as folder:
        write_checkpoint(folder, gib)
        weights = os.path.join(folder, "model.safetensors")
        good = measure(program, "bf16 folder", folder, weights)
        for form in formats:
            file = os.path.join(folder, form + ".gguf")
            timed([program, "quantize", folder, file, "--format", form, "-q"])
            good &= measure(program, form + ".gguf", file, file)
            os.remove(file)
        good &= measure(program, f"--quantize {formats[-1]}", folder, weights, ["--quantize", formats[-1]])
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
