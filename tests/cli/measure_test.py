"""Program tests of `fathom perplexity` and `fathom compare`, on the embedded model and on copies of it with a
known difference, and of models by their names in the cache of Hugging Face's tools.
Usage: measure_test.py PROGRAM."""
import json
import math
import os
import struct
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

PROGRAM = sys.argv.pop(1)
TINY = Path(__file__).resolve().parents[2] / "models/tiny"
TEXT = Path(__file__).resolve().parents[1] / "golden/tiny/held_out.txt"


def run(*arguments, code=0, **environment):
    done = subprocess.run([PROGRAM, *map(str, arguments)], capture_output=True, text=True,
                          env=os.environ | environment)
    assert done.returncode == code, f"exit code {done.returncode}, not {code}: {done.stderr}"
    return done


def figures(*arguments):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "figures.json"
        run(*arguments, "--json", path)
        return json.loads(path.read_text())


def copy_with_zero_head(folder):
    """The embedded model, whose head gives every token the logit 0."""
    for name in ("config.json", "tokenizer.json"):
        (folder / name).write_bytes((TINY / name).read_bytes())
    data = bytearray((TINY / "model.safetensors").read_bytes())
    length = struct.unpack("<Q", data[:8])[0]
    begin, end = json.loads(data[8 : 8 + length])["lm_head.weight"]["data_offsets"]
    data[8 + length + begin : 8 + length + end] = bytes(end - begin)
    (folder / "model.safetensors").write_bytes(data)


class Measures(unittest.TestCase):
    def test_perplexity_of_windows_and_in_one(self):
        in_windows = figures("perplexity", "fathom-tiny", TEXT, "--window", 128, "--windows", 3)
        self.assertEqual((in_windows["windows"], in_windows["scored_tokens"]), (3, 3 * 63))
        self.assertTrue(2 < in_windows["perplexity"] < 100)  # the vocabulary has 4096 tokens
        self.assertTrue(0 < in_windows["standard_error"] < in_windows["perplexity"])
        self.assertAlmostEqual(in_windows["perplexity"], math.exp(in_windows["loss"]), places=6)
        again = figures("perplexity", "fathom-tiny", TEXT, "--window", 128, "--windows", 3)
        self.assertEqual(again["perplexity"], in_windows["perplexity"])

    def test_a_model_and_itself(self):
        same = figures("compare", "fathom-tiny", "fathom-tiny", TEXT, "--window", 64, "--windows", 2)
        self.assertEqual((same["kl"]["max"], same["same_best"]["mean"], same["log_ratio"]["mean"]), (0, 1, 0))
        self.assertTrue(len(same["moe_layers"]) > 0)
        for layer in same["moe_layers"]:
            self.assertEqual((layer["overlap"], layer["same_set"], layer["same_first"]), (1, 1, 1))

    def test_a_model_and_one_that_knows_nothing(self):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            copy_with_zero_head(folder)
            vocabulary = json.loads((TINY / "config.json").read_text())["vocab_size"]
            other = figures("compare", "fathom-tiny", folder, TEXT, "--window", 64, "--windows", 2)
            self.assertAlmostEqual(other["perplexity_b"] / vocabulary, 1, places=5)
            # A uniform B leaves KL = log V - entropy of A, which the loss of A approaches.
            self.assertTrue(0 < other["kl"]["mean"] < math.log(vocabulary))
            self.assertAlmostEqual(
                other["log_ratio"]["mean"], math.log(vocabulary) - math.log(other["perplexity_a"]), places=5)
            for layer in other["moe_layers"]:  # the head changes no router
                self.assertEqual(layer["same_set"], 1)

    def test_what_cannot_be_measured(self):
        with tempfile.TemporaryDirectory() as name:
            empty = Path(name) / "empty.txt"
            empty.write_text("")
            self.assertIn("too short", run("perplexity", "fathom-tiny", empty, code=1).stderr)
            self.assertIn("cannot read", run("perplexity", "fathom-tiny", empty / "no", code=1).stderr)
        self.assertIn("--window", run("perplexity", "fathom-tiny", TEXT, "--window", 2, code=2).stderr)
        self.assertIn("context", run("perplexity", "fathom-tiny", TEXT, "--context", 64, code=1).stderr)


class HubNames(unittest.TestCase):
    """Every command takes ORG/NAME where it takes a MODEL."""

    def test_every_command(self):
        with tempfile.TemporaryDirectory() as cache, tempfile.TemporaryDirectory() as out:
            model = Path(cache) / "models--org--tiny"
            (model / "refs").mkdir(parents=True)
            (model / "refs/main").write_text("c" * 40)
            snapshot = model / "snapshots" / ("c" * 40)
            snapshot.mkdir(parents=True)
            for file in TINY.iterdir():
                (snapshot / file.name).symlink_to(file)
            text = Path(out) / "text"
            text.write_text("Once upon a time there was a fox.")
            talk = Path(out) / "talk.json"
            talk.write_text('{"messages": [{"role": "user", "content": "Hi"}]}')
            gguf = Path(out) / "tiny.gguf"
            for command, *rest in (("inspect",), ("tokenize", text), ("convert", gguf), ("perplexity", text),
                                   ("compare", "fathom-tiny", text), ("run", "-p", "Once", "-n", 1),
                                   ("render", talk),
                                   ("logits", "--tokens", "0,1", "-o", Path(out) / "logits")):
                run(command, "org/tiny", *rest, HF_HUB_CACHE=cache)
                wrong = run(command, "org/other", *rest, HF_HUB_CACHE=cache, code=1)
                self.assertIn("hf download org/other", wrong.stderr)
            self.assertIn("org/tiny", run("inspect", "org/tiny", HF_HUB_CACHE=cache).stdout)


if __name__ == "__main__":
    unittest.main()
