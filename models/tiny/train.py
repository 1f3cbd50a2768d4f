#!/usr/bin/env python3
"""Trains the embedded model: DeepSeek-V3 (MLA, fine-grained MoE with bias balancing, MTP) in small.

usage: train.py tok CORPORA OUT                 train the tokenizer and encode the corpora of DOMAINS into OUT
       train.py run OUT HOURS [--processes N]   train for HOURS in all; stop and start again at will

Everything is written to OUT, the model as a Hugging Face folder (config.json, model.safetensors,
tokenizer.json). Needs torch, numpy, tokenizers and safetensors; no GPU. On two cores, two single-threaded
processes in f32 are twice as fast as one process with two threads, or as bf16. Architecture and balancing:
arXiv 2412.19437. Left out on purpose: q-LoRA (too small to need it), YaRN, FP8, expert parallelism.
"""
import argparse
import json
import math
import os
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
import torch.distributed as dist
import torch.nn as nn
import torch.nn.functional as F

CONFIG = dict(
    architectures=["DeepseekV3ForCausalLM"], model_type="deepseek_v3",
    vocab_size=4096, hidden_size=256, intermediate_size=704, moe_intermediate_size=96, num_hidden_layers=7,
    num_attention_heads=4, num_key_value_heads=4, n_shared_experts=1, n_routed_experts=16,
    routed_scaling_factor=2.5, kv_lora_rank=64, q_lora_rank=None, qk_rope_head_dim=16, v_head_dim=32,
    qk_nope_head_dim=32, n_group=4, topk_group=2, num_experts_per_tok=4, first_k_dense_replace=1,
    norm_topk_prob=True, rms_norm_eps=1e-6, rope_theta=10000.0, max_position_embeddings=1024,
    num_nextn_predict_layers=1, hidden_act="silu", attention_bias=False, scoring_func="sigmoid",
    topk_method="noaux_tc", moe_layer_freq=1, tie_word_embeddings=False, rope_scaling=None,
    rope_interleave=True, bos_token_id=0, eos_token_id=1, pad_token_id=2, initializer_range=0.02,
    torch_dtype="bfloat16", use_cache=True)
C = SimpleNamespace(**CONFIG)
BOS, EOS = C.bos_token_id, C.eos_token_id
SPECIAL_TOKENS = ["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>", "<｜User｜>",
                  "<｜Assistant｜>"]

# Domain -> its share of every batch, and its corpora. The last 2 % of a domain are held out.
DOMAINS = {
    "stories": (0.50, ["en_tinystories", "en_fables_apache", "en_storybooks"]),
    "math": (0.18, ["math_gsm8k"]),
    "python": (0.14, ["code_python"]),
    "french": (0.09, ["fr_prose", "fr_storybooks"]),
    "drama": (0.09, ["en_tinyshakespeare"]),
}

WINDOW = 256             # tokens a training sequence
BATCH = 8                # sequences a process and step
PEAK_RATE, FLOOR = 2e-3, 0.02   # learning rate, and what is left of it at the end
WARMUP_STEPS = 200
DECAY_FROM = 0.6         # share of the time after which the rate falls and the MTP loss counts less
MTP_WEIGHT, MTP_WEIGHT_LATE = 0.3, 0.1
BALANCE_WEIGHT = 1e-4    # of the sequence-wise balance loss
BIAS_STEP, BIAS_UNTIL = 1e-3, 0.9   # a step of the selection bias; it rests in the last tenth of the time
LOG_EVERY, SAVE_EVERY = 50, 250     # steps


# --- The model. Module names are the checkpoint's tensor names. -------------------------------------------

class RmsNorm(nn.Module):
    def __init__(self, dim: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x):
        return F.rms_norm(x, x.shape[-1:], self.weight, C.rms_norm_eps)


def linear(fan_in: int, fan_out: int, std: float | None = None) -> nn.Linear:
    layer = nn.Linear(fan_in, fan_out, bias=False)
    nn.init.normal_(layer.weight, std=std or (0.02 if fan_in > 64 else 0.04))
    return layer


# Matrices that write into the residual stream start smaller, so that its size does not grow with depth.
RESIDUAL_STD = 0.02 / math.sqrt(2 * C.num_hidden_layers)


def rotate(x, cos, sin):
    """RoPE over interleaved pairs (2i, 2i+1); x is (..., tokens, qk_rope_head_dim)."""
    a, b = x.unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack((a * cos - b * sin, a * sin + b * cos), -1).flatten(-2)


class Attention(nn.Module):
    """Multi-head Latent Attention in its expanded form: training has no cache to keep small."""

    def __init__(self):
        super().__init__()
        heads, qk = C.num_attention_heads, C.qk_nope_head_dim + C.qk_rope_head_dim
        self.q_proj = linear(C.hidden_size, heads * qk)
        self.kv_a_proj_with_mqa = linear(C.hidden_size, C.kv_lora_rank + C.qk_rope_head_dim)
        self.kv_a_layernorm = RmsNorm(C.kv_lora_rank)
        self.kv_b_proj = linear(C.kv_lora_rank, heads * (C.qk_nope_head_dim + C.v_head_dim))
        self.o_proj = linear(heads * C.v_head_dim, C.hidden_size, RESIDUAL_STD)

    def forward(self, x, cos, sin):
        batch, tokens, _ = x.shape
        heads, nope, rot = C.num_attention_heads, C.qk_nope_head_dim, C.qk_rope_head_dim
        q = self.q_proj(x).view(batch, tokens, heads, nope + rot).transpose(1, 2)
        q_nope, q_rot = q.split([nope, rot], -1)
        latent, k_rot = self.kv_a_proj_with_mqa(x).split([C.kv_lora_rank, rot], -1)
        kv = self.kv_b_proj(self.kv_a_layernorm(latent)).view(batch, tokens, heads, nope + C.v_head_dim)
        k_nope, v = kv.transpose(1, 2).split([nope, C.v_head_dim], -1)
        k_rot = rotate(k_rot.unsqueeze(1), cos, sin).expand(-1, heads, -1, -1)  # one rotary key for all heads
        # Values are padded to the width of keys: with unequal widths torch takes its slow path.
        o = F.scaled_dot_product_attention(
            torch.cat([q_nope, rotate(q_rot, cos, sin)], -1), torch.cat([k_nope, k_rot], -1),
            F.pad(v, (0, nope + rot - C.v_head_dim)), is_causal=True)[..., :C.v_head_dim]
        return self.o_proj(o.transpose(1, 2).reshape(batch, tokens, heads * C.v_head_dim))


class Mlp(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.gate_proj, self.up_proj = linear(C.hidden_size, width), linear(C.hidden_size, width)
        # A narrow MLP sums over fewer terms, so its output matrix starts larger.
        self.down_proj = linear(width, C.hidden_size, RESIDUAL_STD * (2 if width < 128 else 1))

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Router(nn.Module):
    """Sigmoid scores; a bias that only selection sees; groups ranked by the sum of their two best experts."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(C.n_routed_experts, C.hidden_size) * 0.02)
        self.register_buffer("e_score_correction_bias", torch.zeros(C.n_routed_experts))

    def forward(self, x):
        """x (tokens, hidden) -> scores of all experts; chosen experts and their weights (tokens, active)."""
        scores = torch.sigmoid(x @ self.weight.t())
        grouped = (scores + self.e_score_correction_bias).view(len(x), C.n_group, -1)
        best = grouped.topk(2, -1)[0].sum(-1).topk(C.topk_group, -1)[1]
        kept = torch.zeros(len(x), C.n_group, dtype=torch.bool).scatter_(1, best, True)
        keys = grouped.masked_fill(~kept.unsqueeze(-1), -torch.inf).flatten(1)
        chosen = keys.topk(C.num_experts_per_tok, -1)[1]
        weights = scores.gather(1, chosen)
        return scores, chosen, weights / (weights.sum(-1, keepdim=True) + 1e-20) * C.routed_scaling_factor


class Moe(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate = Router()
        self.experts = nn.ModuleList(Mlp(C.moe_intermediate_size) for _ in range(C.n_routed_experts))
        self.shared_experts = Mlp(C.n_shared_experts * C.moe_intermediate_size)
        self.load = torch.zeros(C.n_routed_experts)  # tokens each expert got in the last forward pass
        self.balance_loss = torch.zeros(())          # of the last forward pass in training

    def forward(self, x):
        flat = x.reshape(-1, C.hidden_size)
        scores, chosen, weights = self.gate(flat)
        counts = torch.bincount(chosen.flatten(), minlength=C.n_routed_experts)
        self.load = counts.float()
        if self.training:
            self.balance_loss = self.sequence_balance(scores, chosen, x.shape[0])
        order = chosen.flatten().argsort(stable=True)  # (token, slot) pairs, sorted by expert
        token = order // C.num_experts_per_tok
        parts = flat[token].split(counts.tolist())
        y = torch.cat([expert(part) for expert, part in zip(self.experts, parts)])
        routed = torch.zeros_like(flat).index_add_(0, token, y * weights.flatten()[order, None])
        return (routed + self.shared_experts(flat)).view_as(x)

    @staticmethod
    def sequence_balance(scores, chosen, batch: int):
        """V3's complementary loss: how often a sequence chooses an expert times how much it likes it."""
        share = (scores / scores.sum(-1, keepdim=True)).view(batch, -1, C.n_routed_experts).mean(1)
        used = F.one_hot(chosen, C.n_routed_experts).sum(1).float().view_as(scores)
        used = used.view(batch, -1, C.n_routed_experts).mean(1)
        return (share * used).sum(-1).mean() * C.n_routed_experts / C.num_experts_per_tok


class Layer(nn.Module):
    def __init__(self, is_moe: bool):
        super().__init__()
        self.input_layernorm = RmsNorm(C.hidden_size)
        self.self_attn = Attention()
        self.post_attention_layernorm = RmsNorm(C.hidden_size)
        self.mlp = Moe() if is_moe else Mlp(C.intermediate_size)

    def forward(self, x, cos, sin):
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        return x + self.mlp(self.post_attention_layernorm(x))


class MtpLayer(Layer):
    """Multi-token prediction: from the hidden state at i and token i + 1, predicts token i + 2."""

    def __init__(self):
        super().__init__(is_moe=True)
        self.enorm, self.hnorm = RmsNorm(C.hidden_size), RmsNorm(C.hidden_size)
        self.eh_proj = linear(2 * C.hidden_size, C.hidden_size)
        self.shared_head = nn.ModuleDict({"norm": RmsNorm(C.hidden_size)})

    def predict(self, hidden, embedded, cos, sin):
        joined = self.eh_proj(torch.cat([self.enorm(embedded), self.hnorm(hidden)], -1))
        return self.shared_head["norm"](self(joined, cos, sin))


class Body(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed_tokens = nn.Embedding(C.vocab_size, C.hidden_size)
        nn.init.normal_(self.embed_tokens.weight, std=0.02)
        layers = [Layer(n >= C.first_k_dense_replace) for n in range(C.num_hidden_layers)]
        self.layers = nn.ModuleList([*layers, MtpLayer()])
        self.norm = RmsNorm(C.hidden_size)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.model, self.lm_head = Body(), linear(C.hidden_size, C.vocab_size)
        frequency = C.rope_theta ** (-torch.arange(0, C.qk_rope_head_dim, 2).float() / C.qk_rope_head_dim)
        angle = torch.arange(WINDOW).float()[:, None] * frequency
        self.register_buffer("cos", angle.cos(), persistent=False)
        self.register_buffer("sin", angle.sin(), persistent=False)

    def moes(self) -> list[Moe]:
        return [layer.mlp for layer in self.model.layers if isinstance(layer.mlp, Moe)]

    def forward(self, x, y):
        """x and y (batch, tokens), y one token ahead -> mean losses in nats: the model, its MTP layer."""
        *layers, mtp = self.model.layers
        tokens, hidden = x.shape[1], self.model.embed_tokens(x)
        for layer in layers:
            hidden = layer(hidden, self.cos[:tokens], self.sin[:tokens])
        logits = self.lm_head(self.model.norm(hidden))
        ahead = mtp.predict(hidden[:, :-1], self.model.embed_tokens(y[:, :-1]), self.cos[:tokens - 1],
                            self.sin[:tokens - 1])
        return (F.cross_entropy(logits.flatten(0, 1), y.flatten()),
                F.cross_entropy(self.lm_head(ahead).flatten(0, 1), y[:, 1:].flatten()))


def export(model: Model, out: Path) -> None:
    """Writes config.json and model.safetensors: bf16, the selection bias f32, MTP with the usual copies."""
    from safetensors.torch import save_file
    tensors = {name: value if name.endswith("e_score_correction_bias") else value.to(torch.bfloat16)
               for name, value in model.state_dict().items()}
    mtp = f"model.layers.{C.num_hidden_layers}."
    tensors[mtp + "embed_tokens.weight"] = tensors["model.embed_tokens.weight"].clone()
    tensors[mtp + "shared_head.head.weight"] = tensors["lm_head.weight"].clone()
    tensors = {name: value.contiguous() for name, value in tensors.items()}
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    (out / "config.json").write_text(json.dumps(CONFIG, indent=1))


# --- Text. ------------------------------------------------------------------------------------------------

def documents(corpora: Path, domain: str) -> list[str]:
    text = [(corpora / f"{name}.txt").read_text(encoding="utf-8") for name in DOMAINS[domain][1]]
    return [document.strip() for part in text for document in part.split("<|endoftext|>") if document.strip()]


def train_tokenizer(corpora: Path):
    """Byte-level BPE with DeepSeek-V3's splits: up to three digits, CJK runs, then words and punctuation."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    words = (r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
             r"""| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+""")
    splits = [pre_tokenizers.Split(Regex(pattern), "isolated")
              for pattern in (r"\p{N}{1,3}", r"[一-龥぀-ゟ゠-ヿ]+", words)]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [*splits, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=C.vocab_size, special_tokens=SPECIAL_TOKENS, show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    texts = (text for domain in DOMAINS for text in documents(corpora, domain))
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def tok(corpora: Path, out: Path) -> None:
    """Writes tokenizer.json and, for each domain, DOMAIN.train.npy and DOMAIN.val.npy: token ids, uint16."""
    out.mkdir(parents=True, exist_ok=True)
    tokenizer = train_tokenizer(corpora)
    tokenizer.save(str(out / "tokenizer.json"))
    for domain in DOMAINS:
        texts = documents(corpora, domain)
        encoded = tokenizer.encode_batch(texts)
        ids = np.concatenate([np.array([BOS, *document.ids, EOS], np.uint16) for document in encoded])
        held_out = max(len(ids) // 50, 16 * WINDOW)
        np.save(out / f"{domain}.train.npy", ids[:-held_out])
        np.save(out / f"{domain}.val.npy", ids[-held_out:])
        size = sum(len(text.encode()) for text in texts)
        print(f"{domain}: {len(texts)} documents, {len(ids)} tokens, {size / len(ids):.2f} bytes a token",
              flush=True)


class Batches:
    """Random windows of the encoded domains, each domain with its share of DOMAINS."""

    def __init__(self, out: Path, part: str):
        self.ids = {domain: np.load(out / f"{domain}.{part}.npy") for domain in DOMAINS}
        shares = np.array([share for share, _ in DOMAINS.values()])
        self.shares = shares / shares.sum()

    def draw(self, rng: np.random.Generator, domain: str | None = None):
        """Inputs and targets, (BATCH, WINDOW) each; all of one domain when it is named."""
        rows = []
        for _ in range(BATCH):
            ids = self.ids[domain or list(DOMAINS)[rng.choice(len(DOMAINS), p=self.shares)]]
            start = rng.integers(0, len(ids) - WINDOW)
            rows.append(ids[start:start + WINDOW + 1].astype(np.int64))
        both = torch.from_numpy(np.stack(rows))
        return both[:, :-1], both[:, 1:]


# --- Training. --------------------------------------------------------------------------------------------

def learning_rate(step: int, progress: float) -> float:
    decay = 1.0 if progress < DECAY_FROM else max(FLOOR, (1 - progress) / (1 - DECAY_FROM))
    return PEAK_RATE * min(1, (step + 1) / WARMUP_STEPS) * decay


class Training:
    """One process of a data-parallel run: the model, its optimiser, and how far it has come."""

    def __init__(self, out: Path):
        torch.manual_seed(0)
        self.out, self.rank, self.world = out, dist.get_rank(), dist.get_world_size()
        self.model, self.step, self.spent = Model(), 0, 0.0
        self.parameters = list(self.model.parameters())
        groups = [dict(params=[p for p in self.parameters if p.ndim == 2], weight_decay=0.1),
                  dict(params=[p for p in self.parameters if p.ndim < 2], weight_decay=0.0)]
        self.optimiser = torch.optim.AdamW(groups, lr=PEAK_RATE, betas=(0.9, 0.95), fused=True)
        if (out / "ckpt.pt").exists():
            saved = torch.load(out / "ckpt.pt")
            self.model.load_state_dict(saved["model"])
            self.optimiser.load_state_dict(saved["optimiser"])
            self.step, self.spent = saved["step"], saved["spent"]
            self.say(f"continuing after step {self.step}, {self.spent / 60:.1f} minutes")
        self.batches, self.held_out = Batches(out, "train"), Batches(out, "val")
        self.rng = np.random.default_rng([self.step, self.rank])

    def say(self, text: str) -> None:
        if self.rank == 0:
            print(text, flush=True)

    def save(self) -> None:
        """Checkpoint, to continue from, and export; the old checkpoint lives until the new one is whole."""
        if self.rank == 0:
            temporary = self.out / "ckpt.pt.part"
            torch.save(dict(model=self.model.state_dict(), optimiser=self.optimiser.state_dict(),
                            step=self.step, spent=self.spent), temporary)
            temporary.replace(self.out / "ckpt.pt")
            export(self.model, self.out)

    def advance(self, progress: float) -> tuple[float, float]:
        """One step at `progress` (0 to 1) of the run; returns the losses."""
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.step, progress)
        self.model.train()
        loss, mtp_loss = self.model(*self.batches.draw(self.rng))
        balance = sum(moe.balance_loss for moe in self.model.moes())
        weight = MTP_WEIGHT if progress < DECAY_FROM else MTP_WEIGHT_LATE
        (loss + weight * mtp_loss + BALANCE_WEIGHT * balance).backward()
        self.average()
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        for moe in self.model.moes():
            if progress < BIAS_UNTIL:  # overloaded experts become less attractive, idle ones more
                moe.gate.e_score_correction_bias += BIAS_STEP * torch.sign(moe.load.mean() - moe.load)
        self.step += 1
        return loss.item(), mtp_loss.item()

    def average(self) -> None:
        """Averages gradients and expert loads over the processes, in one message."""
        moes = self.model.moes()
        parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.parameters]
        message = torch.cat([part.flatten() for part in parts] + [moe.load for moe in moes])
        dist.all_reduce(message)
        message /= self.world
        pieces = iter(message.split([p.numel() for p in self.parameters] + [len(moe.load) for moe in moes]))
        for parameter in self.parameters:
            parameter.grad = next(pieces).view_as(parameter)
        for moe in moes:
            moe.load = next(pieces)

    @torch.no_grad()
    def validate(self) -> None:
        if self.rank == 0:
            self.model.eval()
            rng = np.random.default_rng(7)
            for domain in DOMAINS:
                losses = [self.model(*self.held_out.draw(rng, domain))[0].item() for _ in range(4)]
                self.say(f"  held out, {domain}: {np.mean(losses):.3f}")

    def run(self, budget: float) -> None:
        """Trains until `budget` seconds are spent, over all runs."""
        self.say(f"{sum(p.numel() for p in self.parameters) / 1e6:.2f} M parameters, {self.world} processes")
        before, start, logged, losses = self.spent, time.time(), time.time(), []
        while True:
            clock = torch.tensor([before + time.time() - start], dtype=torch.float64)
            dist.broadcast(clock, 0)  # one clock decides, or a process would wait for ever
            self.spent = clock.item()
            if self.spent >= budget:
                break
            losses.append(self.advance(self.spent / budget))
            if self.step % LOG_EVERY == 0:
                speed = len(losses) * self.world * BATCH * WINDOW / (time.time() - logged)
                load = np.mean([(moe.load.std() / moe.load.mean()).item() for moe in self.model.moes()])
                loss, mtp_loss = np.mean(losses, 0)
                self.say(f"step {self.step}: loss {loss:.3f}, MTP {mtp_loss:.3f}, load CV {load:.2f}, "
                         f"{speed:.0f} tokens/s, {100 * self.spent / budget:.1f} %")
                logged, losses = time.time(), []
            if self.step % SAVE_EVERY == 0:
                self.validate()
                self.save()
        self.validate()
        self.save()


def process(rank: int, world: int, out: Path, hours: float) -> None:
    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    os.environ.setdefault("MASTER_PORT", "29511")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=world)
    Training(out).run(hours * 3600)
    dist.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(usage=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    tokenize = commands.add_parser("tok", help="train the tokenizer and encode the corpora")
    tokenize.add_argument("corpora", type=Path)
    tokenize.add_argument("out", type=Path)
    train = commands.add_parser("run", help="train, or go on training")
    train.add_argument("out", type=Path)
    train.add_argument("hours", type=float)
    train.add_argument("--processes", type=int, default=2)
    args = parser.parse_args()
    if args.command == "tok":
        tok(args.corpora, args.out)
    else:
        os.environ["OMP_NUM_THREADS"] = "1"
        torch.multiprocessing.spawn(process, (args.processes, args.out, args.hours), nprocs=args.processes)


if __name__ == "__main__":
    main()
