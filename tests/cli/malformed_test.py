#!/usr/bin/env python3
"""`fathom inspect` over the shared collection of malformed files: malformed_test.py PROGRAM COLLECTION.

Every file gives its verdict: what is to be accepted exits with 0, what is to be rejected with 1 and one error
on stderr, and what is left to the reader with the one that ACCEPTED says. One CPU second and 640 MiB of
address space are the limits, except in a build with sanitizers, which needs more of both.
"""
import json
import os
import resource
import subprocess
import sys

ACCEPTED = {  # of those that are left to the reader; the others are rejected
    "safetensors/x_path_name.safetensors",  # a name is only a name
    "safetensors/x_zero_times_huge.safetensors",  # as in the reference implementation
    "index/ix_total_size_string.index.json",  # nobody reads it
    "gguf/t_name_64.gguf",  # the format allows 64 bytes
    "gguf/d_last_unpadded.gguf",  # all of the tensor is there
    "gguf/d_trailing_bytes.gguf",  # nobody reads them
    "tokenizer/tj_id_huge_sparse.tokenizer.json",  # takes no more memory than another
}


def limits():
    resource.setrlimit(resource.RLIMIT_CPU, (1, 2))
    resource.setrlimit(resource.RLIMIT_AS, (640 << 20, 640 << 20))


def judge(program, path, limited):
    """(accepted, "") or (rejected, message); a message alone for anything else."""
    done = subprocess.run([program, "inspect", path], stdin=subprocess.DEVNULL, capture_output=True,
                          timeout=120, preexec_fn=limits if limited else None)
    error = done.stderr.decode("utf-8", "replace")
    if done.returncode == 0 and done.stdout and not error:
        return True, ""
    if done.returncode == 1 and error.startswith("error: ") and "a bug in Fathom" not in error:
        return False, error
    return None, f"exit code {done.returncode}: {error}"


def main():
    program, collection = sys.argv[1:]
    if not os.path.isdir(collection):
        print(f"SKIPPED: there is no {collection}; this test proves nothing here")
        return 77
    with open(program, "rb") as file:
        limited = b"__asan_init" not in file.read()
    with open(os.path.join(collection, "manifest.json"), encoding="utf-8") as file:
        entries = json.load(file)
    failures = counts = 0
    for entry in entries:
        name, verdict = entry["file"], entry["verdict"]
        accepted, message = judge(program, os.path.join(collection, name), limited)
        wanted = name in ACCEPTED if verdict == "policy" else verdict == "accept"
        counts += 1
        if accepted is None or accepted != wanted or "out of memory" in message:
            failures += 1
            print(f"{name} ({verdict}: {entry['why']}): {'accepted' if accepted else message}")
    within = "within 1 CPU second and 640 MiB" if limited else "without limits"
    print(f"{counts} files {within}, {failures} with another verdict")
    return 1 if failures or not counts else 0


if __name__ == "__main__":
    sys.exit(main())
