#!/usr/bin/env python3
"""Recordings, as a person makes and reads them: python3 trace_test.py PROGRAM [unittest arguments]."""
import json
import os
import sys
import unittest

import cli_test
from cli_test import TINY, Case, run


class Trace(Case):
    def test_a_recording_tells_what_a_run_did(self):
        path = self.path("once.ftrace")
        said = self.works(run("run", "-p", "Once upon a time", "-n", "12", "--seed", "3", "--trace", path))
        lines = [json.loads(line) for line in self.works(run("trace", path, "--json")).out.splitlines()]
        head, tokens = lines[0], lines[1:]
        self.assertEqual(head["incomplete"], "")
        generated = [t for t in tokens if "next" in t]
        self.assertEqual(len(generated), 12)
        self.assertIn("".join(t["text"] for t in tokens[-11:]), said.out)
        for before, after in zip(tokens, tokens[1:]):
            self.assertEqual(before.get("next", after["token"]), after["token"])
        for t in generated:
            self.assertEqual(len(t["candidates"]), 10)
            self.assertTrue(all(a[1] >= b[1] for a, b in zip(t["candidates"], t["candidates"][1:])))
        layers, active = head["moe_layers"], head["n_active"]
        rows = self.works(run("trace", path, "--csv")).out.splitlines()
        self.assertEqual(len(rows), 1 + len(tokens) * len(layers) * active)
        last = rows[-1].split(",")
        self.assertEqual(int(last[-5]), tokens[-1]["experts"][-1])
        self.assertAlmostEqual(float(last[-4]), tokens[-1]["weights"][-1], places=6)
        self.assertIn(f"{len(tokens)} records, after 12 of them", self.works(run("trace", path)).out)
        with open(path, "rb") as whole, open(self.path("cut.ftrace"), "wb") as cut:
            cut.write(whole.read()[:-900])
        self.assertIn("not whole", self.works(run("trace", self.path("cut.ftrace"))).err)
        off = self.works(run("run", "-p", "Once upon a time", "-n", "12", "--seed", "3", "--trace", "off"))
        self.assertEqual(off.out, said.out)

    def test_two_recordings_are_compared(self):
        for name, seed in (("a", 3), ("b", 3), ("c", 4)):
            self.works(run("run", "-p", "Once", "-n", "16", "--seed", seed, "--temp", "1.5",
                                    "--trace", self.path(name)))
        same = self.works(run("trace", self.path("a"), "--against", self.path("b")))
        self.assertIn("choices that differ: 0 of", same.out)
        self.assertIn("weights at most 0 apart", same.out)
        other = run("trace", self.path("a"), "--against", self.path("c"))
        self.assertEqual(other.code, 1)
        self.assertIn("the first token that differs", other.out)

    def test_what_is_no_recording_is_an_error(self):
        self.fails(run("trace", os.path.join(TINY, "config.json")), "not a recording")
        self.fails(run("run", "-p", "x", "-n", "1", "--trace", "/nonexistent/x.ftrace"), "cannot create")


if __name__ == "__main__":
    cli_test.PROGRAM = os.path.abspath(sys.argv.pop(1))
    unittest.main(verbosity=2)
