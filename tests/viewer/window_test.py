#!/usr/bin/env python3
"""The viewer in a window, as a person sees it: python3 window_test.py PROGRAM [unittest arguments].

Under Xvfb with a software OpenGL: a recording, and the embedded model writing. Holds that the pictures show
heat maps, text and both themes, and that a machine without a display gets an error. Standard library only.
"""
import json
import os
import signal
import struct
import subprocess
import sys
import tempfile
import time
import unittest
import zlib

PROGRAM = None
NO_DISPLAY = {"DISPLAY": "", "WAYLAND_DISPLAY": ""}


def pixels(path):
    """Width, height and rows of RGBA bytes of a PNG with 8 bits a channel."""
    with open(path, "rb") as file:
        data = file.read()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    at, packed = 8, b""
    while at < len(data):
        size, kind = struct.unpack(">I4s", data[at:at + 8])
        body = data[at + 8:at + 8 + size]
        if kind == b"IHDR":
            width, height, depth, colour = struct.unpack(">IIBB", body[:10])
            assert (depth, colour) == (8, 6)
        packed += body if kind == b"IDAT" else b""
        at += 12 + size
    raw, stride, rows, last = zlib.decompress(packed), 4 * width, [], bytes(4 * width)
    for y in range(height):
        form, line = raw[y * (stride + 1)], bytearray(raw[y * (stride + 1) + 1:(y + 1) * (stride + 1)])
        for i in range(stride):
            left, up = line[i - 4] if i >= 4 else 0, last[i]
            corner = last[i - 4] if i >= 4 else 0
            estimate = left + up - corner
            paeth = min((abs(estimate - left), 0, left), (abs(estimate - up), 1, up),
                        (abs(estimate - corner), 2, corner))[2]
            line[i] = (line[i] + (0, left, up, (left + up) // 2, paeth)[form]) & 255
        rows.append(bytes(line))
        last = rows[-1]
    return width, height, rows


def colours(rows, left=0.0, top=0.0, right=1.0, bottom=1.0):
    """How often each colour is in a part of the picture."""
    counts = {}
    for row in rows[int(top * len(rows)):int(bottom * len(rows))]:
        width = len(row) // 4
        for x in range(int(left * width), int(right * width)):
            colour = row[4 * x:4 * x + 3]
            counts[colour] = counts.get(colour, 0) + 1
    return counts


def is_viridis(colour):
    """Whether a colour is near one of the map's: from dark violet over teal to yellow."""
    anchors = ((0x44, 0x01, 0x54), (0x47, 0x2D, 0x7B), (0x3B, 0x52, 0x8B), (0x2C, 0x72, 0x8E),
               (0x21, 0x91, 0x8C), (0x28, 0xAE, 0x80), (0x5E, 0xC9, 0x62), (0xAD, 0xDC, 0x30),
               (0xFD, 0xE7, 0x25))
    for a, b in zip(anchors, anchors[1:]):
        for i in range(9):
            mixed = [x + (y - x) * i / 8 for x, y in zip(a, b)]
            if all(abs(x - y) < 6 for x, y in zip(mixed, colour)):
                return True
    return False


class Person:
    """Somebody at a screen of their own with the viewer on it, and what App::state() says of it."""

    def __init__(self, test, *arguments):
        self.test, self.file = test, os.path.join(test.folder, "state.json")
        if os.path.exists(self.file):
            os.unlink(self.file)  # of a window before
        server = subprocess.Popen(["Xvfb", "-displayfd", "1", "-screen", "0", "1280x800x24"],
                                  stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        test.addCleanup(server.wait)
        test.addCleanup(server.terminate)
        with server.stdout as told:
            display = ":" + told.readline().decode().strip()
        self.env = {**os.environ, "DISPLAY": display, "WAYLAND_DISPLAY": "", "XDG_CONFIG_HOME": test.folder}
        self.viewer = subprocess.Popen([PROGRAM, "view", *arguments, "--scale", "1", "--state", self.file],
                                       env=self.env, cwd=test.folder)
        test.addCleanup(self.viewer.wait)
        test.addCleanup(self.viewer.terminate)
        self.until(lambda s: True, "the window")
        self.do("search", "--name", "Fathom", "windowfocus")  # there is no window manager to do it

    def until(self, is_so, what):
        state = None
        for _ in range(600):
            if os.path.exists(self.file):
                with open(self.file) as file:
                    state = json.load(file)
                if is_so(state):
                    return state
            self.test.assertIsNone(self.viewer.poll(), "the viewer has ended")
            time.sleep(0.1)
        self.test.fail(f"waited in vain for {what}: {state}")

    def do(self, *words):
        subprocess.run(["xdotool", *map(str, words)], env=self.env, check=True, timeout=30)
        time.sleep(0.2)

    def press(self, *keys):  # and hold them for a moment, as fingers do
        for key in keys:
            self.do("keydown", key)
        for key in reversed(keys):
            self.do("keyup", key)

    def move(self, x, y):
        self.do("mousemove", int(x), int(y))

    def hover_cell(self, state, column, row):
        """The token under a cell of the grid, and what its tooltip tells of it by label."""
        x0, y0, x1, y1, width, height = state["grid"]
        self.move(x0 + (x1 - x0) * (column + 0.5) / width, y0 + (y1 - y0) * (row + 0.5) / height)
        position = int(state["grid_begin"]) + column
        state = self.until(lambda s: s["hovered"] == position, "the cell under the mouse")
        self.test.assertIn(f"{position} \"", state["told"])
        return position, dict(line.split(" ", 1) for line in state["told"].splitlines() if " " in line)


    def at_cell(self, area, column, row):
        """Puts the mouse on a cell of a map, and returns what the tooltip tells by label."""
        x0, y0, x1, y1, width, height = area
        self.move(x0 + (x1 - x0) * (column + 0.5) / width, y0 + (y1 - y0) * (row + 0.5) / height)
        state = self.until(lambda s: s["told"], "a tooltip")
        return dict(line.split(" ", 1) for line in state["told"].splitlines() if " " in line), state["told"]


class Window(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="fathom-view-")
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def run_program(self, *arguments, display=True, env=None):
        command = [PROGRAM, *arguments]
        if display:
            command = ["xvfb-run", "-a", "-s", "-screen 0 1280x800x24", *command]
        return subprocess.run(command, capture_output=True, text=True, timeout=120,
                              env={**os.environ, **(env or {})}, check=False)

    def picture(self, *arguments):
        path = os.path.join(self.folder, "picture.png")
        result = self.run_program("view", *arguments, "--scale", "1", "--screenshot", path)
        self.assertEqual(result.returncode, 0, result.stderr)
        width, height, rows = pixels(path)
        self.assertEqual((width, height), (1280, 800))
        return rows

    def recording(self, name="once.ftrace", seed=1):
        path = os.path.join(self.folder, name)
        result = self.run_program("run", "-p", "Once upon a time", "-n", "70", "--seed", str(seed), "--trace",
                                  path, "--watch", "1,3", display=False)
        self.assertEqual(result.returncode, 0, result.stderr)
        return path

    def test_a_recording_in_both_themes(self):
        path = self.recording()
        dark, light = self.picture(path), self.picture(path, "--light")
        for rows in (dark, light):
            grid = colours(rows, 0.46, 0.08, 0.98, 0.36)
            mapped = sum(n for colour, n in grid.items() if is_viridis(colour))
            self.assertGreater(mapped, 0.8 * sum(grid.values()))
            self.assertGreater(len(grid), 40)  # weights differ
            self.assertGreater(len(colours(rows, 0.01, 0.08, 0.41, 0.2)), 100)  # text on colours
        brightness = [sum(sum(c) * n for c, n in colours(rows).items()) for rows in (dark, light)]
        self.assertGreater(brightness[1], 2 * brightness[0])

    def test_a_model_that_writes(self):
        rows = self.picture("-p", "One day")
        grid = colours(rows, 0.46, 0.1, 0.98, 0.4)
        self.assertGreater(sum(n for colour, n in grid.items() if is_viridis(colour)), 50000)

    def test_driven_as_a_person_would(self):
        """Types a prompt, watches it, hovers and clicks a cell, goes by keys, branches."""
        person = Person(self)
        person.until(lambda s: s["preset"] == 0, "the window")
        person.move(200, 710)
        person.do("click", 1)
        person.do("type", "--delay", 30, "A little cat")
        person.press("ctrl", "Return")
        person.until(lambda s: s["tokens"] > 20, "tokens")
        state = person.until(lambda s: not s["busy"], "the end of the text")
        session = state["session"]
        position, told = person.hover_cell(state, 5, 9)
        person.do("click", 1)
        state = person.until(lambda s: s["token"] == position, "the selection")
        self.assertEqual((state["layer"], state["expert"]), (9 // 4, int(told["expert"])))
        person.press("Right")
        person.until(lambda s: s["token"] == position + 1, "the next token")
        person.press("Down")
        person.until(lambda s: s["layer"] == 9 // 4 + 1, "the next layer")
        person.press("alt", "Left")
        person.until(lambda s: s["layer"] == 9 // 4, "the selection before")
        x0, _, x1, y1, _, _ = state["grid"]
        person.move(x0 + 0.1 * (x1 - x0), y1 + 16)  # scrub: the bar below the grid
        person.do("click", 1)
        person.until(lambda s: s["grid_begin"] < 0.2 * s["tokens"], "the beginning in sight")
        person.press("2")
        person.until(lambda s: s["preset"] == 1, "another preset")
        person.press("1")
        person.until(lambda s: s["preset"] == 0, "the first preset")
        person.move(300, 570)  # an alternative of the selected token: a branch from there
        person.do("click", 1)
        state = person.until(lambda s: s["session"] != session and s["tokens"] > position + 1, "the branch")
        self.assertEqual(state["parent"], session)
        person.press("space")
        person.until(lambda s: s["paused"], "the pause")

    def test_a_window_comes_back_as_it_was(self):
        path = self.recording()
        person = Person(self, path)
        person.until(lambda s: s["tokens"] > 20, "the recording")
        person.press("t")  # light
        person.press("ctrl", "q")
        self.assertEqual(person.viewer.wait(30), 0)
        with open(os.path.join(self.folder, "fathom", "viewer.json")) as file:
            settings = json.load(file)
        self.assertIs(settings["dark"], False)
        again = Person(self, path)
        again.until(lambda s: s["tokens"] > 20, "the recording")

    def test_tooltips_tell_what_the_recording_holds(self):
        path = self.recording()
        result = self.run_program("trace", path, "--json", display=False)
        head, *tokens = map(json.loads, result.stdout.splitlines())
        person = Person(self, path)
        state = person.until(lambda s: s["tokens"] > 20 and s["grid"][4] > 0, "the recording")
        active = head["n_active"]
        for column, row in ((3, 0), (20, 13), (60, len(tokens[0]["experts"]) - 1)):
            position, told = person.hover_cell(state, column, row)
            token, layer = tokens[position], row // active
            self.assertEqual(told["layer"], str(head["moe_layers"][layer]))
            self.assertEqual(told["expert"], str(token["experts"][row]))
            weight, choice = f"{token['weights'][row]:.4f}", row % active + 1
            self.assertEqual(told["weight"], f"{weight}, choice {choice} of {active}")
            self.assertAlmostEqual(float(told["margin"]), token["margin"][layer], delta=1e-3)

    def test_attention_of_a_recording(self):
        """The heads' maps tell the file's weights; a click chooses head and token; the text lights up."""
        path = self.recording()
        result = self.run_program("trace", path, "--json", display=False)
        _, *tokens = map(json.loads, result.stdout.splitlines())
        person = Person(self, path, "--preset", "attend")
        state = person.until(lambda s: s["tokens"] > 20 and s["heads"], "the maps of the heads")
        first = len(tokens) - state["heads"][5]  # the map has the last rows
        for column, row in ((0, 20), (9, 40), (3, 50)):
            told, lines = person.at_cell(state["heads"], column, row)
            rows = next(a for a in tokens[first + row]["attention"] if a["layer"] == 3)
            weight = rows["weights"][first + column]  # of head 0, a bin for each position
            self.assertEqual(rows["pool"], 1)
            self.assertIn(f"head {rows['first_head']}, layer 3", lines)
            self.assertEqual(told["weight"], f"{weight:.4f}")
            self.assertEqual(person.until(lambda s: s["lit"], "a lit token")["lit"], [first + column] * 2)
        person.do("click", 1)
        state = person.until(lambda s: s["head"] == 0, "the head")
        self.assertEqual((state["token"], state["block"]), (first + 50, 3))
        person.press("alt", "Left")
        person.until(lambda s: s["head"] is None, "the selection before")

    def test_attention_of_a_model_that_writes(self):
        """The first look reads the text once more, with a layer watched; a click watches another."""
        person = Person(self, "-p", "Once upon a time")
        state = person.until(lambda s: s["tokens"] > 20 and not s["busy"], "a text")
        session, size = state["session"], state["tokens"]
        person.move(900, 300)
        person.press("3")
        state = person.until(lambda s: s["preset"] == 2 and s["heads"] and s["session"] != session,
                             "the maps")
        self.assertIn(state["tokens"], (size - 1, size))  # the last token may not have gone through the model
        block = state["block"]
        told, _ = person.at_cell(state["heads"], 0, 0)
        self.assertIn("weight", told)
        person.move(603, 98)  # layer 0 of the strip
        person.do("click", 1)
        state = person.until(lambda s: s["block"] == 0 and s["session"] not in (session, state["session"]),
                             "another layer")
        self.assertNotEqual(block, 0)

    def test_every_launch_is_measured(self):
        """Time, of a live model: every launch of a step alone, as a table of as many rows as a token has."""
        person = Person(self, "-p", "Once upon a time", "--preset", "time")
        before = person.until(lambda s: s["tokens"] > 20 and not s["busy"], "a text")
        x, y = person.until(lambda s: s["launch_button"], "the button")["launch_button"]
        person.move(x, y)
        person.do("click", 1)
        state = person.until(lambda s: s["launches"] > 0, "the measurement")
        self.assertGreater(state["launches"], 40)
        self.assertEqual((state["session"], state["sessions"]), (before["session"], before["sessions"]))

    def test_play_bookmarks_search_and_a_picture(self):
        path = self.recording()
        person = Person(self, path)
        state = person.until(lambda s: s["tokens"] > 20, "the recording")
        all_tokens = state["tokens"]
        person.press("Right")
        person.until(lambda s: s["token"] == 0, "the first token")
        person.press("b")
        person.until(lambda s: s["bookmarks"] == [0], "a bookmark")
        person.press("Right")
        person.press("comma")
        person.until(lambda s: s["token"] == 0, "the bookmark")
        person.press("p")
        person.until(lambda s: s["paused"] and s["tokens"] < all_tokens, "the view that plays")
        person.until(lambda s: not s["paused"] and s["tokens"] == all_tokens, "its end")
        person.press("ctrl", "f")
        person.until(lambda s: s["palette"], "the palette")
        person.do("type", "--delay", 30, "time")
        person.press("Return")
        state = person.until(lambda s: not s["palette"], "what was found")
        self.assertEqual(state["token"], 4)  # <begin> Once upon a time
        person.press("ctrl", "p")
        person.do("type", "--delay", 30, "picture")
        person.press("Return")
        state = person.until(lambda s: s["notice"], "the picture")
        self.assertEqual(state["notice"], "saved fathom-window-1.png")
        width, height, rows = pixels(os.path.join(self.folder, "fathom-window-1.png"))
        self.assertEqual((width, height), (1280, 800))
        grid = colours(rows, 0.46, 0.12, 0.98, 0.3)
        self.assertGreater(sum(n for colour, n in grid.items() if is_viridis(colour)), 50000)

    def test_two_recordings_side_by_side(self):
        one, two = self.recording(), self.recording("two.ftrace", 2)
        person = Person(self, one, two)
        state = person.until(lambda s: s["tokens"] > 20 and s["other"] is not None, "both recordings")
        self.assertEqual((state["preset"], state["sessions"]), (5, 2))
        self.assertNotEqual(state["session"], state["other"])
        result = self.run_program("view", one, __file__, display=False)
        self.assertIn("not a recording", result.stderr)
        result = self.run_program("view", one, "--watch", "1", display=False)
        self.assertEqual(result.returncode, 2)

    def test_a_viewer_that_hangs_does_not_slow_the_engine(self):
        """A window stopped in its tracks (SIGSTOP) over a file that is still written."""
        path = os.path.join(self.folder, "live.ftrace")
        command = [PROGRAM, "run", "-p", "Once upon a time", "-n", "300", "--seed", "1", "--ignore-eos"]
        began = time.monotonic()
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        alone = time.monotonic() - began
        person = Person(self, self.recording())
        person.until(lambda s: s["tokens"] > 20, "a window")
        writer = subprocess.Popen([*command, "--trace", path], stdout=subprocess.DEVNULL,
                                  stderr=subprocess.DEVNULL)
        self.addCleanup(writer.wait)
        began = time.monotonic()
        while not os.path.exists(path) or os.path.getsize(path) < 4096:
            self.assertIsNone(writer.poll())
            time.sleep(0.02)
        reader = subprocess.Popen([PROGRAM, "view", path, "--scale", "1"], env=person.env)
        self.addCleanup(reader.wait)
        self.addCleanup(reader.kill)
        time.sleep(0.5)
        reader.send_signal(signal.SIGSTOP)
        person.viewer.send_signal(signal.SIGSTOP)
        self.assertEqual(writer.wait(120), 0)
        self.assertLess(time.monotonic() - began, 3 * alone + 5)  # it ended, about as soon as ever
        reader.send_signal(signal.SIGCONT)
        person.viewer.send_signal(signal.SIGCONT)
        result = self.run_program("trace", path, display=False)
        self.assertIn("after 300 of them", result.stdout)
        self.assertNotIn("lost", result.stdout)

    def test_an_engine_elsewhere(self):
        server = subprocess.Popen([PROGRAM, "serve", "--port", "0"], stdout=subprocess.PIPE, text=True)
        self.addCleanup(server.stdout.close)
        self.addCleanup(server.wait)
        self.addCleanup(server.terminate)
        url = server.stdout.readline().split(" at ")[1].split(" ")[0]
        one = Person(self, url, "-p", "Once upon a time")
        one.until(lambda s: s["state"] == "live" and s["tokens"] > 20, "what the engine writes")
        os.kill(server.pid, signal.SIGKILL)
        one.until(lambda s: s["state"].startswith("connecting to 127.0.0.1"), "that it is gone")

    def test_what_cannot_be_shown_is_an_error(self):
        result = self.run_program("view", self.recording(), display=False, env=NO_DISPLAY)
        self.assertEqual(result.returncode, 1)
        self.assertIn("cannot open a window", result.stderr)
        result = self.run_program("view", "/nonexistent.ftrace", display=False)
        self.assertEqual(result.returncode, 1)
        for url, reason in (("https://localhost", "TLS"), ("ftp://a", "no address"), ("http://:80",
                                                                                      "no address")):
            result = self.run_program("view", url, display=False)
            self.assertEqual(result.returncode, 1)
            self.assertIn(reason, result.stderr)


if __name__ == "__main__":
    PROGRAM = os.path.abspath(sys.argv.pop(1))
    unittest.main(verbosity=2)
