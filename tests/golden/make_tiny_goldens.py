"""Makes the goldens of the embedded model, tests/golden/tiny/, with Hugging Face transformers in f32.

usage: make_tiny_goldens.py [--check]      needs torch, transformers 5 and tokenizers

  greedy.json    five prompts with their tokens, and the 200 tokens that follow each by argmax
  held_out.json  the tokens of held_out.txt (BOS first) and their mean negative log-likelihood in nats

A greedy continuation is only a fair test where no step hangs on rounding. So PROMPTS holds more prompts
than needed, and those are kept whose worst step is clearest: `logit_gap` is the smallest distance between
the two best logits of any step, `routing_gap` the smallest distance between the selection keys of a chosen
and a refused expert (or group). f32 rounding moves logits by about 1e-5 and keys by about 1e-7. The
checkpoint is bf16, widened exactly to f32; there is no stop at EOS. With --check nothing is written: what
is made is compared with what is committed.
"""
import argparse
import json
import math
import sys
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer

HERE = Path(__file__).parent / "tiny"
MODEL = Path(__file__).parents[2] / "models" / "tiny"
STEPS, KEPT, LOGIT_GAP, ROUTING_GAP = 200, 5, 1e-3, 3e-6
PROMPTS = [
    "Once upon a time, there was a little girl named Lily.",
    "One day, a boy named Tom found a big red ball in the park.",
    "The old bear and the small rabbit were friends.",
    "Deep in the forest lived a clever fox who",
    "The sun was warm and Mia wanted to play.",
    "Anna has 12 apples. She gives 5 of them to her brother and buys 8 more.",
    "A train travels 60 miles in 2 hours. How many miles does it travel in 5 hours?",
    "def read(self, size=-1):\n",
    "import os\nimport sys\n\ndef main(",
    "Il était une fois un petit garçon qui",
    "Étienne descendit dans la mine, et",
    "KING HENRY:\nMy lord, ",
    "ROMEO:\nWhat light",
    "First Citizen:\nWe are",
]


class RoutingGap:
    """Watches every router of a model and keeps the smallest selection gap seen."""

    def __init__(self, model: torch.nn.Module):
        self.smallest, c = float("inf"), model.config
        for layer in model.model.layers:
            if hasattr(layer.mlp, "gate"):
                bias = layer.mlp.gate.e_score_correction_bias
                layer.mlp.gate.register_forward_hook(
                    lambda _, __, logits, bias=bias: self.see(logits.sigmoid() + bias, c))

    def see(self, keys: torch.Tensor, c) -> None:
        grouped = keys.view(len(keys), c.n_group, -1)
        ranks, order = grouped.topk(2, -1)[0].sum(-1).sort(-1, descending=True)
        kept = torch.zeros_like(ranks, dtype=torch.bool).scatter(1, order[:, : c.topk_group], True)
        best = grouped.masked_fill(~kept[..., None], -torch.inf).flatten(1).sort(-1, descending=True)[0]
        for ranked, count in ((ranks, c.topk_group), (best, c.num_experts_per_tok)):
            self.smallest = min(self.smallest, (ranked[:, count - 1] - ranked[:, count]).min().item())


@torch.no_grad()
def greedy(model, prompt: list[int]) -> tuple[list[int], float]:
    """The tokens that follow, and the smallest gap between the two best logits."""
    tokens, gap, cache, fed = [], float("inf"), transformers.DynamicCache(config=model.config), prompt
    for _ in range(STEPS):
        logits = model(torch.tensor([fed]), past_key_values=cache, use_cache=True).logits[0, -1]
        best = logits.topk(2)
        gap = min(gap, (best.values[0] - best.values[1]).item())
        tokens.append(best.indices[0].item())
        fed = tokens[-1:]
    return tokens, gap


def clearest_prompts(model, tokenizer: Tokenizer) -> list[dict]:
    candidates, gap = [], RoutingGap(model)
    for text in PROMPTS:
        prompt, gap.smallest = [0] + tokenizer.encode(text).ids, float("inf")
        tokens, logit_gap = greedy(model, prompt)
        candidates.append(dict(text=text, prompt=prompt, tokens=tokens, logit_gap=logit_gap,
                               routing_gap=gap.smallest))
        print(f"logit gap {logit_gap:.1e}, routing gap {gap.smallest:.1e}: {text!r} "
              f"{tokenizer.decode(tokens)[:80]!r}", flush=True)

    def clarity(c: dict) -> float:
        return min(c["logit_gap"] / LOGIT_GAP, c["routing_gap"] / ROUTING_GAP)

    clear = sorted((c for c in candidates if clarity(c) > 1), key=clarity, reverse=True)
    if len(clear) < KEPT:
        sys.exit(f"only {len(clear)} of {len(PROMPTS)} prompts are clear at every step; add prompts")
    return clear[:KEPT]


@torch.no_grad()
def held_out(model, tokenizer: Tokenizer) -> dict:
    tokens = [0] + tokenizer.encode((HERE / "held_out.txt").read_text(encoding="utf-8")).ids
    logits = model(torch.tensor([tokens]), use_cache=False).logits[0].double()
    nll = torch.nn.functional.cross_entropy(logits[:-1], torch.tensor(tokens[1:])).item()
    print(f"held_out.txt: {len(tokens)} tokens, NLL {nll:.6f}, perplexity {math.exp(nll):.3f}")
    return dict(tokens=tokens, mean_nll=nll)


def main() -> None:
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--check", action="store_true", help="compare with what is committed, write nothing")
    check = parser.parse_args().check
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    model = transformers.DeepseekV3ForCausalLM.from_pretrained(MODEL, dtype=torch.float32,
                                                               attn_implementation="eager")
    tokenizer = Tokenizer.from_file(str(MODEL / "tokenizer.json"))
    model.eval()
    score, continuations = held_out(model, tokenizer), clearest_prompts(model, tokenizer)
    if not check:
        (HERE / "held_out.json").write_text(json.dumps(score) + "\n")
        (HERE / "greedy.json").write_text("[" + ",\n".join(json.dumps(c) for c in continuations) + "]\n")
        return
    committed = json.loads((HERE / "greedy.json").read_text())
    if {c["text"]: c["tokens"] for c in committed} != {c["text"]: c["tokens"] for c in continuations}:
        sys.exit("greedy.json: not what is committed")
    known = json.loads((HERE / "held_out.json").read_text())
    if known["tokens"] != score["tokens"] or abs(known["mean_nll"] - score["mean_nll"]) > 1e-6:
        sys.exit("held_out.json: not what is committed")


if __name__ == "__main__":
    main()
