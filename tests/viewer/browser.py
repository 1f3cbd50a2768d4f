"""Headless Chromium by WebDriver: as much as the tests of the viewer's page need, over chromedriver."""
import base64
import json
import re
import shutil
import subprocess
import time
import urllib.error
import urllib.request


class Browser:
    """One window with WebGL 2 in software. Keys and clicks are the browser's own, not made-up events."""

    def __init__(self, width=1280, height=800):
        driver = shutil.which("chromedriver") or "/usr/bin/chromedriver"
        self.process = subprocess.Popen([driver, "--port=0"], stdout=subprocess.PIPE,
                                        stderr=subprocess.DEVNULL,
                                        text=True)
        port = None
        for line in self.process.stdout:
            if found := re.search(r"started successfully on port (\d+)", line):
                port = int(found[1])
                break
        if port is None:
            raise RuntimeError("chromedriver did not start")
        self.base = f"http://127.0.0.1:{port}/session"
        options = {"args": ["--headless=new", "--no-sandbox", "--enable-unsafe-swiftshader",
                            "--use-angle=swiftshader",
                            "--disable-dev-shm-usage", f"--window-size={width},{height}"],
                   "binary": shutil.which("chromium") or "chromium"}
        made = self.ask("POST", "", {"capabilities": {"alwaysMatch": {
            "browserName": "chrome", "goog:chromeOptions": options,
            "goog:loggingPrefs": {"browser": "ALL"}}}})
        self.base += "/" + made["sessionId"]

    def ask(self, method, path, body=None):
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(self.base + path, data, {"Content-Type": "application/json"},
                                         method=method)
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise RuntimeError(error.read().decode()[:500]) from None

    def close(self):
        try:
            self.ask("DELETE", "")
        finally:
            self.process.terminate()
            self.process.wait()
            self.process.stdout.close()

    def go(self, url):
        self.ask("POST", "/url", {"url": url})

    def run(self, script, *arguments):
        return self.ask("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def type(self, text):
        keys = [{"type": kind, "value": c} for c in text for kind in ("keyDown", "keyUp")]
        self.ask("POST", "/actions", {"actions": [{"type": "key", "id": "keys", "actions": keys}]})

    def press(self, key):
        """A key as a hand presses it: it stays down for a while, which the viewer's polls then see."""
        self.ask("POST", "/actions", {"actions": [{"type": "key", "id": "keys", "actions": [
            {"type": "keyDown", "value": key}, {"type": "pause", "duration": 200}, {"type": "keyUp",
                                                                                    "value": key}]}]})

    def click(self, x, y):
        self.ask("POST", "/actions", {"actions": [{"type": "pointer", "id": "mouse", "actions": [
            {"type": "pointerMove", "x": round(x), "y": round(y), "duration": 50}, {"type": "pause",
                                                                                    "duration": 150},
            {"type": "pointerDown", "button": 0}, {"type": "pause", "duration": 150},
            {"type": "pointerUp", "button": 0}]}]})

    def wheel(self, x, y, down):
        self.ask("POST", "/actions", {"actions": [{"type": "wheel", "id": "wheel", "actions": [
            {"type": "scroll", "x": round(x), "y": round(y), "deltaX": 0, "deltaY": down,
             "duration": 100}]}]})

    def click_element(self, name):
        x, y = self.run("const r = document.getElementById(arguments[0]).getBoundingClientRect();"
                        "return [r.x + r.width / 2, r.y + r.height / 2];", name)
        self.click(x, y)

    def screenshot(self, path):
        with open(path, "wb") as file:
            file.write(base64.b64decode(self.ask("GET", "/screenshot")))

    def complaints(self):
        """What the console has said since the last call that is worse than information."""
        entries = self.ask("POST", "/se/log", {"type": "browser"})
        return [f"{entry['level']}: {entry['message']}" for entry in entries
                if entry["level"] in ("SEVERE", "WARNING")]

    def wait(self, what, script, seconds=20):
        """Until `script` gives something that is true, which is returned."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if value := self.run(script):
                return value
            time.sleep(0.05)
        says = str(self.run("return fathom.last;"))[:2000]
        raise AssertionError(f"not within {seconds} s: {what}; the page says {says}")
