#!/usr/bin/env python3
"""Seeds for the fuzz targets: small files of every format, valid ones and ones with a fault. Usage:
make_seeds.py FOLDER, which receives one folder for each target."""
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


VOCABULARY = [byte_level(b) for b in range(256)] + ["ab", "Ġt", "he", "Ġthe", "12"]
MERGES = [["a", "b"], ["Ġ", "t"], ["h", "e"], ["Ġt", "he"], ["1", "2"]]


def safetensors():
    def file(header, data=b""):
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        return struct.pack("<Q", len(text)) + text + data

    one = {"dtype": "F32", "shape": [1, 2], "data_offsets": [0, 8]}
    two = {"dtype": "F8_E4M3", "shape": [3], "data_offsets": [8, 11]}
    yield file({"a": one, "b": two, "__metadata__": {"format": "pt"}}, bytes(11))
    yield file({})
    yield file({"a": dict(one, data_offsets=[4, 12])}, bytes(12))
    yield file({"a": dict(one, shape=[2**63, 2])}, bytes(8))
    yield file(b'{"a":{"dtype":"F32","dtype":"F16"}}')


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
    for pre in ("deepseek-llm", "deepseek-coder", "deepseek-v3"):
        yield file({"tokenizer.ggml." + k: v for k, v in dict(tokenizer, pre=pre).items()})
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
            "added_tokens": [{"id": 300, "content": "<x>", "single_word": False, "lstrip": False,
                              "rstrip": False, "normalized": False, "special": True}],
            "normalizer": None, "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps},
            "post_processor": None, "decoder": {"type": "ByteLevel"},
            "model": dict({"type": "BPE", "dropout": None, "unk_token": None, "fuse_unk": False,
                           "byte_fallback": False, "vocab": words, "merges": MERGES}, **model)}).encode()

    yield file([r"\p{N}{1,3}", r"[\r\n]", r"\s+(?!\S)|\s+"])
    yield file([r"[\p{L}&&[^a-c]]+", "(?i:'s|'t)"])
    yield file([], ignore_merges=True)
    yield file(["(a"], merges=["a b"])


def tiktoken():
    def file(words):
        return "".join(f"{base64.b64encode(w).decode()} {i}\n" for i, w in enumerate(words)).encode()

    every = [bytes([b]) for b in range(256)] + [b"ab", b" t", b"he", b" the", b"12"]
    config = {"added_tokens_decoder": {"261": {"content": "<x>", "special": True}}}
    yield file(every)
    yield file(every) + b"\0" + json.dumps(config).encode()
    yield file(every[:100]) + b"YQ== 7\n"


def config():
    for path in sorted(HERE.parent.glob("golden/*/config*.json")):
        yield path.read_bytes()


def chat():
    call = {"id": "functions.f:0", "type": "function", "function": {"name": "f", "arguments": "{\"a\": 1}"}}
    tool = {"type": "function", "function": {"name": "f", "description": "F.", "parameters": {
        "type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}}}
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"},
             {"role": "assistant", "content": "</think>Yes", "reasoning_content": "hm"},
             {"role": "user", "content": [{"type": "text", "text": "a"}]}]
    tools = [{"role": "user", "content": "f?"}, {"role": "assistant", "content": None, "tool_calls": [call]},
             {"role": "tool", "tool_call_id": "functions.f:0", "content": "2"}]
    yield json.dumps({"messages": turns, "add_generation_prompt": True, "thinking": True}).encode()
    yield json.dumps({"messages": turns[1:], "thinking": False}).encode()
    yield json.dumps({"messages": tools, "tools": [tool], "add_generation_prompt": True}).encode()
    yield json.dumps({"messages": [{"role": "nobody", "content": 1}]}).encode()


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    for target in (safetensors, gguf, tokenizer, tiktoken, config, chat):
        place = folder / target.__name__
        place.mkdir(parents=True, exist_ok=True)
        for i, seed in enumerate(target()):
            (place / f"seed-{i}").write_bytes(seed)
    (folder / "planted").mkdir(exist_ok=True)
    (folder / "planted/seed-0").write_bytes(b"bu")
