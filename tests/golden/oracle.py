"""The DeepSeek family in NumPy, double precision: the oracle that shares no code with any framework.

Written from the formulas of the papers (arXiv 2401.06066, 2405.04434, 2412.19437) and the behaviour of the
modelling code that is published beside the checkpoints. Attention is the naive one: keys and values are
expanded from the latent, nothing is absorbed, nothing is cached. Reads the published dialect of config.json,
where every mechanism has its key. Angles of RoPE are products of two f32 numbers, as in every implementation
the checkpoints were trained with.
"""
import math
from collections.abc import Mapping

import numpy as np

LATENT_NORM_EPS = 1e-6  # q_a_layernorm and kv_a_layernorm have their class's default, not rms_norm_eps


def rms_norm(x: np.ndarray, gain: np.ndarray, eps: float) -> np.ndarray:
    return gain * x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps)


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def yarn_mscale(factor: float, mscale: float) -> float:
    return 1.0 if factor <= 1 else 0.1 * mscale * math.log(factor) + 1.0


def rope_frequencies(config: Mapping) -> tuple[np.ndarray, float]:
    """Radians per position (d/2, f32) and the factor on cos and sin."""
    d, theta, yarn = config["qk_rope_head_dim"], config["rope_theta"], config["rope_scaling"]
    base = theta ** (-np.arange(0, d, 2) / d)
    if yarn is None:
        return base.astype(np.float32), 1.0

    def correction(rotations: float) -> float:  # the dimension that turns so often in the trained window
        window = yarn["original_max_position_embeddings"]
        return d * math.log(window / (2 * math.pi * rotations)) / (2 * math.log(theta))

    low = max(math.floor(correction(yarn["beta_fast"])), 0)
    high = min(math.ceil(correction(yarn["beta_slow"])), d - 1)
    ramp = np.clip((np.arange(d // 2) - low) / (high - low if high != low else 0.001), 0, 1)
    factor = yarn["factor"]
    stretch = yarn_mscale(factor, yarn["mscale"]) / yarn_mscale(factor, yarn["mscale_all_dim"])
    return (base * (1 - ramp) + base / factor * ramp).astype(np.float32), stretch


def rope(x: np.ndarray, config: Mapping) -> np.ndarray:
    """Rotates x (tokens, ..., d) by its position, the first axis."""
    frequencies, stretch = rope_frequencies(config)
    angle = np.arange(x.shape[0], dtype=np.float32)[:, None] * frequencies
    angle = angle.astype(np.float64).reshape(x.shape[0], *[1] * (x.ndim - 2), -1)
    cos, sin = np.cos(angle) * stretch, np.sin(angle) * stretch
    if config.get("rope_interleave", True):
        a, b = x[..., 0::2], x[..., 1::2]
    else:
        a, b = np.split(x, 2, axis=-1)
    out = np.empty_like(x)
    first, second = a * cos - b * sin, b * cos + a * sin
    if config.get("rope_interleave", True):
        out[..., 0::2], out[..., 1::2] = first, second
    else:
        out[..., : x.shape[-1] // 2], out[..., x.shape[-1] // 2 :] = first, second
    return out


class Oracle:
    """One model: config.json as a dict and every tensor by its checkpoint name."""

    def __init__(self, config: Mapping, weights: Mapping[str, np.ndarray]):
        self.config, self.weights = config, weights
        # The smallest gap so far between a chosen and a refused key (relative for softmax, whose keys have
        # the rounding of their exponent): unless far above f32's rounding, the golden hangs on a coin toss.
        self.margin = math.inf

    def linear(self, name: str, x: np.ndarray) -> np.ndarray:
        return x @ self.weights[name + ".weight"].astype(np.float64).T

    def norm(self, name: str, x: np.ndarray, eps: float) -> np.ndarray:
        return rms_norm(x, self.weights[name + ".weight"].astype(np.float64), eps)

    def plain_attention(self, prefix: str, x: np.ndarray) -> np.ndarray:
        """The first class: keys and values of every head, heads rotated as a whole in halves."""
        heads, width = self.config["num_attention_heads"], x.shape[1] // self.config["num_attention_heads"]
        q, k, v = (self.linear(prefix + name, x).reshape(len(x), heads, width)
                   for name in ("q_proj", "k_proj", "v_proj"))
        turned = dict(qk_rope_head_dim=width, rope_theta=self.config["rope_theta"], rope_scaling=None,
                      rope_interleave=False)
        scores = np.einsum("thd,shd->hts", rope(q, turned), rope(k, turned)) * width**-0.5
        scores = np.where(np.tri(len(x), dtype=bool), scores, -np.inf)
        out = np.einsum("hts,shd->thd", softmax(scores), v)
        return self.linear(prefix + "o_proj", out.reshape(x.shape))

    def attention(self, prefix: str, x: np.ndarray) -> np.ndarray:
        if "kv_lora_rank" not in self.config:
            return self.plain_attention(prefix, x)
        c, tokens, heads = self.config, x.shape[0], self.config["num_attention_heads"]
        nope, rot, width = c["qk_nope_head_dim"], c["qk_rope_head_dim"], c["v_head_dim"]
        if c["q_lora_rank"] is None:
            q = self.linear(prefix + "q_proj", x)
        else:
            q = self.norm(prefix + "q_a_layernorm", self.linear(prefix + "q_a_proj", x), LATENT_NORM_EPS)
            q = self.linear(prefix + "q_b_proj", q)
        q = q.reshape(tokens, heads, nope + rot)
        kv = self.linear(prefix + "kv_a_proj_with_mqa", x)
        latent = self.norm(prefix + "kv_a_layernorm", kv[:, : c["kv_lora_rank"]], LATENT_NORM_EPS)
        k_rot = rope(kv[:, c["kv_lora_rank"] :], c)
        expanded = self.linear(prefix + "kv_b_proj", latent).reshape(tokens, heads, nope + width)
        scale = (nope + rot) ** -0.5
        if c["rope_scaling"] is not None:
            scale *= yarn_mscale(c["rope_scaling"]["factor"], c["rope_scaling"]["mscale_all_dim"]) ** 2
        scores = np.einsum("thd,shd->hts", q[..., :nope], expanded[..., :nope])
        scores = (scores + np.einsum("thd,sd->hts", rope(q[..., nope:], c), k_rot)) * scale
        scores = np.where(np.tri(tokens, dtype=bool), scores, -np.inf)
        out = np.einsum("hts,shd->thd", softmax(scores), expanded[..., nope:])
        return self.linear(prefix + "o_proj", out.reshape(tokens, heads * width))

    def top(self, keys: np.ndarray, count: int) -> np.ndarray:
        """Indices of the `count` largest of each row; the lower index wins a tie."""
        order = np.argsort(-keys, axis=-1, kind="stable")
        if count < keys.shape[-1]:
            ranked = np.take_along_axis(keys, order, axis=-1)
            gap = ranked[:, count - 1] - ranked[:, count]
            if self.config.get("scoring_func") == "softmax":
                gap = gap / ranked[:, count - 1]
            self.margin = min(self.margin, float(np.min(gap)))
        return order[:, :count]

    def route(self, prefix: str, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Experts and their weights, (tokens, num_experts_per_tok) each."""
        c, logits = self.config, self.linear(prefix + "gate", x)
        scores = softmax(logits) if c.get("scoring_func") == "softmax" else 1 / (1 + np.exp(-logits))
        keys = scores
        method = c.get("topk_method", "greedy")
        if method == "noaux_tc":
            keys = scores + self.weights[prefix + "gate.e_score_correction_bias"].astype(np.float64)
        if method != "greedy" and c["n_group"] > 1:
            grouped = keys.reshape(len(x), c["n_group"], -1)
            best = np.sort(grouped, axis=-1)[..., ::-1]
            rank = best[..., 0] if method == "group_limited_greedy" else best[..., 0] + best[..., 1]
            kept = np.zeros(rank.shape, bool)
            np.put_along_axis(kept, self.top(rank, c["topk_group"]), True, axis=-1)
            keys = np.where(kept[..., None], grouped, -np.inf).reshape(keys.shape)
        chosen = self.top(keys, c["num_experts_per_tok"])
        weights = np.take_along_axis(scores, chosen, axis=-1)
        if c["norm_topk_prob"]:
            weights = weights / (weights.sum(axis=-1, keepdims=True) + 1e-20)
        return chosen, weights * c.get("routed_scaling_factor", 1.0)

    def mlp(self, prefix: str, x: np.ndarray) -> np.ndarray:
        gate, up = self.linear(prefix + "gate_proj", x), self.linear(prefix + "up_proj", x)
        return self.linear(prefix + "down_proj", gate / (1 + np.exp(-gate)) * up)

    def moe(self, prefix: str, x: np.ndarray) -> np.ndarray:
        chosen, weights = self.route(prefix, x)
        out = self.mlp(prefix + "shared_experts.", x)
        for expert in range(self.config["n_routed_experts"]):
            token, slot = np.nonzero(chosen == expert)
            out[token] += weights[token, slot, None] * self.mlp(f"{prefix}experts.{expert}.", x[token])
        return out

    def logits(self, tokens: list[int]) -> np.ndarray:
        """(tokens, vocab_size)"""
        c, eps = self.config, self.config["rms_norm_eps"]
        x = self.weights["model.embed_tokens.weight"][tokens].astype(np.float64)
        for layer in range(c["num_hidden_layers"]):
            prefix = f"model.layers.{layer}."
            x = x + self.attention(prefix + "self_attn.", self.norm(prefix + "input_layernorm", x, eps))
            is_moe = layer >= c["first_k_dense_replace"] and layer % c.get("moe_layer_freq", 1) == 0
            h = self.norm(prefix + "post_attention_layernorm", x, eps)
            x = x + (self.moe if is_moe else self.mlp)(prefix + "mlp.", h)
        return self.linear("lm_head", self.norm("model.norm", x, eps))
