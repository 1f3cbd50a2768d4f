#!/usr/bin/env python3
"""What a server gives many clients: python3 tests/measure_serve.py PROGRAM [SECONDS [MODEL]].

A benchmark, not a test. 1, 4, 16 and 32 clients stream completions for SECONDS (20) each, one after the other
without a pause; prints their rate together and the time to the first text. Every answer is compared with that
of the same request run alone: none may differ, but where beginnings that are known are not read again. Then
the server's memory over 1,000 requests.
"""
import http.client
import json
import os
import subprocess
import sys
import threading
import time


def stream(port, body):
    """The text of one streamed completion, its tokens, and the seconds to its first piece."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    began = time.monotonic()
    connection.request("POST", "/v1/completions",
                       json.dumps({**body, "stream": True, "stream_options": {"include_usage": True}}))
    response = connection.getresponse()
    assert response.status == 200, response.read()
    text, first, tokens = "", None, 0
    for line in response:
        if not line.startswith(b"data: {"):
            continue
        event = json.loads(line[6:])
        first = first or time.monotonic() - began
        text += "".join(choice["text"] for choice in event["choices"])
        tokens = event.get("usage", {}).get("completion_tokens", tokens)
    connection.close()
    return text, tokens, first


def body_of(i):
    return {"prompt": f"Once upon a time there was a little girl who had a dog. One day number {i % 8}",
            "max_tokens": 48, "temperature": 1, "seed": i % 8}


def resident(pid):
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def run(port, clients, seconds, alone, **more):
    totals, firsts, wrong = [], [], []
    end = time.monotonic() + seconds

    def client(i):
        while time.monotonic() < end:
            text, tokens, first = stream(port, {**body_of(i), **more})
            totals.append(tokens)
            firsts.append(first)
            if text != alone[i % 8]:
                wrong.append(i)
            i += clients

    began = time.monotonic()
    threads = [threading.Thread(target=client, args=(i,)) for i in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.monotonic() - began
    firsts.sort()
    print(f"{clients:>3} clients: {sum(totals) / took:7.1f} tokens/s together, {len(totals)} answers, "
          f"first text after {firsts[len(firsts) // 2]:.2f} s in the middle, {firsts[-1]:.2f} s at most; "
          f"{len(wrong)} answers differ", flush=True)
    return len(wrong)


def many_requests(port, pid, total):
    """Resident memory after each fifth of so many short requests by eight clients."""
    figures = []
    for _ in range(5):
        def client(i):
            for n in range(total // 40):
                stream(port, {**body_of(i),
                              "prompt": f"Request {n} of {i}: once upon a time there was a dog and",
                              "max_tokens": 4})
        threads = [threading.Thread(target=client, args=(i,)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        figures.append(f"{resident(pid):.1f}")
    print(f"memory of the server after each fifth of {total} requests: {', '.join(figures)} MiB", flush=True)


def main():
    program, seconds = sys.argv[1], float(sys.argv[2]) if len(sys.argv) > 2 else 20
    server = subprocess.Popen([program, "serve", *sys.argv[3:], "--port", "0", "--cache-tokens", "8192"],
                              stdout=subprocess.PIPE, text=True)
    port = int(server.stdout.readline().split("http://")[1].split(":")[1].split("/")[0])
    alone = [stream(port, {**body_of(i), "cache_prompt": False})[0] for i in range(8)]
    before = resident(server.pid)
    print("beginnings are read every time:")
    wrong = sum(run(port, clients, seconds, alone, cache_prompt=False) for clients in (1, 4, 16, 32))
    print("beginnings that are known are not read again (an answer may differ by rounding):")
    run(port, 32, seconds, alone)
    many_requests(port, server.pid, 1000)
    print(f"memory of the server: {before:.0f} MiB before, {resident(server.pid):.0f} MiB after")
    server.terminate()
    sys.exit(server.wait(30) or int(wrong != 0))


if __name__ == "__main__":
    main()
