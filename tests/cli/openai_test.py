#!/usr/bin/env python3
"""`fathom serve` and a client that no one here wrote: the `openai` package of npm.

python3 openai_test.py PROGRAM FOLDER, where FOLDER keeps the package. Exit code 77: it could not be had.
"""
import os
import shutil
import subprocess
import sys
import tempfile

import serve_test

VERSION = "6.49.0"
HERE = os.path.dirname(os.path.abspath(__file__))


def install(folder):
    """The package in `folder`; false, and why, where it cannot be had."""
    os.makedirs(folder, exist_ok=True)
    shutil.copy(os.path.join(HERE, "openai_client.mjs"), folder)
    if os.path.exists(os.path.join(folder, "node_modules/openai")):
        return True
    if not shutil.which("npm"):
        print("SKIPPED: no npm here")
        return False
    command = ["npm", "install", "--no-audit", "--no-fund", "--prefix", folder, f"openai@{VERSION}"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    if result.returncode != 0:
        print("SKIPPED: npm cannot install openai:", result.stderr[-1000:])
    return result.returncode == 0


def main():
    serve_test.PROGRAM, folder = sys.argv[1], sys.argv[2]
    if not install(folder):
        return 77
    with tempfile.TemporaryDirectory() as model:
        serve_test.tiny_with_marks_of_v4(model)
        servers = [serve_test.Server(), serve_test.Server(model, "--chat-format", "deepseek-v4")]
        urls = [f"http://127.0.0.1:{server.port}" for server in servers]
        result = subprocess.run(["node", "openai_client.mjs", *urls], cwd=folder, check=False, timeout=400)
        codes = [server.end() for server in servers]
    return result.returncode or max(codes)


if __name__ == "__main__":
    sys.exit(main())
