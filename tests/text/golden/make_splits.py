#!/usr/bin/env python3
"""Makes splits.json: what Split and Digits of Hugging Face tokenizers (0.23.1, Oniguruma) cut texts into.

Run it where `tokenizers` is installed: python3 make_splits.py > splits.json
"""
import json

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
            (r"(?<=-)\p{L}", False), (r"^.|.$", False),
            (r"\p{Han}+", False), (r"\p{^L}", False), (r"[^\S\n]", False), (r"\x{65e5}|\x2d", False)]


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
print('{"texts": ' + json.dumps(TEXTS) + ',\n "cases": [\n' + ",\n".join(rows) + "\n]}")
