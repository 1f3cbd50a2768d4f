#!/usr/bin/env python3
"""`fathom bench` as a person meets it: bench_test.py PROGRAM [unittest arguments].

One run of the smallest preset is measured, then looked at from all sides: as JSON against the published
schema, as a page in a real browser, compared with edited copies of itself. Needs chromium and the package
python3-jsonschema.
"""
import copy
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import jsonschema

PROGRAM = sys.argv.pop(1)
TINY = Path(__file__).resolve().parents[2] / "models/tiny"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
TIMEOUT = 400


def run(*arguments, **environment):
    return subprocess.run([PROGRAM, "bench", *map(str, arguments)], capture_output=True, text=True,
                          timeout=TIMEOUT, env=os.environ | environment)


def browse(page):
    """The page's elements once its script has run, and what its console says."""
    with tempfile.TemporaryDirectory() as profile:
        command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
                   f"--user-data-dir={profile}", "--virtual-time-budget=3000", "--dump-dom", page.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT)
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return re.sub(r"<script>.*</script>", "", done.stdout, flags=re.DOTALL), console


class Bench(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = Path(tempfile.mkdtemp(prefix="fathom-bench-"))
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        cls.result = run("--preset", "tiny", "--json", cls.folder / "run.json", "--html",
                         cls.folder / "run.html")
        assert cls.result.returncode == 0, cls.result.stdout + cls.result.stderr
        cls.report = json.loads((cls.folder / "run.json").read_text())
        cls.schema = json.loads(run("--schema").stdout)

    def write(self, name, report):
        path = self.folder / name
        path.write_text(json.dumps(report))
        return path

    def calm(self):
        """The report without what makes it unfit to be judged."""
        report = copy.deepcopy(self.report)
        report["flags"] = [flag for flag in report["flags"] if flag == "software device"]
        for row in report["model"]:
            rate = row["tokens_per_second"]
            rate["p10"] = rate["p90"] = rate["median"]
        return report

    def test_json_follows_the_schema(self):
        jsonschema.Draft202012Validator.check_schema(self.schema)
        validator = jsonschema.Draft202012Validator(self.schema)
        validator.validate(self.report)
        for path in ("kernels", "roofs", "model"):
            self.assertGreater(len(self.report[path]), 2, path)
        broken = copy.deepcopy(self.report)
        broken["kernels"][0]["cold"]["median"] = "fast"
        self.assertFalse(validator.is_valid(broken))
        broken = copy.deepcopy(self.report)
        broken["hostname"] = "x"
        self.assertFalse(validator.is_valid(broken))

    def test_nothing_names_the_machine_or_its_user(self):
        text = json.dumps(self.report) + (self.folder / "run.html").read_text()
        home, program = os.path.expanduser("~"), os.path.abspath(PROGRAM)
        for private in (socket.gethostname(), home, str(self.folder), program):
            self.assertFalse(len(private) > 3 and private in text, private)  # some are called "vm"

    def test_figures(self):
        for kernel in self.report["kernels"]:
            self.assertEqual(kernel["failure"], "", kernel)
            self.assertGreaterEqual(kernel["cold"]["n"], 10)
            self.assertLessEqual(kernel["percent"], 105, kernel)
            self.assertGreater(kernel["percent"], 0, kernel)
            self.assertLessEqual(kernel["cold"]["p10"], kernel["cold"]["median"])
        for roof in self.report["roofs"]:
            self.assertGreater(roof["last"], 0, roof)
        names = [row["name"] for row in self.report["model"]]
        self.assertEqual(names[0], "prefill 128")  # longer ones where the machine is quick enough
        self.assertIn("decode", names)
        self.assertIn("decode x 8", names)
        self.assertGreater(self.report["peak_bytes"], 0)

    def test_table_in_a_pipe_is_plain(self):
        self.assertNotIn("\x1b", self.result.stdout)
        self.assertNotIn("█", self.result.stdout)
        for word in ("roofs", "launches", "kernels", "model", "software device", "tiny (preset), q4_k"):
            self.assertIn(word, self.result.stdout)

    def test_page_in_a_browser(self):
        page, console = browse(self.folder / "run.html")
        self.assertEqual(console, [])
        for part in ("roofline", "kernels", "depth", "batch", "model", "roofs", "launches", "facts"):
            self.assertIn(f'<section id="{part}">', page)
        plotted = [k for k in self.report["kernels"] if k["flops"] > 0]
        in_roofline = page[page.index('id="roofline"'):page.index('id="kernels"')]
        self.assertEqual(in_roofline.count('class="point"'), len(plotted))
        self.assertEqual(in_roofline.count('class="roof"'), 1)
        self.assertEqual(page.count('class="bar"'), len(self.report["kernels"]))
        self.assertEqual(page.count('class="curve"'), 2)
        self.assertIn(self.report["device"]["name"], page)
        self.assertNotIn("NaN", page)
        broken = self.folder / "broken.html"
        text = (self.folder / "run.html").read_text()
        broken.write_text(text.replace("heading();", "heading(); nothing_there();"))
        self.assertNotEqual(browse(broken)[1], [], "an error in the page would be seen")

    def test_compare(self):
        base = self.write("base.json", self.calm())
        slower = self.calm()
        for row in slower["model"]:
            row["tokens_per_second"] = {key: value if key == "n" else 0.5 * value
                                        for key, value in row["tokens_per_second"].items()}
        slower = self.write("slower.json", slower)
        same = run("--compare", base, base)
        self.assertEqual((same.returncode, "no regression" in same.stdout), (0, True), same)
        worse = run("--compare", base, slower, "--html", self.folder / "compare.html")
        self.assertEqual(worse.returncode, 1, worse)
        self.assertEqual(worse.stdout.count("-50.0 % worse"), len(self.report["model"]))
        page, console = browse(self.folder / "compare.html")
        self.assertEqual(console, [])
        self.assertEqual(page.count('class="roof"'), 2)
        self.assertEqual(page.count('class="bar"'), 2 * len(self.report["kernels"]))
        noisy = self.calm()
        noisy["flags"].append("noisy: decode spreads by 30 %")
        unjudged = run("--compare", base, self.write("noisy.json", noisy))
        self.assertEqual(unjudged.returncode, 3, unjudged)
        self.assertIn("not judged: report 2 is noisy", unjudged.stdout)

    def test_compare_refuses(self):
        base, older = self.write("base.json", self.calm()), self.calm()
        older["method"]["version"] -= 1
        refused = run("--compare", base, self.write("older.json", older))
        self.assertEqual(refused.returncode, 1)
        self.assertIn("another version of the method", refused.stderr)
        self.assertIn("measure again", refused.stderr)
        other = self.folder / "other.json"
        other.write_text("[1, 2]")
        for wrong in ([base], [base, other], [base, self.folder / "none.json"]):
            refused = run("--compare", *wrong)
            self.assertEqual((refused.returncode, refused.stdout), (1, ""), refused)

    def test_markdown_of_a_part(self):
        done = run("--preset", "tiny", "--only", "overheads", "--markdown")
        self.assertEqual(done.returncode, 0, done)
        lines = done.stdout.splitlines()
        self.assertEqual(len(lines), 3)
        self.assertEqual(len({line.count("|") for line in lines}), 1)
        self.assertTrue(lines[2].startswith(f"| {self.report['device']['name']} |"), lines)

    def test_ctrl_c_keeps_what_is_done(self):
        path = self.folder / "interrupted.json"
        def unblock():
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
        command = [PROGRAM, "bench", "--preset", "tiny", "--only", "kernels", "--json", str(path)]
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, stdout=pipe, stderr=pipe, preexec_fn=unblock)
        out = b""
        while b"attn_norm" not in out:
            piece = os.read(process.stdout.fileno(), 1000)
            self.assertNotEqual(piece, b"", out)
            out += piece
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=TIMEOUT)
        self.assertEqual(process.returncode, 130, errors)
        self.assertIn(b"interrupted", rest)
        report = json.loads(path.read_text())
        jsonschema.Draft202012Validator(self.schema).validate(report)
        self.assertIn("interrupted", report["flags"])
        self.assertGreaterEqual(len(report["kernels"]), 2)

    def test_a_checkpoint(self):
        done = run(TINY, "--only", "kernels", "--json", "-")
        self.assertEqual(done.returncode, 0, done.stderr)
        report = json.loads(done.stdout)
        self.assertEqual(report["subject"]["source"], "checkpoint")
        self.assertIn("bf16", {kernel["format"] for kernel in report["kernels"]})
        self.assertNotIn(str(TINY.parent), done.stdout)

    def test_what_is_wrong(self):
        small = run("--preset", "v2-lite", "--only", "kernels", FATHOM_DEVICE_MEMORY="300000000")
        self.assertEqual(small.returncode, 1)
        self.assertIn("does not fit into memory", small.stderr)
        self.assertRegex(small.stderr, r"what would fit: .*--preset tiny")
        for code, word, arguments in ((1, "v3-slice", ["--preset", "no-such"]),
                                      (2, "not both", [TINY, "--preset", "tiny"]),
                                      (2, "for presets", [TINY, "--format", "q8_0"]),
                                      (2, "--format", ["--preset", "tiny", "--quantize", "q8_0"]),
                                      (2, "at least 10", ["--samples", 3]),
                                      (2, "", ["--only", "everything"]),
                                      (2, "", ["--routing", "odd"]),
                                      (2, "", ["--format", "q9"]),
                                      (1, "pipelines", ["--offline"]),
                                      (2, "no weights are read", ["--offline", TINY])):
            done = run(*arguments)
            self.assertEqual((done.returncode, done.stdout), (code, ""), done)
            self.assertIn(word, done.stderr)


if __name__ == "__main__":
    unittest.main()
