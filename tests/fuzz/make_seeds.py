#!/usr/bin/env python3
"""Seeds for the fuzz targets: small files of every format. Usage: make_seeds.py FOLDER, which receives one
folder for each target. A generator gives what must be accepted whole, as Valid, and what has a fault or asks
for something that is refused; fuzz.h says how the difference is enforced."""
import base64
import json
import struct
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def byte_level(byte):
    """The character that stands for a byte in a byte-level vocabulary."""
    itself = 0x21 <= byte <= 0x7E or (0xA1 <= byte and byte != 0xAD)
    others = [b for b in range(256) if not (0x21 <= b <= 0x7E or (0xA1 <= b and b != 0xAD))]
    return chr(byte if itself else 0x100 + others.index(byte))


class Valid(bytes):
    """A seed that its target must accept."""


VOCABULARY = [byte_level(b) for b in range(256)] + ["ab", "Ġt", "he", "Ġthe", "12"]
MERGES = [["a", "b"], ["Ġ", "t"], ["h", "e"], ["Ġt", "he"], ["1", "2"]]


def safetensors():
    def file(header, data=b""):
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        return struct.pack("<Q", len(text)) + text + data

    one = {"dtype": "F32", "shape": [1, 2], "data_offsets": [0, 8]}
    two = {"dtype": "F8_E4M3", "shape": [3], "data_offsets": [8, 11]}
    yield Valid(file({"a": one, "b": two, "__metadata__": {"format": "pt"}}, bytes(11)))
    yield Valid(file({}))
    yield file({"a": dict(one, data_offsets=[4, 12])}, bytes(12))
    yield file({"a": dict(one, shape=[2**63, 2])}, bytes(8))
    yield file(b'{"a":{"dtype":"F32","dtype":"F16"}}')


class Double:
    """A number that a GGUF file holds in 64 bits."""

    def __init__(self, value):
        self.value = value


# Of a model with the latent of attention, groups of experts, and YaRN.
MODEL = {"context_length": 256, "embedding_length": 64, "block_count": 3, "feed_forward_length": 96,
         "attention.head_count": 4, "attention.head_count_kv": 1, "attention.q_lora_rank": 24,
         "attention.kv_lora_rank": 32, "attention.key_length": 40, "attention.value_length": 32,
         "attention.key_length_mla": 24, "attention.value_length_mla": 16,
         "attention.layer_norm_rms_epsilon": 1e-6, "rope.dimension_count": 8, "rope.freq_base": 10000.0,
         "leading_dense_block_count": 1, "expert_count": 8, "expert_used_count": 2,
         "expert_feed_forward_length": 16, "expert_shared_count": 1, "expert_group_count": 2,
         "expert_group_used_count": 1, "expert_gating_func": 2, "expert_weights_scale": 2.5,
         "expert_weights_norm": True, "rope.scaling.type": "yarn", "rope.scaling.factor": 4.0,
         "rope.scaling.original_context_length": 64, "rope.scaling.yarn_log_multiplier": 0.1}


def gguf():
    def text(value):
        raw = value.encode()
        return struct.pack("<Q", len(raw)) + raw

    def value(v):
        if isinstance(v, bool):
            return struct.pack("<IB", 7, v)
        if isinstance(v, int):
            return struct.pack("<II", 4, v)
        if isinstance(v, float):
            return struct.pack("<If", 6, v)
        if isinstance(v, Double):
            return struct.pack("<Id", 12, v.value)
        if isinstance(v, str):
            return struct.pack("<I", 8) + text(v)
        kind, pack = (8, text) if isinstance(v[0], str) else (5, lambda n: struct.pack("<i", n))
        return struct.pack("<IIQ", 9, kind, len(v)) + b"".join(map(pack, v))

    def file(keys, tensors=(), data=b"", version=3):
        out = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(keys))
        out += b"".join(text(k) + value(v) for k, v in keys.items())
        for name, dims, kind, offset in tensors:
            out += text(name) + struct.pack("<I", len(dims)) + b"".join(struct.pack("<Q", d) for d in dims)
            out += struct.pack("<IQ", kind, offset)
        return out + bytes(-len(out) % 32) + data

    yield file({"general.architecture": "deepseek2", "a": 1, "b": 0.5, "c": True, "d": [1, 2]},
               [("t", [32, 2], 8, 0), ("u", [4], 0, 96)], bytes(112))
    tokenizer = {"model": "gpt2", "pre": "deepseek-llm", "tokens": VOCABULARY,
                 "token_type": [1] * len(VOCABULARY), "merges": [" ".join(m) for m in MERGES]}
    def model(pre, **changed):
        keys = {"general.architecture": "deepseek2"}
        keys.update({"deepseek2." + k: v for k, v in dict(MODEL, **changed).items()})
        keys.update({"tokenizer.ggml." + k: v for k, v in dict(tokenizer, pre=pre).items()})
        return file(dict(keys, **{"tokenizer.ggml.bos_token_id": 0, "tokenizer.ggml.eos_token_id": 1}))

    for pre in ("deepseek-llm", "deepseek-coder", "deepseek-v3"):
        yield Valid(model(pre))
    yield Valid(model("deepseek-v3", **{k: Double(v) for k, v in MODEL.items() if isinstance(v, float)}))
    yield Valid(model("deepseek-v3", **{"attention.layer_norm_rms_epsilon": Double(1e-310)}))
    yield file({"general.alignment": 3}, [("t", [2**62, 4], 0, 0)])
    yield file({}, version=2)


def tokenizer():
    def file(splits, **model):
        words = {word: i for i, word in enumerate(VOCABULARY)}
        steps = [{"type": "Split", "pattern": {"Regex": r}, "behavior": "Isolated", "invert": False}
                 for r in splits]
        steps.append({"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True,
                      "use_regex": False})
        return json.dumps({
            "version": "1.0", "truncation": None, "padding": None,
            "added_tokens": [{"id": len(VOCABULARY), "content": "<x>", "single_word": False, "lstrip": False,
                              "rstrip": False, "normalized": False, "special": True}],
            "normalizer": None, "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps},
            "post_processor": None, "decoder": {"type": "ByteLevel"},
            "model": dict({"type": "BPE", "dropout": None, "unk_token": None, "fuse_unk": False,
                           "byte_fallback": False, "vocab": words, "merges": MERGES}, **model)}).encode()

    yield Valid(file([r"\p{N}{1,3}", r"[\r\n]", r"\s+(?!\S)|\s+"]))
    yield Valid(file([r"[\p{L}&&[^a-c]]+", "(?i:'s|'t)"]))
    yield Valid(file([], ignore_merges=True))
    yield file(["(a"], merges=["a b"])


def tiktoken():
    def file(words):
        return "".join(f"{base64.b64encode(w).decode()} {i}\n" for i, w in enumerate(words)).encode()

    every = [bytes([b]) for b in range(256)] + [b"ab", b" t", b"he", b" the", b"12"]
    config = {"added_tokens_decoder": {"261": {"content": "<x>", "special": True}}}
    yield Valid(file(every))
    yield Valid(file(every) + b"\0" + json.dumps(config).encode())
    yield file(every[:100]) + b"YQ== 7\n"


def config():
    for path in sorted(HERE.parent.glob("golden/*/config*.json")):
        yield Valid(path.read_bytes())


# What every chat format has a place for.
PLAIN = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes"},
         {"role": "user", "content": "a"}]


def chat():
    call = {"id": "functions.f:0", "type": "function", "function": {"name": "f", "arguments": "{\"a\": 1}"}}
    tool = {"type": "function", "function": {"name": "f", "description": "F.", "parameters": {
        "type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}}}
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"},
             {"role": "assistant", "content": "</think>Yes", "reasoning_content": "hm"},
             {"role": "user", "content": "a"}]
    parts = [{"role": "user", "content": [{"type": "text", "text": "a"}]}]
    tools = [{"role": "user", "content": "f?"}, {"role": "assistant", "content": None, "tool_calls": [call]},
             {"role": "tool", "tool_call_id": "functions.f:0", "content": "2"}]
    yield json.dumps({"messages": turns, "add_generation_prompt": True, "thinking": True}).encode()
    yield json.dumps({"messages": turns[1:], "thinking": False}).encode()
    yield json.dumps({"messages": tools, "tools": [tool], "add_generation_prompt": True}).encode()
    yield Valid(json.dumps({"messages": PLAIN, "add_generation_prompt": True}).encode())
    yield json.dumps({"messages": parts}).encode()
    yield json.dumps({"messages": [{"role": "nobody", "content": 1}]}).encode()


def ftrace():
    def frame(kind, raw, count):
        # a zstd frame of one block as it is: single segment, its size in four bytes
        stored = (b"\x28\xb5\x2f\xfd\xa0" + struct.pack("<I", len(raw)) +
                  struct.pack("<I", 1 | len(raw) << 3)[:3] + raw)
        return struct.pack("<6I", 0x4D415246, kind, len(stored), len(raw), count, 0) + stored

    def column(form, *values):
        return b"".join(struct.pack("<" + form, value) for value in values)

    shape = {"n_layers": 2, "n_experts": 4, "n_active": 2, "n_groups": 1, "n_active_groups": 1,
             "moe_layers": [1]}
    head = b"FTRACE\r\n" + struct.pack("<II", 3, 0)
    head += frame(1, json.dumps({"shape": shape, "facts": {"device": "d"}}).encode(), 1)
    texts = frame(2, struct.pack("<II", 7, 2) + b"ab", 1)
    record = (column("I", 7, 0, 0) + column("Q", 5) + column("I", 0xFFFFFFFF) + b"\0" +
              b"\1" + column("H", 3, 1) + b"\1" + column("f", 0.5, 0.25) + b"\1" + column("f", 0.1) +
              b"\1" + column("f", 1.0) + b"\1" + column("I", 2) + b"\1" + column("I", 1) +
              b"\1" + column("f", 1, 2, 3) +
              column("I", 1) + column("I", 1, 0, 2, 1, 1) + column("f", 1, 1) +  # attention
              column("I", 1) + column("I", 1) + column("f", *range(8)) +  # scores and keys
              b"\1" + column("f", *range(2 * 6 + 3)) + column("Q", 4096, 0))  # times, cache
    event = frame(4, column("I", 3, 0, 0, 1) + column("Q", 9, 0) + column("I", 2) + b"hi", 1)
    index = frame(5, b"", 0) + struct.pack("<Q", 0) + b"FTRACE\r\n"
    yield Valid(head + texts + frame(3, record, 1) + event + index)
    yield Valid(head + event)
    yield head[:16] + index
    yield head[:-3]
    yield head + frame(3, record, 2)


def openai():
    yield Valid(json.dumps({"messages": PLAIN, "prompt": "a", "temperature": 0.5, "stop": ["a", "b"], "n": 2,
                            "logit_bias": {"5": -100}, "stream": True,
                            "stream_options": {"include_usage": True}}).encode())
    yield Valid(json.dumps({"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}],
                            "prompt": [1, 2], "max_tokens": 3, "seed": 1}).encode())
    schema = {"type": "object", "required": ["a"], "properties": {
        "a": {"$ref": "#/$defs/b"}, "c": {"enum": [1, "x"]}, "d": {"type": "string", "maxLength": 3}},
        "$defs": {"b": {"type": "array", "items": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/b"}]}}}}
    tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
    yield Valid(json.dumps({"messages": PLAIN, "prompt": "a", "response_format": {
        "type": "json_schema", "json_schema": {"name": "s", "schema": schema}}}).encode())
    yield Valid(json.dumps({"messages": PLAIN, "prompt": "a", "tools": [tool],
                            "tool_choice": "required"}).encode())
    yield json.dumps({"messages": PLAIN, "tools": [1]}).encode()
    yield b"[" * 1000


def live():
    """Messages of a viewer, of an engine, and frames."""
    for message in ({"kind": "ack", "sequence": 7}, {"kind": "stop"}, {"kind": "measure"},
                    {"kind": "pause", "on": True},
                    {"kind": "steer", "experts": [{"layer": 1, "expert": 2, "key": -1e9, "factor": 0.5}]},
                    {"kind": "watch", "layers": [0, 3], "first_head": 0, "n_heads": 2, "width": 64},
                    {"kind": "generate", "text": "a", "keep": 3, "session": 1, "forced": 9, "chat": False,
                     "again": False, "twice": True, "temperature": 0.5, "top_p": 1, "top_k": 0,
                     "max_tokens": 9, "seed": 1},
                    {"kind": "state", "busy": True, "failure": "", "read_rate": 1.5,
                     "launches": [{"label": "a", "seconds": 0.1, "bytes": 1, "flops": 2}]},
                    {"kind": "hello", "version": 1, "run": "r", "identity": {"facts": {}, "shape": {
                        "n_layers": 2, "n_experts": 4, "n_active": 2, "n_groups": 1, "n_active_groups": 1,
                        "moe_layers": [1]}}}):
        yield Valid(json.dumps(message).encode())
    yield b'{"kind":"refused","reason":"a"}'
    yield b'{"kind":"generate"}'
    for seed in ftrace():
        yield seed[16:]


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    for target in (safetensors, gguf, tokenizer, tiktoken, config, chat, ftrace, openai, live):
        place = folder / target.__name__
        place.mkdir(parents=True, exist_ok=True)
        for i, seed in enumerate(target()):
            (place / f"{'valid' if isinstance(seed, Valid) else 'other'}-{i}").write_bytes(seed)
    (folder / "planted").mkdir(exist_ok=True)
    (folder / "planted/valid-0").write_bytes(b"bu")
