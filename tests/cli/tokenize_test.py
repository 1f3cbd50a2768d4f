#!/usr/bin/env python3
"""`fathom tokenize` and `fathom detokenize` as a person meets them: python3 tokenize_test.py PROGRAM.

Over the embedded tokenizer and small files made here; what tokens a text must have is the matter of
tests/text. Standard library only.
"""
import base64
import json
import os
import struct
import subprocess
import sys
import unittest

import cli_test
from cli_test import BOS, EOS, TIMEOUT, TINY, USER, Case, run, start

TINY_NAME = "fathom-tiny"
BOS_NAME, USER_NAME = "<｜begin▁of▁sentence｜>", "<｜User｜>"
# Bytes that are no UTF-8 stand as \udcXX.
ODD = "a\x00\t\r\n\\\" 你好 \U0001f999 é e\u0301 \udcff\udce4\udcbd <｜User｜>\n\n"


MALFORMED = os.path.join(TINY, "..", "..", "..", "shared", "data", "malformed")


def lines(*objects):
    return "".join(json.dumps(o, ensure_ascii=False) + "\n" for o in objects)


def gguf(pre, tokens, types, merges, bos=None):
    """A GGUF file with this vocabulary and nothing else."""
    def text(value):
        return struct.pack("<Q", len(value.encode())) + value.encode()

    def array(kind, values):
        return struct.pack("<IIQ", 9, kind, len(values)) + b"".join(values)

    keys = {"model": struct.pack("<I", 8) + text("gpt2"), "pre": struct.pack("<I", 8) + text(pre),
            "tokens": array(8, [text(token) for token in tokens]),
            "token_type": array(5, [struct.pack("<i", kind) for kind in types]),
            "merges": array(8, [text(merge) for merge in merges])}
    if bos is not None:
        keys["bos_token_id"] = struct.pack("<II", 4, bos)
    return (b"GGUF" + struct.pack("<IQQ", 3, 0, len(keys))
            + b"".join(text("tokenizer.ggml." + key) + value for key, value in keys.items()))


def letters():
    """The character that stands for each byte."""
    own = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = iter(range(0x100, 0x144))
    return [chr(byte if byte in own else next(others)) for byte in range(256)]


class People(Case):
    def test_table(self):
        out = self.works(run("tokenize", TINY_NAME, 'Once upon a "time"\n')).out
        rows = [line.split(None, 1) for line in out.splitlines()]
        self.assertEqual(rows[0], ["697", '"Once"'])
        self.assertIn('" upon"', [piece for _, piece in rows])
        self.assertEqual("".join(piece[1:-1] for _, piece in rows), 'Once upon a \\"time\\"\\n')
        self.assertEqual({line.index('"') for line in out.splitlines()}, {out.index('"')}, "one column")

    def test_pieces_are_visible(self):
        out = self.works(run("tokenize", TINY_NAME, text="\x1b[31m\udcff\x7f\u0085\t")).out
        self.assertNotIn("\x1b", out)
        for piece in ('"\\x1b"', '"\\xff"', '"\\x7f"', '"\\t"'):
            self.assertIn(piece, out)

    def test_names_are_text_unless_wanted(self):
        plain = self.works(run("tokenize", TINY_NAME, USER_NAME, "--ids")).out.split(",")
        self.assertGreater(len(plain), 3)
        out = self.works(run("tokenize", TINY_NAME, USER_NAME, "--ids", "--special")).out
        self.assertEqual(out, f"{USER}\n")
        marked = self.works(run("tokenize", TINY_NAME, USER_NAME, "--special", "--bos")).out.splitlines()
        self.assertEqual([line.split() for line in marked], [[str(BOS), BOS_NAME, "special", "token"],
                                                             [str(USER), USER_NAME, "special", "token"]])

    def test_bos_comes_once(self):
        for text, special, expected in (("", False, [BOS]), (BOS_NAME, True, [BOS]),
                                        (USER_NAME, True, [BOS, USER])):
            more = ("--special",) if special else ()
            out = self.works(run("tokenize", TINY_NAME, text, "--bos", "--ids", *more)).out
            self.assertEqual(out, ",".join(map(str, expected)) + "\n")

    def test_every_byte_there_and_back(self):
        for text in ("", "\n", ODD, ODD * 500):
            for more in ((), ("--special",), ("--bos",)):
                ids = self.works(run("tokenize", TINY_NAME, "--ids", *more, text=text)).out
                back = self.works(run("detokenize", TINY_NAME, text=ids)).out
                self.assertEqual(back, (BOS_NAME if "--bos" in more else "") + text)
        self.assertEqual(self.works(run("detokenize", TINY_NAME, f" {BOS}, {EOS} ")).out,
                         BOS_NAME + "<｜end▁of▁sentence｜>")

    def test_wrong_usage(self):
        for arguments, word in ((("tokenize",), "MODEL"), (("detokenize",), "MODEL"),
                                (("tokenize", TINY_NAME, "x", "--jsonl"), "TEXT"),
                                (("tokenize", TINY_NAME, "--ids", "--jsonl"), "--ids"),
                                (("detokenize", TINY_NAME, "1", "--jsonl"), "IDS"),
                                (("detokenize", TINY_NAME, "1,x"), "'x'"),
                                (("detokenize", TINY_NAME, "1 2"), "'1 2'")):
            with self.subTest(arguments=arguments):
                self.fails(run(*arguments), word, "--help", code=2)
        self.fails(run("detokenize", TINY_NAME, "1,4096"), "no such token", "4096")


class JsonLines(Case):
    def test_there_and_back(self):
        texts = ["", "Once upon a time", "你好\u0000\n\"\\", USER_NAME, "\u2028 \U0001f999"]
        given = lines(*({"text": text, "more": 1} for text in texts))
        ids = self.works(run("tokenize", TINY_NAME, "--jsonl", text=given)).out
        parsed = [json.loads(line) for line in ids.splitlines()]
        self.assertEqual([list(line) for line in parsed], [["ids"]] * len(texts))
        self.assertEqual(parsed[0]["ids"], [])
        self.assertEqual(parsed[1]["ids"][0], 697)
        self.assertGreater(len(parsed[3]["ids"]), 3)
        back = self.works(run("detokenize", TINY_NAME, "--jsonl", text=ids)).out
        self.assertEqual(back, lines(*({"text": text} for text in texts)))
        out = self.works(run("tokenize", TINY_NAME, "--jsonl", "--special", "--bos",
                             text=lines({"text": USER_NAME}))).out
        self.assertEqual(out, lines({"ids": [BOS, USER]}))

    def test_bytes_that_are_not_utf8(self):
        given = lines({"bytes": "ff61E4bd"}, {"bytes": ""}, {"bytes": "e4bda0"})
        ids = self.works(run("tokenize", TINY_NAME, "--jsonl", text=given)).out
        back = self.works(run("detokenize", TINY_NAME, "--jsonl", text=ids)).out
        self.assertEqual(back, lines({"bytes": "ff61e4bd"}, {"text": ""}, {"text": "你"}))

    def test_bad_lines_are_named(self):
        good = {"tokenize": '{"text": "a"}', "detokenize": '{"ids": [69]}'}
        for command, bad, word in (("tokenize", "", "broken JSON"), ("tokenize", "x", "broken JSON"),
                                   ("tokenize", '{"text": "a"} x', "broken JSON"),
                                   ("tokenize", '{"text": "\udcff"}', "broken JSON"),
                                   ("tokenize", '{"text": "a", "text": "b"}', "twice"),
                                   ("tokenize", '["a"]', "object"), ("tokenize", "{}", '"text"'),
                                   ("tokenize", '{"text": null}', "null"),
                                   ("tokenize", '{"text": ["a"]}', "no text"),
                                   ("tokenize", '{"text": "a", "bytes": "61"}', "both"),
                                   ("tokenize", '{"bytes": "6"}', "hexadecimal"),
                                   ("tokenize", '{"bytes": "6x"}', "hexadecimal"),
                                   ("tokenize", '{"bytes": "+6"}', "hexadecimal"),
                                   ("tokenize", "[" * 100000, "nesting"),
                                   ("detokenize", '{"text": "a"}', '"ids"'),
                                   ("detokenize", '{"ids": 5}', "list"),
                                   ("detokenize", '{"ids": [1, 4096]}', "4096"),
                                   ("detokenize", '{"ids": [1, -1]}', "ids[1]"),
                                   ("detokenize", '{"ids": [1.0]}', "ids[0]"),
                                   ("detokenize", '{"ids": ["1"]}', "ids[0]"),
                                   ("detokenize", '{"ids": [4294967296]}', "ids[0]")):
            with self.subTest(command=command, bad=bad[:40]):
                result = run(command, TINY_NAME, "--jsonl", text=f"{good[command]}\n{bad}\n{good[command]}\n")
                self.assertEqual(len(result.out.splitlines()), 1, result)
                result.out = ""
                self.fails(result, "line 2", word)

    def test_answers_before_the_input_ends(self):
        process = start("tokenize", TINY_NAME, "--jsonl", stdin=subprocess.PIPE)
        for _ in range(2):
            process.stdin.write(b'{"text": "a"}\n')
            process.stdin.flush()
            self.assertEqual(json.loads(process.stdout.readline()), {"ids": [69]})
        process.communicate(timeout=TIMEOUT)
        self.assertEqual(process.returncode, 0)

    def test_last_line_without_an_end(self):
        self.assertEqual(self.works(run("tokenize", TINY_NAME, "--jsonl", text='{"text": "a"}')).out,
                         lines({"ids": [69]}))


class Files(Case):
    def write(self, name, text):
        with open(self.path(name), "w", encoding="utf-8") as file:
            file.write(text)
        return self.path(name)

    def test_file_and_folder(self):
        expected = self.works(run("tokenize", TINY_NAME, "Once upon")).out
        file = os.path.join(TINY, "tokenizer.json")
        folder = self.model(without=["config.json", "model.safetensors"])
        for model in (file, folder, folder + "/"):
            self.assertEqual(self.works(run("tokenize", model, "Once upon")).out, expected)

    def test_rank_file(self):
        words = [bytes([b]) for b in range(256)] + [b"ab", b"abc"]
        ranks = "".join(f"{base64.b64encode(word).decode()} {i}\n" for i, word in enumerate(words))
        file = self.write("tiktoken.model", ranks)
        for model in (file, self.folder):
            self.assertEqual(self.works(run("tokenize", model, "abc [BOS]", "--ids", "--special")).out,
                             "257,32,91,66,79,83,93\n")
        self.fails(run("tokenize", file, "a", "--bos"), "begins a text", "--bos")
        names = {"258": {"content": "[BOS]", "special": True}, "260": {"content": "<|im_user|>"}}
        self.write("tokenizer_config.json", json.dumps({"bos_token": "[BOS]", "added_tokens_decoder": names}))
        for model in (file, self.folder):
            out = self.works(run("tokenize", model, "abc<|im_user|>", "--bos", "--special", "--ids")).out
            self.assertEqual(out, "258,257,260\n")
        self.write("tokenizer_config.json", "{")
        self.fails(run("tokenize", file, "a"), "tokenizer_config.json")

    def test_gguf(self):
        tokens, types = [*letters(), "ab", "abc", "<s>", "<|EOT|>", "[PAD260]"], [*[1] * 258, 3, 4, 4]
        with open(self.path("model.gguf"), "wb") as file:
            file.write(gguf("deepseek-v3", tokens, types, ["a b", "ab c"], bos=258))
        os.link(self.path("model.gguf"), self.path("blob"))
        for model in (self.path("model.gguf"), self.path("blob"), self.folder):
            out = self.works(run("tokenize", model, "abc\n<|EOT|>", "--bos", "--special")).out
            self.assertEqual(out.splitlines(), ["258  <s>  special token", '257  "abc"', ' 10  "\\n"',
                                                "259  <|EOT|>  added token"])
        back = self.works(run("detokenize", self.path("blob"), "258,257,10,259")).out
        self.assertEqual(back, "<s>abc\n<|EOT|>")
        self.fails(run("detokenize", self.path("blob"), "260"), "no such token", "260")
        for name, data, word in (("pre", gguf("gpt-2", tokens, types, []), "tokenizer.ggml.pre"),
                                 ("types", gguf("glm4", tokens, types[:-1], []), "tokenizer.ggml.token_type"),
                                 ("bos", gguf("glm4", tokens, types, [], bos=260), "bos_token_id"),
                                 ("cut", gguf("glm4", tokens, types, [])[:-1], "cut"),
                                 ("none", b"GGUF" + struct.pack("<IQQ", 3, 0, 0), "tokenizer.ggml.model")):
            with open(self.path(name), "wb") as file:
                file.write(data)
            self.fails(run("tokenize", self.path(name), "a"), word, self.path(name))

    @unittest.skipUnless(os.path.exists(MALFORMED), f"no {MALFORMED}: proves nothing here")
    def test_malformed_files_of_the_shared_data(self):
        with open(os.path.join(MALFORMED, "manifest.json")) as file:
            rows = [row for row in json.load(file)
                    if row["format"] == "tokenizer" or row["file"].startswith("gguf/tok_")]
        self.assertEqual(len(rows), 22)
        for row in rows:
            with self.subTest(**row):
                result = run("tokenize", os.path.join(MALFORMED, row["file"]), "ab", "--ids")
                if row["verdict"] == "accept" or result.code == 0:
                    self.assertEqual(self.works(result).out.count("\n"), 1)
                    self.assertNotEqual(row["verdict"], "reject")
                else:
                    self.fails(result, os.path.basename(row["file"]))

    def test_no_tokenizer(self):
        os.mkdir(self.path("empty"))
        self.fails(run("tokenize", self.path("empty"), "a"), "no tokenizer", "tiktoken.model")
        self.fails(run("tokenize", self.path("nothing"), "a"), "nothing")
        self.fails(run("tokenize", self.write("x", "hello"), "a"), "line 1")
        self.fails(run("tokenize", self.write("x.json", "{}"), "a"), "pre_tokenizer")
        self.fails(run("tokenize", self.write("empty.json", ""), "a"), "empty.json")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    cli_test.PROGRAM = os.path.abspath(sys.argv.pop(1))
    unittest.main(verbosity=2)
