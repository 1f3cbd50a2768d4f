#!/usr/bin/env python3
"""The viewer in a window, as a person sees it: python3 window_test.py PROGRAM [unittest arguments].

Under Xvfb with a software OpenGL: a recording, and the embedded model writing. Holds that the pictures show
heat maps, text and both themes, and that a machine without a display gets an error. Standard library only.
"""
import os
import struct
import subprocess
import sys
import tempfile
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

    def recording(self):
        path = os.path.join(self.folder, "once.ftrace")
        result = self.run_program("run", "-p", "Once upon a time", "-n", "70", "--seed", "1", "--trace", path,
                                  display=False)
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

    def test_what_cannot_be_shown_is_an_error(self):
        result = self.run_program("view", self.recording(), display=False, env=NO_DISPLAY)
        self.assertEqual(result.returncode, 1)
        self.assertIn("cannot open a window", result.stderr)
        result = self.run_program("view", "/nonexistent.ftrace", display=False)
        self.assertEqual(result.returncode, 1)


if __name__ == "__main__":
    PROGRAM = os.path.abspath(sys.argv.pop(1))
    unittest.main(verbosity=2)
