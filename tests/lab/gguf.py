#!/usr/bin/env python3
"""The same GGUF in llama.cpp and in Fathom: gguf.py PROGRAM [FORMAT...].

Makes two small random models as Hugging Face folders: one of V3's class (q-LoRA, YaRN, one group of experts,
sigmoid scores; rows of 256 where K-quants need them, of 64 and 96 where they do not fit), and, for a few
formats, one of the first class (plain attention, softmax scores, two shared experts). Writes them with
`fathom convert` and `fathom quantize`, lets llama.cpp's server (in the lab, CPU, caches in f32) continue a
prompt greedily by 100 tokens, and has Fathom compute the logits at the same positions. For each format:

- the most probable token is the same wherever it leads by more than MARGIN nat, and the log-probabilities of
  llama.cpp's ten best agree to LIMIT, for f32 to EXACT;
- with the quantised weights written out as f32 (`fathom convert`), Fathom's own agree to EXACT.

For quantised weights llama.cpp's CPU kernels round activations to 8 bits, Fathom's do not; by that alone its
log-probabilities move by 0.02 to 0.04 against its own over the written-out weights. Logits of deviation 1
keep this below LIMIT. Where it makes an expert lose against the next, more moves: experts add a tenth of what
the other parts do, so that one more or less stays within LIMIT, while EXACT still sees every wrong choice.
Standard library only.
"""
import array
import itertools
import json
import math
import os
import random
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
LAB = ROOT / "../shared/tools/lab"
PLAIN = ("f32", "f16", "bf16")
QUANTISED = ("q8_0", "q4_0", "q4_1", "q5_0", "q5_1", "q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "iq4_nl",
             "iq4_xs", "mxfp4")
MARGIN = LIMIT = 0.05  # nat
EXACT = 0.001
FIRST_CLASS = ("f32", "bf16", "q8_0", "q4_k")  # the formats of the first class's model
TOKENS = 100
PROMPT = [0, 671, 299, 410, 1203, 877, 2400, 35]
CONFIG = dict(
    architectures=["DeepseekV3ForCausalLM"], model_type="deepseek_v3", vocab_size=4096, hidden_size=256,
    num_hidden_layers=3, first_k_dense_replace=1, moe_layer_freq=1, intermediate_size=512,
    moe_intermediate_size=96, n_routed_experts=8, n_shared_experts=1, num_experts_per_tok=3, n_group=1,
    topk_group=1, topk_method="noaux_tc", scoring_func="sigmoid", norm_topk_prob=True,
    routed_scaling_factor=1.0, num_attention_heads=4, num_key_value_heads=4, q_lora_rank=256,
    kv_lora_rank=256, qk_nope_head_dim=64, qk_rope_head_dim=32, v_head_dim=64, max_position_embeddings=2048,
    rms_norm_eps=1e-6, rope_theta=10000.0, hidden_act="silu", tie_word_embeddings=False, attention_bias=False,
    bos_token_id=0, eos_token_id=1,
    rope_scaling=dict(type="yarn", factor=8, original_max_position_embeddings=64, beta_fast=32, beta_slow=1,
                      mscale=0.707, mscale_all_dim=0.707))

LATENT = ("q_lora_rank", "kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")
PLAIN_CONFIG = {key: value for key, value in CONFIG.items() if key not in LATENT} | dict(
    architectures=["DeepseekForCausalLM"], model_type="deepseek", n_shared_experts=2, topk_method="greedy",
    scoring_func="softmax", norm_topk_prob=False, rope_scaling=None)
del PLAIN_CONFIG["n_group"], PLAIN_CONFIG["topk_group"]


def attention(c, matrix, a):
    dim, heads = c["hidden_size"], c["num_attention_heads"]
    if "kv_lora_rank" not in c:
        return [matrix(a + part, dim, dim) for part in ("q_proj", "k_proj", "v_proj")] + [
            matrix(a + "o_proj", dim, dim, 0.5)]
    nope, rope = c["qk_nope_head_dim"], c["qk_rope_head_dim"]
    q, kv, v = c["q_lora_rank"], c["kv_lora_rank"], c["v_head_dim"]
    return [matrix(a + "q_a_proj", q, dim), (a + "q_a_layernorm.weight", (q,), None),
            matrix(a + "q_b_proj", heads * (nope + rope), q),
            matrix(a + "kv_a_proj_with_mqa", kv + rope, dim),
            (a + "kv_a_layernorm.weight", (kv,), None), matrix(a + "kv_b_proj", heads * (nope + v), kv),
            matrix(a + "o_proj", dim, heads * v, 0.5)]


def shapes(c):
    """Tensor names of the folder, with their shapes and the deviation of their values."""
    dim, width = c["hidden_size"], c["moe_intermediate_size"]

    def matrix(name, rows, cols, gain=1.0):
        return name + ".weight", (rows, cols), gain / math.sqrt(cols)

    def mlp(name, inner, gain):
        return [matrix(name + "gate_proj", inner, dim), matrix(name + "up_proj", inner, dim),
                matrix(name + "down_proj", dim, inner, gain)]

    out = [("model.embed_tokens.weight", (c["vocab_size"], dim), 1.0), ("model.norm.weight", (dim,), None),
           matrix("lm_head", c["vocab_size"], dim)]
    for i in range(c["num_hidden_layers"]):
        p, a = f"model.layers.{i}.", f"model.layers.{i}.self_attn."
        out += [(p + "input_layernorm.weight", (dim,), None),
                (p + "post_attention_layernorm.weight", (dim,), None), *attention(c, matrix, a)]
        if i < c["first_k_dense_replace"]:
            out += mlp(p + "mlp.", c["intermediate_size"], 0.5)
            continue
        out += [matrix(p + "mlp.gate", c["n_routed_experts"], dim, 2.0)]
        if c["scoring_func"] == "sigmoid":
            out += [(p + "mlp.gate.e_score_correction_bias", (c["n_routed_experts"],), 0.05)]
        for expert in range(c["n_routed_experts"]):
            out += mlp(f"{p}mlp.experts.{expert}.", width, 0.05)
        out += mlp(p + "mlp.shared_experts.", width * c["n_shared_experts"], 0.5)
    return out


def values(count, deviation):
    """f32: uniform around 0 with this deviation; None: norms, around 1."""
    whole = array.array("h", random.randbytes(2 * count))
    scale = (0.2 if deviation is None else deviation * math.sqrt(3)) / 32768
    base = 1.0 if deviation is None else 0.0
    return array.array("f", [base + scale * x for x in whole])


def fragments():
    """Tokens that may be a part of a character: the server reports no probabilities for them."""
    tokenizer = json.loads((ROOT / "models/tiny/tokenizer.json").read_text(encoding="utf-8"))
    return [id for text, id in tokenizer["model"]["vocab"].items()
            if not all(c in "\u0120\u010a" or " " < c < "\x7f" for c in text)]


def make_folder(folder, config):
    random.seed(7)
    header, data = {}, []
    offset = 0
    for name, shape, deviation in shapes(config):
        tensor = values(math.prod(shape), deviation)
        if name == "lm_head.weight":  # a logit of 0 is never the largest
            for row in fragments():
                tensor[row * shape[1]:(row + 1) * shape[1]] = array.array("f", bytes(4 * shape[1]))
        data.append(tensor.tobytes())
        header[name] = dict(dtype="F32", shape=shape, data_offsets=[offset, offset + len(data[-1])])
        offset += len(data[-1])
    text = json.dumps(header).encode()
    with open(folder / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + b"".join(data))
    (folder / "config.json").write_text(json.dumps(config))
    shutil.copy(ROOT / "models/tiny/tokenizer.json", folder)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Llama:
    """llama.cpp's server over one file: on the CPU, or as the options and the environment say."""
    ON_CPU = ("-t", "1", "-c", "512", "--device", "none", "-fa", "off", "-ctk", "f32", "-ctv", "f32",
              "-np", "1", "--no-warmup", "--no-repack")  # repacked for AMX, split k_b stops it

    def __init__(self, model, log, options=ON_CPU, environment=()):
        self.port = free_port()
        self.log = log
        self.process = subprocess.Popen(
            [LAB, "run", "env", *environment, "llama-server", "-m", model, "--host", "127.0.0.1", "--port",
             str(self.port), *options],
            cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)

    def request(self, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data,
                                         {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=600) as response:
            return json.load(response)

    def __enter__(self):
        for _ in range(600):
            if self.process.poll() is not None:
                break
            try:
                self.request("/health")
                return self
            except OSError:
                time.sleep(0.1)
        self.__exit__()
        self.log.seek(0)
        print(self.log.read()[-3000:])
        raise RuntimeError(f"llama-server did not start: exit code {self.process.returncode}")

    def __exit__(self, *_):
        if self.process.poll() is None:
            os.killpg(self.process.pid, 15)
        self.process.wait()

    def continue_prompt(self):
        """The generated tokens, and for each its ten best as {token: log-probability}."""
        answer = self.request("/completion", dict(prompt=PROMPT, n_predict=TOKENS, temperature=0, n_probs=10,
                                                  cache_prompt=False, return_tokens=True))
        steps = answer["completion_probabilities"]
        return [step["id"] for step in steps], [{top["id"]: top["logprob"] for top in step["top_logprobs"]}
                                                for step in steps]


def log_probabilities(program, model, tokens, folder):
    """Of every token at the positions from the prompt's last on, by Fathom."""
    path = folder / "logits.safetensors"
    ids = ",".join(map(str, tokens))
    subprocess.run([program, "logits", model, "--tokens", ids, "-o", path, "--quiet"], check=True)
    data = path.read_bytes()
    header = struct.unpack_from("<Q", data)[0]
    logits = array.array("f", data[8 + header:])
    rows = []
    for position in range(len(PROMPT) - 1, len(tokens)):
        row = logits[position * CONFIG["vocab_size"]:(position + 1) * CONFIG["vocab_size"]]
        largest = max(row)
        total = largest + math.log(sum(math.exp(x - largest) for x in row))
        rows.append([x - total for x in row])
    return rows


def compare(generated, best, rows):
    """(largest difference among the ten best, wrong first tokens that led by more than MARGIN)."""
    difference, wrong = 0.0, 0
    for token, tops, row in zip(generated, best, rows):
        difference = max(difference, max(abs(row[id] - value) for id, value in tops.items()))
        first, second = itertools.islice(sorted(tops.values(), reverse=True), 2)
        wrong += first - second > MARGIN and max(range(len(row)), key=row.__getitem__) != token
    return difference, wrong


def check(program, folder, name, log):
    model = folder / f"{name}.gguf"
    command = "convert" if name in PLAIN else "quantize"
    subprocess.run([program, command, folder, model, "--format", name, "--quiet"], check=True)
    with Llama(model, log) as llama:
        generated, best = llama.continue_prompt()
    if len(generated) != TOKENS:
        return f"{name}: llama.cpp generated {len(generated)} tokens instead of {TOKENS}"
    rows = log_probabilities(program, model, PROMPT + generated[:-1], folder)
    difference, wrong = compare(generated, best, rows)
    own = 0.0
    if name in QUANTISED:
        plain = folder / "plain.gguf"
        subprocess.run([program, "convert", model, plain, "--format", "f32", "--quiet"], check=True)
        exact = log_probabilities(program, plain, PROMPT + generated[:-1], folder)
        own = max(abs(row[id] - other[id]) for tops, row, other in zip(best, rows, exact) for id in tops)
    text = (f"{name:7} {len(set(generated)):3} different tokens; ten best: at most {difference:.5f} from "
            f"llama.cpp, {own:.5f} from the weights in f32; {wrong} first tokens wrong")
    print(text, flush=True)
    good = not wrong and difference <= (EXACT if name == "f32" else LIMIT) and own <= EXACT
    return "" if good else "wrong: " + text


def main():
    program, *formats = sys.argv[1:]
    (ROOT / "build").mkdir(exist_ok=True)  # the lab sees the repository
    failures = []
    with tempfile.TemporaryDirectory(dir=ROOT / "build") as name, open(f"{name}/server.log", "w+") as log:
        for config, wanted in ((PLAIN_CONFIG, FIRST_CLASS), (CONFIG, PLAIN + QUANTISED)):
            print(config["architectures"][0], flush=True)
            folder = Path(name) / config["model_type"]
            folder.mkdir()
            make_folder(folder, config)
            failures += filter(None, (check(program, folder, form, log) for form in wanted
                                      if not formats or form in formats))
        if failures:
            log.seek(0)
            print(log.read()[-3000:], *failures, sep="\n")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
