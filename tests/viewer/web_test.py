#!/usr/bin/env python3
"""The viewer in a browser, as a person meets it: python3 web_test.py PROGRAM [unittest arguments].

Headless Chromium on the page that `fathom serve` prints the address of. Holds that tokens stream, that what
is clicked is selected and stands in the address, that a page that is loaded again shows what was there, that
the engine may go and come back, that a dropped recording opens, that the words for screen readers are the
text, and that the console stays empty. FATHOM_PICTURES=FOLDER keeps what was seen.
"""
import base64
import gzip
import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import unittest

from browser import Browser

PROGRAM = None
FIRST_PAINT = 2000  # ms
PAGE_BYTES = 1_500_000  # of wasm and glue, packed


class Server:
    def __init__(self, *arguments, port=0):
        self.process = subprocess.Popen([PROGRAM, "serve", "--port", str(port), *arguments],
                                        stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        assert " at http://" in line, line + self.process.stderr.read()
        self.url = line.split(" at ")[1].split(" ")[0]
        self.port = int(self.url.split(":")[2].split("/")[0])

    def get(self, path):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        return answer, body

    def ask(self, path, body):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request("POST", path, json.dumps(body))
        answer = json.load(connection.getresponse())
        connection.close()
        return answer

    def end(self, how=signal.SIGTERM):
        self.process.send_signal(how)
        code = self.process.wait(30)
        self.process.stdout.close(), self.process.stderr.close()
        return code


class Page(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server()
        cls.browser = Browser()

    @classmethod
    def tearDownClass(cls):
        cls.browser.close()
        assert cls.server.end() == 0

    def picture(self, name):
        if folder := os.environ.get("FATHOM_PICTURES"):
            self.browser.screenshot(os.path.join(folder, f"{name}.png"))

    def said(self, key):
        return self.browser.run(f"return fathom.last.{key};")

    def mirror(self, what):
        return self.browser.run(f"return document.getElementById('mirror-{what}').textContent;")

    def emulate(self, command, **parameters):
        self.browser.ask("POST", "/goog/cdp/execute", {"cmd": "Emulation." + command, "params": parameters})

    def open(self, fragment=""):
        self.browser.go("about:blank")
        self.browser.go(self.server.url + fragment)
        self.browser.wait("a connection", "return fathom.last && fathom.last.connected;")

    def write(self, text):
        """Types a beginning and waits until the model has gone on from it."""
        before = self.said("app.sessions")
        self.browser.run("document.getElementById('prompt').value = '';")
        self.browser.click_element("prompt")
        self.browser.type(text)
        self.browser.type("\ue007")  # Enter
        self.browser.wait("a session more", f"return fathom.last.app.sessions > {before};")
        self.browser.wait("the end of the text", "return !fathom.last.busy;", 90)

    def test_1_paints_soon_and_is_small(self):
        self.open()
        paints = dict(self.browser.run(
            "return performance.getEntriesByType('paint').map(p => [p.name, p.startTime]);"))
        painted = paints["first-contentful-paint"]
        self.assertLess(painted, FIRST_PAINT)
        sizes = {}
        for name in ("fathom.js", "fathom.wasm"):
            answer, body = self.server.get("/" + name)
            self.assertEqual(answer.status, 200)
            self.assertEqual(answer.getheader("Content-Encoding"), "gzip")
            sizes[name] = len(body)
            self.assertTrue(gzip.decompress(body))
        self.assertLess(sum(sizes.values()), PAGE_BYTES)
        print(f"first paint {painted:.0f} ms; packed: {sizes}", file=sys.stderr)

    def test_2_streams_and_mirrors(self):
        self.open()
        self.browser.run("window.lengths = []; window.watch = setInterval(() => lengths.push("
                         "document.getElementById('mirror-text').textContent.length), 30);")
        self.write("Once upon a time")
        lengths = self.browser.run("clearInterval(watch); return lengths;")
        self.assertGreater(len(set(lengths)), 10, "the text comes token by token")
        text = self.mirror("text")
        self.assertIn("Once upon a time", text)
        tokens = self.said("app.tokens")
        self.assertGreater(tokens, 20)
        # the same seed and settings, asked of the API: the words are those of the model
        answer = self.server.ask("/v1/completions", {
            "prompt": "Once upon a time", "temperature": self.said("settings.temperature"), "seed": 1,
            "top_p": self.said("settings.top_p"), "max_tokens": self.said("settings.max_tokens")})
        begin = text.index("Once upon a time") + len("Once upon a time")
        self.assertTrue(text[begin:].startswith(answer["choices"][0]["text"][:40]), (text, answer))
        self.assertGreater(float(self.mirror("speed")), 0)
        self.picture("generate")

    def test_3_click_selects_and_the_address_has_it(self):
        self.open()
        if self.said("app.tokens") < 20:
            self.write("The cat")
        x1, y1, x2, y2, columns, rows = self.said("app.grid")
        ratio = self.browser.run("return window.devicePixelRatio;")
        self.browser.click((x1 + (x2 - x1) * 0.4) / ratio, (y1 + (y2 - y1) * 0.5) / ratio)
        self.browser.wait("a selected expert", "return fathom.last.app.expert !== null;")
        token, layer, expert = (self.said("app." + key) for key in ("token", "layer", "expert"))
        fragment = self.browser.run("return location.hash;")
        for part in (f"token={token}", f"layer={layer}", f"expert={expert}"):
            self.assertIn(part, fragment)
        words = self.mirror("selection")
        self.assertIn(f"expert {expert}", words)
        self.picture("expert")
        # another panel, by key
        self.browser.press("3")
        self.browser.wait("another panel", "return fathom.last.app.preset === 2;")
        self.assertIn("view=attend", self.browser.run("return location.hash;"))
        self.picture("attend")
        self.browser.press("1")
        # as the address says, in a page that is loaded again
        self.open("#view=route&" + fragment.split("&", 1)[1])
        self.browser.wait("what the address names", f"return fathom.last.app.token === {token};")
        self.assertEqual([self.said("app.layer"), self.said("app.expert"), self.said("app.preset")], [layer,
                                                                                                      expert,
                                                                                                      1])
        self.picture("route")

    def test_4_loading_again_shows_what_was_there(self):
        self.open()
        if self.said("app.tokens") < 20:
            self.write("A dog")
        text = self.said("text")
        self.open()
        self.browser.wait("the same text", f"return fathom.last.text.length >= {len(text)};")
        self.assertEqual(self.said("text"), text)

    def test_5_the_engine_goes_and_comes_back(self):
        self.open()
        port = self.server.port
        Page.server.end(signal.SIGKILL)
        self.browser.wait("that it is gone", "return !fathom.last.connected;")
        self.assertIn("connecting", self.mirror("state"))
        self.picture("gone")
        Page.server = Server(port=port)
        self.browser.wait("a connection", "return fathom.last.connected;", 30)
        self.assertEqual(self.said("app.tokens"), 0)
        self.browser.complaints()  # of connections that were refused: those are the browser's own words
        self.write("Once there was")
        self.assertIn("Once there was", self.said("text"))

    def test_6_a_dropped_recording_opens(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "a.ftrace")
            told = subprocess.run([PROGRAM, "run", "--prompt", "One day", "-n", "30", "--seed", "3",
                                   "--trace", path],
                                  check=True, capture_output=True, text=True).stdout
            with open(path, "rb") as file:
                data = file.read()
        self.open()
        drop = """const bytes = Uint8Array.from(atob(arguments[0]), c => c.charCodeAt(0)),
                        data = new DataTransfer();
                  data.items.add(new File([bytes], arguments[1]));
                  window.dispatchEvent(new DragEvent('drop', {dataTransfer: data, cancelable: true}));"""
        self.browser.run(drop, base64.b64encode(b"this is no recording").decode(), "b.ftrace")
        self.browser.wait("why it is refused", "return fathom.last.app.notice.includes('not a recording');")
        self.browser.run(drop, base64.b64encode(data).decode(), "a.ftrace")
        self.browser.wait("the recording", "return !fathom.last.live;")
        self.assertIn(told.strip()[:60], self.said("text"))
        self.assertGreaterEqual(self.said("app.tokens"), 30)
        self.assertTrue(self.browser.run("return document.getElementById('write').hidden;"))
        self.picture("recording")

    def test_7_small_and_sharp_screens(self):
        self.open()
        for width, height, ratio in ((400, 800, 2), (1280, 800, 1.5)):
            self.emulate("setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=ratio,
                         mobile=False)
            self.browser.wait("a canvas of the display's pixels",
                              f"return document.getElementById('canvas').width === {round(width * ratio)};")
            time.sleep(0.3)
            self.picture(f"screen-{width}x{height}")
        self.emulate("clearDeviceMetricsOverride")

    def test_7_the_wheel_and_two_fingers_zoom(self):
        self.open()
        if self.said("app.tokens") < 70:
            self.write("Once upon a time")
        x1, y1, x2, y2, columns, _ = self.said("app.grid")
        x, y = (x1 + x2) / 2, (y1 + y2) / 2
        self.browser.wheel(x, y, 200)
        self.browser.wait("more tokens in sight", f"return fathom.last.app.grid[4] > {columns};")
        self.browser.wheel(x, y, -400)
        self.browser.wait("fewer tokens in sight", f"return fathom.last.app.grid[4] < {columns};")
        columns = self.said("app.grid[4]")

        def touch(kind, *apart):
            points = [{"x": x - apart[0], "y": y}, {"x": x + apart[0], "y": y}] if apart else []
            self.browser.ask("POST", "/goog/cdp/execute", {
                "cmd": "Input.dispatchTouchEvent", "params": {"type": kind, "touchPoints": points}})
            time.sleep(0.1)

        touch("touchStart", 30)
        for apart in range(40, 140, 20):
            touch("touchMove", apart)
        touch("touchEnd")
        self.browser.wait("fewer tokens in sight", f"return fathom.last.app.grid[4] < {columns};")

    def test_8_a_key_is_asked_for(self):
        server = Server("--api-key", "secret")
        try:
            self.assertTrue(server.url.endswith("/#key=secret"))
            self.browser.go("about:blank")
            self.browser.go(server.url)
            self.browser.wait("a connection", "return fathom.last && fathom.last.connected;")
            self.assertIn("key=secret", self.browser.run("return location.hash;"))
            self.browser.go("about:blank")
            self.browser.go(server.url.split("#")[0])
            time.sleep(1)
            self.assertFalse(self.browser.run("return Boolean(fathom.last && fathom.last.connected);"))
            self.browser.complaints()  # the refusal
        finally:
            self.assertEqual(server.end(), 0)

    def tearDown(self):
        complaints = self.browser.complaints()
        self.assertEqual(complaints, [], "the console is not empty")


if __name__ == "__main__":
    PROGRAM = sys.argv.pop(1)
    unittest.main(verbosity=2)
