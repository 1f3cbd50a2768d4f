#!/usr/bin/env python3
"""Makes splits.json: what Split and Digits of Hugging Face tokenizers (0.23.1, Oniguruma) cut texts into.

Run it where `tokenizers` is installed: python3 make_splits.py > splits.json
"""
import json
import random

from tokenizers import Regex, pre_tokenizers

V3 = (r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
      r"""| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+""")
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
         r"|\s+(?!\S)|\s+")
BEHAVIOURS = ["removed", "isolated", "merged_with_previous", "merged_with_next", "contiguous"]
TEXTS = ["the-final--countdown", "-", "", "a b  c\n\n d\r\ne ", "It's 12345 o'CLOCK, WE'LL see!!\n\n x",
         "日本語 text ١٢٣ Ⅷ½ e\u0301e\u0301", "x\u00a0y\u3000z\u2028w\u0085v\u180eu\u001ct\u200bs",
         "\U0001f600\U0001f1e9\U0001f1ea- \t-\x00-"]
PATTERNS = [(r"-", True), ("", True), ("  ", True), (r"-", False), (r"-*", False), (r"\s+", False),
            (r"\S+", False), (r"x*", False), (r"\p{N}{1,3}", False), (r"\d", False),
            (r"(?<=-)\p{L}", False), (r"^.|.$", False), (r"[\p{L}&&[^\p{Han}]]+", False),
            (r"[a-z\d&&[^aeiou2]]+", False), (r"[^\p{N}&&\p{N}]+", False),
            (r"[\p{N}\p{P}&&\p{Nd}&&[^3]]", False), (r"\s+$", False), (r"\p{Han}+", False),
            (r"\p{^L}", False), (r"[^\S\n]", False), (r"\x{65e5}|\x2d", False)]

# What files only name: Kimi's as its own program has it (where tiktoken runs it), GLM's as in tokenizer.json.
NAMED = {
    "kimi": "|".join([
        r"[\p{Han}]+",
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*"
        r"[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+"
        r"[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"\p{N}{1,3}", r" ?[^\s\p{L}\p{N}]+[\r\n]*", r"\s*[\r\n]+", r"\s+(?!\S)", r"\s+"]),
    "glm": LLAMA.replace(r"|\s+(?!\S)", r"|\s*[\r\n]+|\s+(?!\S)")}
WORDS = ["The", "the", "CAMELCase", "iPhone", "\u4f60\u597d", "\u3007", "\u30ab\u30bf", "\u3042",
         "\ud55c\uae00", "\u0e44\u0e17\u0e22", "\u05e9\u05dc\u05d5\u05dd", "\u01c5", "\u02b0", "e\u0301",
         "\u0301", "\u0645\u064f", "'s", "'LL", "'\u017f", "don't", "I'Ve", "12", "3456789", "\u0661\u0662",
         "\u2167", "\u00bd", " ", "  ", "\t", "\n", "\r\n", "\n\n ", "\u3000", "\u2028", "\u0085", "\u200b",
         "\x1c", "!", "...", "\u3002", "$", "_", "-", "\u20ac", "\U0001f600", "\U00020000", "\u2e80",
         "\u00aa"]


def cases():
    for pattern, literal in PATTERNS:
        for behaviour in BEHAVIOURS:
            for invert in (False, True):
                split = pre_tokenizers.Split(pattern if literal else Regex(pattern), behaviour, invert)
                yield ({"pattern": pattern, "literal": literal, "behaviour": behaviour, "invert": invert},
                       split)
    for pattern in (V3, GPT2, LLAMA):
        yield ({"pattern": pattern, "literal": False, "behaviour": "isolated", "invert": False},
               pre_tokenizers.Split(Regex(pattern), "isolated", False))
    yield {"digits": True}, pre_tokenizers.Digits(individual_digits=True)
    yield {"digits": False}, pre_tokenizers.Digits(individual_digits=False)


rows = []
for case, pre_tokenizer in cases():
    case["pieces"] = [[piece for piece, _ in pre_tokenizer.pre_tokenize_str(text)] for text in TEXTS]
    rows.append(json.dumps(case))

draw = random.Random(5)
texts = ["".join(draw.choice(WORDS) for _ in range(12)) for _ in range(60)]
named = []
for name, pattern in NAMED.items():
    split = pre_tokenizers.Split(Regex(pattern), "isolated", False)
    pieces = [[piece for piece, _ in split.pre_tokenize_str(text)] for text in texts]
    named.append(f'"{name}": ' + json.dumps(pieces))
print('{"texts": ' + json.dumps(TEXTS) + ',\n "cases": [\n' + ",\n".join(rows) + '\n],\n "named": {"texts": '
      + json.dumps(texts) + ",\n" + ",\n".join(named) + "}}")
