#!/usr/bin/env python3
"""The program as a person meets it: python3 cli_test.py PROGRAM [unittest arguments].

Runs the built program over the embedded model and over edited copies of models/tiny in a temporary folder.
Holds that bad input gives one clear error, the right exit code and no damaged or left-over file; that Ctrl-C
does; that output is clean in a pipe and the same for the same seed. Standard library only.
"""
import json
import os
import pty
import re
import resource
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import unittest

PROGRAM = None
TINY = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "models", "tiny")
COMMANDS = ("run", "chat", "render", "devices", "inspect", "logits", "tokenize", "detokenize",
            "convert", "quantize", "bench")
USER, ASSISTANT, BOS, EOS = 3, 4, 0, 1  # of models/tiny's tokenizer
TIMEOUT = 120
REMOVED = object()
NO_DRIVER = {"VK_DRIVER_FILES": "/nonexistent", "VK_ICD_FILENAMES": "/nonexistent"}


def limits(file_size=None):
    """What the child does before the program starts: Ctrl-C gets its usual meaning, files may be limited."""
    def prepare():
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a background shell would have it ignored
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
        if file_size is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))
    return prepare


def start(*arguments, env=None, file_size=None, **streams):
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams}
    return subprocess.Popen([PROGRAM, *map(str, arguments)], env={**os.environ, **(env or {})},
                            preexec_fn=limits(file_size), **streams)


class Result:
    def __init__(self, code, out, err):
        self.code = code
        self.out, self.err = out.decode("utf-8", "surrogateescape"), err.decode("utf-8", "replace")

    def __repr__(self):
        return f"exit code {self.code}\n--- stdout\n{self.out}\n--- stderr\n{self.err}"


def run(*arguments, text=None, **options):
    if text is not None:
        options["stdin"] = subprocess.PIPE
    process = start(*arguments, **options)
    try:
        given = None if text is None else text.encode("utf-8", "surrogateescape")
        out, err = process.communicate(given, TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    return Result(process.returncode, out or b"", err or b"")


class Case(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="fathom-cli-")
        self.addCleanup(shutil.rmtree, self.folder)

    def path(self, *names):
        return os.path.join(self.folder, *names)

    def model(self, config=None, without=(), name="model"):
        """A copy of models/tiny (its files linked, so replace them, never write into them) with keys of its
        config changed or REMOVED, and files left out."""
        folder = self.path(name)
        os.makedirs(folder)
        for file in ("config.json", "model.safetensors", "tokenizer.json"):
            if file not in without and not (file == "config.json" and config):
                os.symlink(os.path.abspath(os.path.join(TINY, file)), os.path.join(folder, file))
        if config:
            with open(os.path.join(TINY, "config.json")) as file:
                values = {**json.load(file), **config}
            with open(os.path.join(folder, "config.json"), "w") as file:
                json.dump({key: value for key, value in values.items() if value is not REMOVED}, file)
        return folder

    def fails(self, result, *words, code=1, one=True):
        """One error on stderr that contains all `words`, nothing on stdout, this exit code."""
        self.assertEqual(result.code, code, result)
        if one:
            self.assertEqual(len(re.findall(r"^error: ", result.err, re.M)), 1, result)
        self.assertEqual(result.out, "", result)
        for word in words:
            self.assertIn(word.lower(), result.err.lower(), result)
        for trouble in ("a bug in Fathom", "terminate called", "AddressSanitizer", "runtime error"):
            self.assertNotIn(trouble, result.err, result)

    def works(self, result):
        self.assertEqual(result.code, 0, result)
        return result


class Basics(Case):
    def test_version(self):
        out = self.works(run("--version")).out
        self.assertRegex(out, r"^fathom \d+\.\d+\.\d+ \(commit [0-9a-z-]+\)\n")
        self.assertIn("shader tiers:", out)
        self.assertRegex(out, r"glslang \d+")

    def test_help_of_each_command(self):
        out = self.works(run("--help")).out
        for command in COMMANDS:
            self.assertIn(command, out)
            text = self.works(run(command, "--help")).out
            self.assertIn("Examples:", text)
            self.assertIn(f"fathom {command}", text)

    def test_wrong_usage(self):
        prompt = ("-p", "x")
        for arguments, word in ((("dance",), "dance"),
                                (("run", "--dance"), "--dance"),
                                (("run", "--temp", "warm", *prompt), "warm"),
                                (("run", "--top-p", "nan", *prompt), "nan"),
                                (("run", "-n", "-1", *prompt), "-1"),
                                (("run", "-f", "y", *prompt), "--file"),
                                (("run", "--seed", "x", *prompt), "--seed"),
                                (("--seed", "1", "run", *prompt), "--seed"),
                                (("run",), "standard input is empty"),
                                (("logits", "-o", "x"), "--tokens"),
                                (("logits", "--tokens", "1"), "--output"),
                                (("logits", "--tokens", "1,x", "-o", self.path("x")), "'x'")):
            with self.subTest(arguments=arguments):
                self.fails(run(*arguments), word, "--help", code=2)

    def test_devices(self):
        out = self.works(run("devices")).out
        self.assertTrue(out.startswith("0  "), out)
        self.assertIn("Vulkan 1.", out)
        self.assertNotIn("\x1b", out)

    def test_inspect(self):
        out = self.works(run("inspect")).out
        for text in ("DeepSeek V3", "7: 1 dense", "4 heads", "16 routed in 4 groups (2 kept)", "4 active",
                     "1024 tokens", "routed experts", "1120 bytes a token", "4480 bytes a token",
                     "4.0 times less"):
            self.assertIn(text, out)
        self.assertEqual(out.replace("fathom-tiny", "model"), self.works(run("inspect", self.model())).out)

    def test_inspect_preset(self):
        out = self.works(run("inspect", "v3")).out
        for part in ("671 B in all", "37.6 B", "70272 bytes a token", "BF16", "Q4_K"):
            self.assertIn(part, out)
        self.assertEqual(out, self.works(run("inspect", "r1")).out)
        names = self.works(run("inspect", "--presets")).out
        for name in ("moe-16b", "v2-lite, coder-v2-lite", "kimi-k2", "glm-4.7-flash"):
            self.assertIn(name, names)

    def test_inspect_plans_memory(self):
        self.assertNotIn("memory on", self.works(run("inspect")).out)
        out = self.works(run("inspect", "--context", 100)).out
        for part in ("memory on", "context 100, cache for 256 tokens", "weights: experts", "latent cache",
                     "available", "tokens/s", "  fits\n"):
            self.assertIn(part, out)
        small = {"FATHOM_DEVICE_MEMORY": "34000000"}
        out = self.works(run("inspect", "--context", 512, env=small)).out
        for part in ("does not fit", "of 34.0 MB available", "what would fit", "--quantize q8_0",
                     "--experts host"):
            self.assertIn(part, out)
        out = self.works(run("inspect", "--experts", "host", env=small)).out
        self.assertIn("in the host's memory", out)
        self.assertIn("  fits\n", out)
        out = self.works(run("inspect", "v2-lite", "--format", "q8_0", "--context", 4096,
                             env={"FATHOM_DEVICE_MEMORY": "16000000000"})).out
        self.assertIn("--format q6_k", out)
        self.fails(run("inspect", "--experts", "disk"), "--experts", code=2)
        self.fails(run("inspect", "v2-lite", "--quantize", "q8_0"), "--format", code=2)
        self.fails(run("inspect", "--format", "q8_0"), "--quantize", code=2)

    def test_a_model_that_does_not_fit(self):
        small = {"FATHOM_DEVICE_MEMORY": "34000000"}
        self.fails(run("run", "-p", "Once", env=small), "does not fit into memory",
                   "at most 34.0 MB of device memory", "weights: experts", "--experts host (")
        self.works(run("run", "-p", "Once", "-n", 3, "--experts", "host", env=small))

    def test_help_beside_a_name_that_is_not_there(self):
        self.assertIn("--prompt", self.works(run("run", "nobody/nothing", "--help")).out)
        self.fails(run("run", "nobody/nothing", "-p", "x"), "nobody/nothing", "no such model")
        self.fails(run("tokenize", "nobody/nothing", "x"), "nobody/nothing", "no such model")

    def test_inspect_of_another_file(self):
        readme = os.path.join(TINY, "README.md")
        self.fails(run("inspect", readme), "not a file of a model", "safetensors", "GGUF")

    def test_inspect_needs_no_gpu(self):
        self.works(run("inspect", env=NO_DRIVER))


class LikeLlamaBench(Case):
    def test_rows_of_llama_bench(self):
        options = ("bench", "--like-llama-bench", "-p", "8,16", "-n", 2, "-d", "0,70", "-r", 2)
        table = self.works(run(*options)).out.splitlines()
        self.assertEqual([line.split("|")[5].strip() for line in table[2:]],
                         ["pp8", "pp16", "tg2", "pp8 @ d70", "pp16 @ d70", "tg2 @ d70"])
        rows = json.loads(self.works(run(*options, "--json", "-")).out)
        self.assertEqual([(row["n_prompt"], row["n_gen"], row["n_depth"]) for row in rows],
                         [(8, 0, 0), (16, 0, 0), (0, 2, 0), (8, 0, 70), (16, 0, 70), (0, 2, 70)])
        for row in rows:
            tokens = row["n_prompt"] + row["n_gen"]
            self.assertEqual(len(row["samples_ts"]), 2)
            self.assertAlmostEqual(row["avg_ts"], sum(row["samples_ts"]) / 2, places=6)
            for nanoseconds, rate in zip(row["samples_ns"], row["samples_ts"]):
                self.assertAlmostEqual(tokens * 1e9 / nanoseconds / rate, 1, places=5)
        self.assertNotIn(os.path.expanduser("~"), json.dumps(rows))
        file = self.path("rows.json")
        self.works(run("bench", "--like-llama-bench", "-p", 8, "-n", 0, "-r", 1, "--json", file))
        with open(file, encoding="utf-8") as written:
            self.assertEqual(json.load(written)[0]["stddev_ts"], 0)

    def test_interrupted(self):
        process = start("bench", "--like-llama-bench", "-p", 8, "-n", 1000, "-r", 1)
        out = b""
        while b"pp8" not in out:
            out += os.read(process.stdout.fileno(), 1000)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=TIMEOUT)
        self.assertEqual(process.returncode, 130)

    def test_what_is_wrong(self):
        self.fails(run("bench", "--like-llama-bench", "-p", 0, "-n", 0), "nothing to measure", code=2)
        self.fails(run("bench", "--like-llama-bench", "-p", "x"), code=2)
        self.fails(run("bench", "--like-llama-bench", "-p", 5000), "max_position_embeddings")


class Generating(Case):
    def test_only_text_on_stdout(self):
        result = self.works(run("run", "-p", "Once upon a time", "-n", 20, "--seed", 1, "--routing"))
        self.assertNotIn("\x1b", result.out + result.err)
        self.assertNotIn("Once upon a time", result.out)
        self.assertGreater(len(result.out), 20, result)
        self.assertIn("Which experts worked", result.err)
        self.assertIn("seed 1", result.err)

    def test_quiet(self):
        result = self.works(run("run", "-p", "Once upon a time", "-n", 8, "--quiet"))
        self.assertEqual(result.err, "")

    def test_tiers_and_cache_types(self):
        command = ("run", "-p", "One day", "-n", 20, "--greedy")
        plain = self.works(run(*command)).out
        for options in (("--tier", "tiled"), ("--cache-type", "f16")):
            self.assertEqual(self.works(run(*command, *options)).out, plain, options)
        self.assertGreater(len(self.works(run(*command, "--cache-type", "q8")).out), 20)
        for option, words in (("--tier", "auto"), ("--cache-type", "f16")):
            result = run(*command, option, "nonsense")
            self.assertEqual(result.code, 2, result.err)
            self.assertIn(words, result.err)
            self.assertIn("nonsense", result.err)
        self.assertIn("kernels:", self.works(run("devices", "-v")).out)

    def test_same_seed_same_text(self):
        command = ("run", "-p", "One day", "-n", 40, "--temp", 1, "--seed")
        texts = [self.works(run(*command, seed)).out for seed in (5, 5, 6)]
        self.assertEqual(texts[0], texts[1])
        self.assertNotEqual(texts[0], texts[2])

    def test_greedy_needs_no_seed(self):
        command = ("run", "-p", "One day", "-n", 30)
        greedy = self.works(run(*command, "--greedy", "--seed", 1)).out
        self.assertEqual(greedy, self.works(run(*command, "--temp", 0, "--seed", 2)).out)

    def test_prompt_by_option_file_and_pipe(self):
        prompt = "Il était une fois — ｜"
        with open(self.path("prompt.txt"), "w", encoding="utf-8") as file:
            file.write(prompt + "\n")
        options = ("-n", 12, "--greedy")
        expected = self.works(run("run", "-p", prompt, *options)).out
        self.assertEqual(expected, self.works(run("run", "-f", self.path("prompt.txt"), *options)).out)
        self.assertEqual(expected, self.works(run("run", *options, text=prompt + "\n")).out)
        self.assertEqual(expected, self.works(run("run", self.model(), "-p", prompt, *options)).out)

    def test_odd_prompts(self):
        for prompt in ("", " ", "-x", "--", "[a,b]", "{}", "\udcff\udcfe", "<｜end▁of▁sentence｜>"):
            with self.subTest(prompt=prompt):
                self.works(run("run", "-n", 3, "-p", prompt))

    def test_stops_at_the_end_and_goes_on_when_told(self):
        with open(os.path.join(TINY, "tokenizer.json")) as file:
            full_stop = json.load(file)["model"]["vocab"]["."]
        model = self.model({"eos_token_id": [EOS, full_stop]})  # so that the end comes soon
        command = ("run", model, "-p", "Once upon a time", "-n", 60, "--greedy",
                   "--stats", self.path("s.json"))
        stats, texts = [], []
        for more in ((), ("--ignore-eos",)):
            texts.append(self.works(run(*command, *more)).out)
            with open(self.path("s.json")) as file:
                stats.append(json.load(file))
        self.assertEqual([s["end"] for s in stats], ["stop_token", "max_tokens"])
        self.assertEqual(stats[1]["generated_tokens"], 60)
        self.assertNotIn(".", texts[0], "the token that ends the text is not part of it")
        self.assertTrue(texts[1].startswith(texts[0]) and len(texts[1]) > len(texts[0]), texts)

    def test_stats(self):
        command = ("run", "-p", "Once upon a time", "-n", 10, "--seed", 3, "--ignore-eos")
        self.works(run(*command, "--stats", self.path("s.json")))
        with open(self.path("s.json")) as file:
            stats = json.load(file)
        self.assertEqual((stats["generated_tokens"], stats["seed"], stats["end"]), (10, 3, "max_tokens"))
        self.assertGreater(stats["prompt_tokens"], 1)
        self.assertGreater(stats["dispatches_per_token"], 0)
        self.assertTrue(stats["device"])
        for key in ("load", "prefill", "decode", "first_token"):
            self.assertGreater(stats["seconds"][key], 0)
        for key in ("prefill", "decode"):
            self.assertGreater(stats["tokens_per_second"][key], 0)
        owners = {item["owner"]: item for item in stats["memory"]}
        weights = sum(item["bytes"] for owner, item in owners.items() if owner.startswith("weights"))
        self.assertGreater(weights, 20_000_000)
        for item in owners.values():
            self.assertLessEqual(item["bytes"], item["reserved"], item)
        self.assertEqual(os.listdir(self.folder), ["s.json"])

    def test_sample_story(self):
        result = self.works(run())
        self.assertIn("Once upon a time", result.out)
        self.assertRegex(result.out, r"(?m)^ +1  [▁▂▃▄▅▆▇█·]{16}")
        self.assertIn("CV", result.out)
        self.assertIn("entropy", result.out)
        self.assertNotIn("\x1b", result.out)
        self.assertEqual(result.out, self.works(run()).out)

    def test_closed_pipe_ends_quietly(self):
        process = start("run", "-p", "Once", "-n", 300, "--ignore-eos")
        process.stdout.read(1)
        process.stdout.close()
        err = process.stderr.read().decode()
        process.stderr.close()
        self.assertEqual(process.wait(TIMEOUT), 0, err)
        self.assertNotIn("error", err)

    def test_full_output(self):
        with open("/dev/full", "wb") as full:
            result = run("run", "-p", "Once", "-n", 8, stdout=full)
        self.fails(result, "standard output", "no space")


class Logits(Case):
    def read(self, name):
        with open(self.path(name), "rb") as file:
            size, = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(size))
            return header, file.read()

    def test_file(self):
        self.works(run("logits", "--tokens", "0,671,300", "-o", self.path("a.safetensors")))
        header, data = self.read("a.safetensors")
        self.assertEqual(header["logits"]["shape"], [3, 4096])
        self.assertEqual(header["logits"]["dtype"], "F32")
        self.assertEqual(len(data), 3 * 4096 * 4)
        self.assertEqual(os.listdir(self.folder), ["a.safetensors"])
        values = struct.unpack(f"<{3 * 4096}f", data)
        best = max(range(4096), key=lambda i: values[2 * 4096 + i])
        self.works(run("run", "--greedy", "-n", 1, "-p", "x"))  # the program is not the worse for it
        self.assertLess(best, 4096)
        self.works(run("logits", "--tokens", "0,671,300", "-o", self.path("b.safetensors")))
        self.assertEqual(self.read("b.safetensors"), (header, data))

    def test_reference_agrees(self):
        self.works(run("logits", "--tokens", "0,671", "-o", self.path("a"), "--device", "cpu"))
        self.works(run("logits", "--tokens", "0,671", "-o", self.path("b"), "--reference"))
        a, b = (struct.unpack(f"<{2 * 4096}f", self.read(name)[1]) for name in "ab")
        self.assertLess(sum((x - y) ** 2 for x, y in zip(a, b)) / sum(y * y for y in b), 1e-8)

    def test_taps(self):
        self.works(run("logits", "--tokens", "0,671,300", "--tap", "*", "-o", self.path("a")))
        header, data = self.read("a")
        self.assertGreater(len(header), 8)
        for name, entry in header.items():
            if name != "__metadata__":
                self.assertEqual(entry["dtype"], "F32")
                self.assertEqual(entry["shape"][0], 3, name)
        result = run("logits", "--tokens", "0", "--tap", "no.such.tap", "-o", self.path("b"))
        self.fails(result, "no.such.tap")
        self.assertFalse(os.path.exists(self.path("b")))

    def test_bad_tokens(self):
        self.fails(run("logits", "--tokens", "0,4096", "-o", self.path("x")), "4096")
        self.fails(run("logits", "--tokens", "0,1,2", "--context", 2, "-o", self.path("x")), "--context")
        self.assertEqual(os.listdir(self.folder), [])


class BadInput(Case):
    def test_no_driver(self):
        logits = ("logits", "--tokens", "1", "-o", self.path("x"))
        for arguments in ((), ("devices",), ("run", "-p", "x"), logits):
            with self.subTest(arguments=arguments):
                self.fails(run(*arguments, env=NO_DRIVER), "vulkan")

    def test_no_such_device(self):
        for device in ("99", "-1", "no such device"):
            with self.subTest(device=device):
                self.fails(run("run", "-p", "x", "--device", device), "device", device)

    def test_no_such_model(self):
        logits = ("logits", "--tokens", "1", "-o", self.path("x"))
        for command in (("run", "-p", "x"), ("chat",), ("inspect",), logits):
            with self.subTest(command=command):
                self.fails(run(command[0], self.path("nothing"), *command[1:]), "nothing")
        os.mkdir(self.path("empty"))
        self.fails(run("run", self.path("empty"), "-p", "x"), "config.json")

    def test_missing_files(self):
        for file in ("tokenizer.json", "model.safetensors", "config.json"):
            self.fails(run("run", self.model(without=[file], name="no " + file), "-p", "x"), file)
        self.fails(run("run", "-f", self.path("none.txt")), "none.txt")

    def test_config(self):
        for name, config, words in (("a", {"scoring_func": "astrology"}, ("scoring_func", "astrology")),
                                    ("b", {"topk_method": "random"}, ("topk_method", "random")),
                                    ("c", {"hidden_size": REMOVED}, ("hidden_size",)),
                                    ("d", {"hidden_size": 128}, ("(",)),
                                    ("e", {"architectures": ["LlamaForCausalLM"]}, ("LlamaForCausalLM",))):
            with self.subTest(config=config):
                self.fails(run("run", self.model(config, name=name), "-p", "x"), *words)
        folder = self.model(without=["config.json"], name="f")
        with open(os.path.join(folder, "config.json"), "w") as file:
            file.write('{"architectures": [')
        self.fails(run("run", folder, "-p", "x"), "config.json")

    def weights(self, edit, name):
        """A model whose safetensors is `edit(header length, header, data)`, as bytes."""
        folder = self.model(without=["model.safetensors"], name=name)
        with open(os.path.join(TINY, "model.safetensors"), "rb") as file:
            size, = struct.unpack("<Q", file.read(8))
            header, data = json.loads(file.read(size)), file.read()
        with open(os.path.join(folder, "model.safetensors"), "wb") as file:
            file.write(edit(header, data))
        return folder

    @staticmethod
    def pack(header, data):
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        return struct.pack("<Q", len(text)) + text + data

    def test_lying_weights(self):
        tensor = "model.layers.3.self_attn.o_proj.weight"

        def changed(**values):
            return lambda header, data: self.pack({**header, tensor: {**header[tensor], **values}}, data)

        def renamed(header, data):
            header["model.layers.3.self_attn.x_proj.weight"] = header.pop(tensor)
            return self.pack(header, data)

        def twice(header, data):
            again = f', "{tensor}": {json.dumps(header[tensor])}}}'
            return self.pack((json.dumps(header)[:-1] + again).encode(), data)

        def overlapping(header, data):
            return changed(data_offsets=[o - 2 for o in header[tensor]["data_offsets"]])(header, data)

        for name, edit, words in (
                ("long header", lambda h, d: struct.pack("<Q", 1 << 40) + d[:64], ("header",)),
                ("empty", lambda h, d: b"", ("model.safetensors",)),
                ("truncated", lambda h, d: self.pack(h, d[:-1000]), ("model.safetensors",)),
                ("out of range", changed(data_offsets=[0, 1 << 50]), (tensor,)),
                ("overlap", overlapping, ()),
                ("wrong dtype", changed(dtype="F99"), ("F99",)),
                ("wrong size for dtype", changed(dtype="F32"), (tensor,)),
                ("misshapen", changed(shape=[128, 256]), (tensor, "(128, 256)")),
                ("duplicate", twice, (tensor,)),
                ("missing", renamed, (tensor,)),
                ("no json", lambda h, d: self.pack(b"hello!!!", d), ("header",))):
            with self.subTest(name):
                folder = self.weights(edit, name)
                self.fails(run("run", folder, "-p", "x"), *words)
                shutil.rmtree(folder)

    def test_tokenizer(self):
        folder = self.model(without=["tokenizer.json"])
        with open(os.path.join(folder, "tokenizer.json"), "w") as file:
            file.write('{"model": {"type": "Unigram"}}')
        self.fails(run("run", folder, "-p", "x"), "tokenizer.json")

    def test_context(self):
        self.fails(run("run", "-p", "a b c d e f g h", "--context", 5), "--context", "5")
        self.fails(run("run", "-p", "x", "--context", 100000), "1024")
        result = self.works(run("run", "-p", "Once upon a time", "--context", 16, "-n", 0, "--ignore-eos",
                                "--stats", self.path("s.json")))
        self.assertIn("--context", result.err)
        with open(self.path("s.json")) as file:
            stats = json.load(file)
        self.assertEqual(stats["end"], "context_full")
        self.assertEqual(stats["prompt_tokens"] + stats["generated_tokens"], 16)

    def test_unwritable_results(self):
        nowhere = self.path("no", "such", "folder")
        result = run("run", "-p", "x", "-n", 2, "--quiet", "--stats", nowhere)
        self.assertEqual(result.code, 1, result)
        self.assertIn("error: ", result.err)
        self.fails(run("logits", "--tokens", "0,1", "-o", nowhere), nowhere)
        self.fails(run("logits", "--tokens", "0,1", "-o", "/dev/full"), "/dev/full")
        self.assertEqual(os.listdir(self.folder), [])

    def test_full_disk(self):
        for name in ("x.safetensors", "s.json"):
            with open(self.path(name), "w") as file:
                file.write("what was there before")
        result = run("logits", "--tokens", "0,1", "-q", "-o", self.path("x.safetensors"), file_size=1000)
        self.fails(result, "x.safetensors")
        result = run("run", "-p", "x", "-n", 2, "--stats", self.path("s.json"), file_size=10)
        self.assertEqual(result.code, 1, result)
        self.assertIn("s.json", result.err)
        self.assertEqual(sorted(os.listdir(self.folder)), ["s.json", "x.safetensors"])
        for name in ("x.safetensors", "s.json"):
            with open(self.path(name)) as file:
                self.assertEqual(file.read(), "what was there before")


class Chat(Case):
    """models/tiny has never seen a conversation, but its tokenizer knows the format: enough for this."""

    def chat(self, *lines, arguments=(), model=None, **options):
        return run("chat", model or self.cached_model(), "-n", 6, "--seed", 1, *arguments,
                   text="".join(line + "\n" for line in lines), **options)

    def cached_model(self):
        return self.path("model") if os.path.exists(self.path("model")) else self.model()

    def test_embedded_model_says_so(self):
        self.fails(run("chat"), "embedded model", "fathom chat MODEL")

    def test_answers(self):
        result = self.works(self.chat("Hello", "And now?"))
        self.assertEqual(result.out.count("\n") >= 2, True, result)
        self.assertNotIn("\x1b", result.out)
        self.assertEqual(result.out, self.works(self.chat("Hello", "And now?")).out)

    def test_undo_and_reset_forget(self):
        story = "Tell me a story about a cat"
        first, other = (self.works(self.chat(line)).out for line in ("Hello", story))
        self.assertEqual(self.works(self.chat("Hello", "/undo", "Hello")).out, first + first)
        self.assertEqual(self.works(self.chat("Hello", "/reset", story)).out, first + other)
        result = self.works(self.chat("/system Be brief.", "Hello"))
        self.assertEqual(result.out, self.works(self.chat("Hello", arguments=("--system", "Be brief."))).out)

    def test_save_and_load(self):
        file = self.path("talk.session")
        whole = self.works(self.chat("Hello", "And now?")).out
        first = self.works(self.chat("Hello", "/save " + file)).out
        loaded = self.works(self.chat("/load " + file, "And now?"))
        self.assertEqual(first + loaded.out, whole)
        self.assertIn("1 questions", loaded.err)
        self.assertIn(first.strip(), loaded.err)
        again = self.works(self.chat("Other", "/load " + file, "/undo", "Hello"))
        self.assertTrue(again.out.endswith(first), again)
        with open(file, "rb") as saved:
            content = saved.read()
        for name, damaged in (("cut", content[:-10]), ("empty", b""), ("foreign", b"hello")):
            with self.subTest(name):
                with open(self.path(name), "wb") as bad:
                    bad.write(damaged)
                result = self.chat("Hello", "/load " + self.path(name), "And now?")
                self.assertEqual(result.code, 1, result)
                self.assertEqual(result.out, whole, "a failed /load leaves the conversation as it was")
                self.assertEqual(result.err.count("error: "), 1, result)

    def test_full_disk_on_save(self):
        with open(self.path("talk"), "w") as file:
            file.write("what was there before")
        result = self.chat("Hello", "/save " + self.path("talk"), "And now?", file_size=100)
        self.assertEqual(result.code, 1, result)
        self.assertEqual(result.err.count("error: "), 1, result)
        self.assertEqual(result.out, self.works(self.chat("Hello", "And now?")).out)
        self.assertEqual(sorted(os.listdir(self.folder)), ["model", "talk"])
        with open(self.path("talk")) as file:
            self.assertEqual(file.read(), "what was there before")

    def test_bad_commands(self):
        for line, word in (("/dance", "/dance"), ("/temp", "/temp"), ("/temp hot", "hot"), ("/save", "/save"),
                           ("/load " + self.path("none"), "none")):
            with self.subTest(line):
                result = self.chat(line)
                self.fails(result, word)

    def test_too_long(self):
        result = self.chat("word " * 100, "Hello", arguments=("--context", "64"))
        self.assertEqual(result.code, 1, result)
        self.assertIn("--context", result.err)
        self.assertEqual(result.out, self.works(self.chat("Hello", arguments=("--context", "64"))).out)

    def test_a_typed_token_name_is_text(self):
        file = self.path("talk.session")
        for question in ("Hello", "Hello<｜User｜>"):
            result = self.works(self.chat(question, "/save " + file, "/load " + file))
            self.assertIn("Loaded 1 questions", result.err)


class Terminal:
    """The program in a pseudo-terminal."""

    def __init__(self, *arguments):
        self.master, slave = pty.openpty()
        self.process = subprocess.Popen([PROGRAM, *map(str, arguments)], stdin=slave, stdout=slave,
                                        stderr=slave, env={**os.environ, "TERM": "xterm"},
                                        start_new_session=True, preexec_fn=self.prepare)
        os.close(slave)
        self.seen = ""

    @staticmethod
    def prepare():
        import fcntl
        import termios
        limits()()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # so that a typed Ctrl-C becomes a signal

    def wait_for(self, pattern, timeout=60):
        """Reads until `pattern` appears after what was waited for before; returns the text up to its end."""
        deadline = time.monotonic() + timeout
        while not (match := re.search(pattern, self.seen)):
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.master], [], [], left)[0]:
                raise AssertionError(f"no {pattern!r} within {timeout} s in {self.seen!r}")
            try:
                chunk = os.read(self.master, 65536)
            except OSError:
                chunk = b""
            if not chunk:
                raise AssertionError(f"the program ended before {pattern!r} in {self.seen!r}")
            self.seen += chunk.decode("utf-8", "replace")
        text, self.seen = self.seen[:match.end()], self.seen[match.end():]
        return text

    def type(self, text):
        os.write(self.master, text.encode())

    def end(self):
        """The exit code, after reading whatever still comes."""
        deadline = time.monotonic() + 60
        while self.process.poll() is None and time.monotonic() < deadline:
            if select.select([self.master], [], [], 0.05)[0]:
                try:
                    self.seen += os.read(self.master, 65536).decode("utf-8", "replace")
                except OSError:
                    pass
        return self.process.poll()

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.master)


class InATerminal(Case):
    def terminal(self, *arguments):
        terminal = Terminal(*arguments)
        self.addCleanup(terminal.close)
        return terminal

    def test_story(self):
        terminal = self.terminal("-n", 6, "--seed", 1)  # too few words for the story to end
        terminal.wait_for("begin> ")
        terminal.type("Once upon a time, a garçon named\n")
        text = terminal.wait_for("more> ")
        self.assertIn("Which experts worked", text)
        self.assertIn("CV", text)
        terminal.type("/temp 0\n")
        terminal.wait_for("temperature is 0")
        terminal.type("/more\n")
        more = terminal.wait_for("\\(/experts\\)")
        self.assertNotIn("Which experts worked", more)
        terminal.type("/experts\n")
        terminal.wait_for("Which experts worked")
        terminal.type("/undo\n")
        terminal.wait_for("Once upon a time, a garçon named")
        terminal.type("/undo\n/undo\n")
        terminal.wait_for("nothing to take back")
        terminal.type("/help\n")
        terminal.wait_for("/quit")
        terminal.type("/quit\n")
        self.assertEqual(terminal.end(), 0)

    def test_chat_survives_ctrl_c(self):
        terminal = self.terminal("chat", self.model(), "-n", 900, "--temp", 1)
        terminal.wait_for("> ")
        terminal.type("Hello\n")
        terminal.wait_for("Hello\r\n.")
        time.sleep(0.3)
        terminal.type("\x03")
        terminal.wait_for(r"stopped\)(?s:.*)> ")
        terminal.type("And now?\n")
        terminal.wait_for("now\\?\r\n.")
        terminal.type("\x03")
        terminal.wait_for(r"stopped\)(?s:.*)> ")
        terminal.type("\x03")
        terminal.wait_for("(?s)again.*> ")
        terminal.type("/undo\n")
        terminal.wait_for("(?s)forgotten.*> ")
        terminal.type("\x03")
        terminal.wait_for("(?s)again.*> ")
        terminal.type("\x03")
        self.assertEqual(terminal.end(), 130)

    def test_run_shows_the_prompt_and_ctrl_c_ends_it(self):
        terminal = self.terminal("run", "-p", "Once upon a time", "-n", 0, "--ignore-eos", "--context", 1024)
        terminal.wait_for("Once upon a time")
        time.sleep(0.2)
        terminal.type("\x03")
        self.assertEqual(terminal.end(), 130)


class Interrupted(Case):
    def test_at_any_time(self):
        """Ctrl-C from the first millisecond on: exit code 130, no half result, and the next run is well."""
        for delay in (0, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.5):
            with self.subTest(delay=delay):
                stats = self.path("s.json")
                process = start("run", "-p", "word " * 500, "-n", 0, "--ignore-eos", "--stats", stats)
                time.sleep(delay)
                process.send_signal(signal.SIGINT)
                out, err = process.communicate(timeout=TIMEOUT)
                if process.returncode == 0:
                    self.skipTest(f"the run was over after {delay} s")
                # Before main has begun, the system's own handling of Ctrl-C is in force.
                self.assertIn(process.returncode, (130, -signal.SIGINT), err)
                if process.returncode == 130:
                    self.assertEqual(err.decode().count("interrupted"), 1, err)
                    self.assertNotIn(b"error: ", err)
                for name in os.listdir(self.folder):
                    self.assertEqual(name, "s.json")
                    with open(stats) as file:
                        self.assertEqual(json.load(file)["end"], "interrupted")
                    os.unlink(stats)
        self.works(run("run", "-p", "Once", "-n", 4))

    def test_logits_leave_no_file(self):
        for delay in (0.1, 0.3, 0.6, 0.9):
            process = start("logits", "--tokens", ",".join(["5"] * 1000), "-o", self.path("x"))
            time.sleep(delay)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=TIMEOUT)
            self.assertIn(process.returncode, (0, 130, -signal.SIGINT), err)
            self.assertIn(os.listdir(self.folder), ([], ["x"]))
            if os.path.exists(self.path("x")):
                self.assertGreater(os.path.getsize(self.path("x")), 1000 * 4096 * 4)
                os.unlink(self.path("x"))


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    PROGRAM = os.path.abspath(sys.argv.pop(1))
    unittest.main(verbosity=2)
