#!/usr/bin/env python3
"""`fathom serve` as clients meet it: python3 serve_test.py PROGRAM [unittest arguments].

Plain sockets where a client misbehaves, http.client elsewhere.
"""
import base64
import http.client
import json
import os
import pty
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import unittest

import jsonschema

PROGRAM = None


class Server:
    """A server of the embedded model on a port of its own."""

    def __init__(self, *arguments):
        self.process = subprocess.Popen([PROGRAM, "serve", "--port", "0", *arguments], stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        assert " at http://" in line, line + self.process.stderr.read()
        self.port = int(re.search(r"http://[^/]*:(\d+)/", line)[1])

    def connect(self):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)

    def ask(self, method, path, body=None, headers=None):
        """Status and JSON (or text) of one request."""
        connection = self.connect()
        data = body if body is None or isinstance(body, (str, bytes)) else json.dumps(body)
        connection.request(method, path, data, headers or {})
        response = connection.getresponse()
        text = response.read().decode()
        connection.close()
        is_json = response.getheader("Content-Type", "").startswith("application/json")
        return response.status, json.loads(text) if is_json else text

    def stream(self, path, body):
        """The events of a stream, parsed, without its [DONE]."""
        connection = self.connect()
        connection.request("POST", path, json.dumps({**body, "stream": True}))
        response = connection.getresponse()
        assert response.status == 200, response.read()
        assert response.getheader("Content-Type").startswith("text/event-stream")
        events = [line[6:] for line in response.read().decode().split("\n\n") if line]
        connection.close()
        assert events[-1] == "[DONE]", events[-1]
        return [json.loads(event) for event in events[:-1]]

    def end(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(30)
        self.process.stdout.close()
        self.process.stderr.close()
        return code


class Viewer:
    """One end of a viewer's WebSocket, frame by frame."""

    def __init__(self, port, path="/live", protocol="fathom.v1", headers="Host: localhost\r\n"):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall((f"GET {path} HTTP/1.1\r\n{headers}Upgrade: websocket\r\nConnection: Upgrade\r\n"
                             f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n"
                             f"Sec-WebSocket-Protocol: {protocol}\r\n\r\n").encode())
        self.head = b""
        while b"\r\n\r\n" not in self.head and (byte := self.socket.recv(1)):
            self.head += byte
        self.status = int(self.head.split()[1])

    def send(self, text, kind=1, declared=None):
        data = text.encode() if isinstance(text, str) else text
        size = len(data) if declared is None else declared
        length = struct.pack(*((">B", 128 | size) if size < 126 else (">BH", 254, size) if size < 65536
                               else (">BQ", 255, size)))
        self.socket.sendall(bytes([128 | kind]) + length + bytes(4) + data)

    def exactly(self, n):
        data = b""
        while len(data) < n:
            more = self.socket.recv(n - len(data))
            if not more:
                raise ConnectionError("it was closed")
            data += more
        return data

    def receive(self):
        """(kind, bytes) of one frame: 1 text, 2 binary, 8 the end, 9 a ping."""
        kind, size = self.exactly(2)
        size = struct.unpack(">H", self.exactly(2))[0] if size == 126 else struct.unpack(
            ">Q", self.exactly(8))[0] if size == 127 else size
        return kind & 15, self.exactly(size)

    def until(self, wanted):
        while True:
            kind, data = self.receive()
            if kind == wanted:
                return data

    def closing_code(self):
        return struct.unpack(">H", self.until(8)[:2])[0]


def tiny_with_marks_of_v4(folder):
    """The embedded model with two of its tokens renamed, for a chat format that has a place for tools."""
    source = os.path.join(os.path.dirname(__file__), "../../models/tiny")
    for name in ("config.json", "model.safetensors"):
        shutil.copy(os.path.join(source, name), folder)
    with open(os.path.join(source, "tokenizer.json")) as file:
        tokenizer = json.load(file)
    for entry in tokenizer["added_tokens"]:
        if entry["id"] == 2:
            del tokenizer["model"]["vocab"][entry["content"]]
            entry["content"] = "<think>"
    vocab = tokenizer["model"]["vocab"]
    last = next(text for text, token in vocab.items() if token == 4095)
    del vocab[last]
    tokenizer["model"]["merges"].pop()
    vocab["<think>"], vocab["</think>"] = 2, 4095
    tokenizer["added_tokens"].append({**tokenizer["added_tokens"][2], "id": 4095, "content": "</think>",
                                      "special": False})
    with open(os.path.join(folder, "tokenizer.json"), "w") as file:
        json.dump(tokenizer, file)


class Serve(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server("--cache-tokens", "16384")

    @classmethod
    def tearDownClass(cls):
        assert cls.server.end() == 0

    STORY = {"prompt": "Once upon a time", "max_tokens": 24, "temperature": 0}
    CHAT = {"messages": [{"role": "user", "content": "Tell me a story"}], "max_tokens": 16, "temperature": 0}

    def test_models_health_and_metrics(self):
        status, models = self.server.ask("GET", "/v1/models")
        self.assertEqual((status, models["object"], len(models["data"])), (200, "list", 1))
        self.assertEqual(models["data"][0]["object"], "model")
        self.assertEqual(self.server.ask("GET", "/health"), (200, {"status": "ok"}))
        status, text = self.server.ask("GET", "/metrics")
        self.assertEqual(status, 200)
        self.assertIn("# TYPE fathom_generated_tokens_total counter\nfathom_generated_tokens_total ", text)

    def test_a_completion_is_what_run_writes(self):
        status, answer = self.server.ask("POST", "/v1/completions", self.STORY)
        self.assertEqual(status, 200, answer)
        said = subprocess.run([PROGRAM, "run", "-p", "Once upon a time", "-n", "24", "--greedy", "-q"],
                              capture_output=True, text=True, check=True, timeout=120).stdout
        self.assertEqual(answer["choices"][0]["text"], said.rstrip("\n"))
        self.assertEqual(answer["object"], "text_completion")
        self.assertEqual(answer["usage"]["completion_tokens"], 24)
        self.assertEqual(answer["usage"]["total_tokens"], 24 + answer["usage"]["prompt_tokens"])
        self.assertEqual(answer["choices"][0]["finish_reason"], "length")

    def test_streams_say_the_same(self):
        for path, body in (("/v1/completions", self.STORY), ("/v1/chat/completions", self.CHAT)):
            _, answer = self.server.ask("POST", path, body)
            events = self.server.stream(path, {**body, "stream_options": {"include_usage": True}})
            choice, usage = answer["choices"][0], events.pop()
            self.assertEqual((usage["choices"], usage["usage"]), ([], answer["usage"]))
            chat = "message" in choice
            whole = choice["message"]["content"] if chat else choice["text"]
            parts = [e["choices"][0]["delta"].get("content", "") if chat else e["choices"][0]["text"]
                     for e in events]
            self.assertEqual("".join(parts), whole)
            self.assertGreater(len(parts), 4)
            self.assertEqual([e["choices"][0]["finish_reason"] for e in events][-1], choice["finish_reason"])
            self.assertEqual({e["choices"][0]["finish_reason"] for e in events[:-1]}, {None})
            self.assertEqual(len({e["id"] for e in events}), 1)
            if chat:
                self.assertEqual(events[0]["choices"][0]["delta"]["role"], "assistant")
                self.assertEqual(events[0]["object"], "chat.completion.chunk")

    def test_stop_strings_logprobs_n_and_seeds(self):
        _, whole = self.server.ask("POST", "/v1/completions", self.STORY)
        text = whole["choices"][0]["text"]
        stop = text[10:14]  # within words, wherever tokens end
        _, cut = self.server.ask("POST", "/v1/completions", {**self.STORY, "stop": ["never there", stop]})
        self.assertEqual(cut["choices"][0]["text"], text[:text.index(stop)])
        self.assertEqual(cut["choices"][0]["finish_reason"], "stop")
        events = self.server.stream("/v1/completions", {**self.STORY, "stop": stop})
        self.assertEqual("".join(e["choices"][0]["text"] for e in events), text[:text.index(stop)])
        _, told = self.server.ask("POST", "/v1/chat/completions",
                                  {**self.CHAT, "logprobs": True, "top_logprobs": 3})
        content = told["choices"][0]["logprobs"]["content"]
        self.assertEqual("".join(t["token"] for t in content), told["choices"][0]["message"]["content"])
        for token in content:
            self.assertEqual(len(token["top_logprobs"]), 3)
            self.assertEqual(token["logprob"], token["top_logprobs"][0]["logprob"])  # greedy
            self.assertEqual(bytes(token["bytes"]).decode(), token["token"])
        body = {**self.STORY, "temperature": 1, "seed": 7, "n": 3}
        first, again = (self.server.ask("POST", "/v1/completions", body)[1] for _ in range(2))
        texts = [c["text"] for c in first["choices"]]
        self.assertEqual(texts, [c["text"] for c in again["choices"]])
        self.assertEqual(len(set(texts)), 3)
        self.assertEqual(first["usage"]["completion_tokens"], 72)

    def test_tokens_and_text(self):
        _, tokens = self.server.ask("POST", "/tokenize", {"content": "Once upon a time"})
        _, text = self.server.ask("POST", "/detokenize", tokens)
        self.assertEqual(text["content"], "Once upon a time")
        by_ids = {**self.STORY, "prompt": [0, *tokens["tokens"]]}
        self.assertEqual(self.server.ask("POST", "/v1/completions", by_ids)[1]["choices"],
                         self.server.ask("POST", "/v1/completions", self.STORY)[1]["choices"])

    def test_many_clients_at_once_are_not_mixed_up(self):
        bodies = [{"prompt": f"One day {i} little cats", "max_tokens": 20, "seed": i, "temperature": 1,
                   "cache_prompt": False} for i in range(40)]  # more than there are sessions
        alone = [self.server.ask("POST", "/v1/completions", body)[1]["choices"] for body in bodies[:8]]
        answers = [None] * len(bodies)

        def client(i):
            events = self.server.stream("/v1/completions", bodies[i])
            answers[i] = "".join(e["choices"][0]["text"] for e in events)

        threads = [threading.Thread(target=client, args=(i,)) for i in range(len(bodies))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        self.assertNotIn(None, answers)
        self.assertEqual(answers[:8], [choices[0]["text"] for choices in alone])

    def test_bad_requests_are_told_by_key(self):
        post = lambda path, body: self.server.ask("POST", path, body)
        chat, text = "/v1/chat/completions", "/v1/completions"
        for path, body, key in (
                (chat, {}, "messages"), (chat, {"messages": []}, "messages"),
                (chat, {"messages": [{"role": "nobody", "content": "x"}]}, "messages"),
                (chat, {**self.CHAT, "temperature": 3}, "temperature"), (text, {}, "prompt"),
                (chat, {**self.CHAT, "top_p": "x"}, "top_p"), (chat, {**self.CHAT, "n": 0}, "n"),
                (text, {**self.STORY, "max_tokens": -1}, "max_tokens"),
                (text, {**self.STORY, "prompt": [99999999]}, "prompt"),
                (chat, {**self.CHAT, "top_logprobs": 3}, "top_logprobs"),
                (chat, {"messages": [{"role": "user", "content": [{"type": 5}]}]}, "messages"),
                (chat, {**self.CHAT, "response_format": {"type": 5}}, "response_format"),
                (text, {**self.STORY, "prompt": [2**32]}, "prompt"),
                (chat, {**self.CHAT, "tools": 7}, "tools"),
                (text, {**self.STORY, "logit_bias": {"x": 1}}, "logit_bias"),
                (chat, {**self.CHAT, "tool_choice": "required"}, "tools"),
                (text, {**self.STORY, "prompt": "word " * 3000}, "prompt")):
            status, answer = post(path, body)
            self.assertEqual(status, 400, (path, body, answer))
            self.assertEqual(answer["error"]["param"], key, answer)
        for body in ("", "{", "[1]", "null", b"\xff\xfe", '{"prompt": ' + "[" * 100000):
            self.assertEqual(post(text, body)[0], 400)
        for method, path, status in (("GET", "/nowhere", 404), ("GET", chat, 405),
                                     ("DELETE", "/v1/models", 405), ("POST", "/v1/embeddings", 501),
                                     ("GET", "/../../etc/passwd", 404)):
            self.assertEqual(self.server.ask(method, path, "{}" if method == "POST" else None)[0], status)
        self.assertEqual(self.server.ask("POST", text, "x" * 10_000_000)[0], 413)
        self.assertEqual(self.server.ask("GET", "/health", headers={"X-Long": "x" * 40000})[0], 431)
        self.assertEqual(self.server.ask("GET", "/health")[0], 200)

    def raw(self, data, patience=10):
        with socket.create_connection(("127.0.0.1", self.server.port), timeout=patience) as plain:
            plain.sendall(data)
            return plain.recv(65536)

    def test_other_hosts_and_pages_are_refused(self):
        self.assertIn(b" 403 ", self.raw(b"GET /v1/models HTTP/1.1\r\nHost: evil.example\r\n\r\n"))
        self.assertIn(b" 403 ", self.raw(b"GET /v1/models HTTP/1.1\r\nHost: a\r\n\r\n"))
        self.assertIn(b" 403 ", self.raw(b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n"
                                         b"Origin: http://evil.example\r\n\r\n"))
        self.assertIn(b" 200 ", self.raw(b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n"))
        self.assertIn(b" 400 ", self.raw(b"nonsense\r\n\r\n"))

    def test_pages_elsewhere_may_ask_where_they_are_let(self):
        server = Server("--allow-origin", "http://friend.example")
        try:
            def ask(method, origin):
                connection = server.connect()
                connection.request(method, "/v1/models", headers={"Origin": origin})
                answer = connection.getresponse()
                answer.read()
                connection.close()
                return answer.status, answer.getheader("Access-Control-Allow-Origin")

            self.assertEqual(ask("GET", "http://friend.example"), (200, "http://friend.example"))
            self.assertEqual(ask("OPTIONS", "http://friend.example"), (204, "http://friend.example"))
            self.assertEqual(ask("GET", "http://evil.example"), (403, None))
            self.assertEqual(ask("OPTIONS", "http://evil.example"), (403, None))
        finally:
            self.assertEqual(server.end(), 0)

    def test_a_client_that_goes_or_does_not_read_harms_nobody(self):
        body = json.dumps({"prompt": "Once", "max_tokens": 900, "stream": True, "temperature": 1}).encode()
        head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body)
        stuck = socket.create_connection(("127.0.0.1", self.server.port))
        stuck.sendall(head + body)  # and never reads
        half = socket.create_connection(("127.0.0.1", self.server.port))
        half.sendall(head[:40])  # and never goes on
        gone = socket.create_connection(("127.0.0.1", self.server.port))
        gone.sendall(head + body)
        gone.recv(100)
        gone.close()
        self.assertEqual(self.server.ask("POST", "/v1/completions", self.STORY)[0], 200)
        deadline = time.monotonic() + 60
        stuck.close(), half.close()
        while True:  # all that was written for nobody has ended
            text = self.server.ask("GET", "/metrics")[1]
            if "\nfathom_sessions 0\n" in text:
                break
            self.assertLess(time.monotonic(), deadline, text)
            time.sleep(0.2)

    def test_a_beginning_that_is_known_is_not_read_again(self):
        story = "Once upon a time there was a little girl named Ella. She had a dog, and the dog had a ball. "
        body = {"prompt": story * 3 + "One day", "max_tokens": 12, "temperature": 0}
        first = self.server.ask("POST", "/v1/completions", body)[1]
        prompt = first["usage"]["prompt_tokens"]
        self.assertEqual(first["usage"]["prompt_tokens_details"]["cached_tokens"], 0)
        again = self.server.ask("POST", "/v1/completions", body)[1]
        self.assertEqual(again["usage"]["prompt_tokens_details"]["cached_tokens"], prompt - 1)
        self.assertEqual(again["choices"], first["choices"])
        # the conversation goes on: what was said is known, the answer too
        text = first["choices"][0]["text"]
        longer = {**body, "prompt": body["prompt"] + text + " Then they went home."}
        usage = self.server.ask("POST", "/v1/completions", longer)[1]["usage"]
        self.assertGreaterEqual(usage["prompt_tokens_details"]["cached_tokens"], prompt)
        # another end: as much as is the same
        other = {**body, "prompt": story * 2 + "The end", "stream_options": {"include_usage": True}}
        usage = self.server.stream("/v1/completions", other)[-1]["usage"]
        self.assertGreater(usage["prompt_tokens_details"]["cached_tokens"], prompt // 2)
        self.assertLess(usage["prompt_tokens_details"]["cached_tokens"], usage["prompt_tokens"])
        # whoever does not want it
        usage = self.server.ask("POST", "/v1/completions", {**body, "cache_prompt": False})[1]["usage"]
        self.assertEqual(usage["prompt_tokens_details"]["cached_tokens"], 0)
        text = self.server.ask("GET", "/metrics")[1]
        self.assertGreater(float(re.search(r"\nfathom_cached_tokens_total (\S+)", text)[1]), prompt)
        # more beginnings than are kept, and more than the cache holds: none fails
        for i in range(24):
            status, answer = self.server.ask("POST", "/v1/completions",
                                             {**body, "prompt": f"Number {i}. " + story, "max_tokens": 4})
            self.assertEqual(status, 200, answer)

    SCHEMA = {"type": "object", "additionalProperties": False, "required": ["name", "age", "mood"],
              "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer"},
                             "mood": {"enum": ["glad", "sad"]}}}

    def test_answers_are_kept_to_a_schema(self):
        body = {**self.CHAT, "max_tokens": 120, "temperature": 1, "response_format": {
            "type": "json_schema", "json_schema": {"name": "person", "schema": self.SCHEMA}}}
        for seed in range(4):
            choice = self.server.ask("POST", "/v1/chat/completions", {**body, "seed": seed})[1]["choices"][0]
            self.assertEqual(choice["finish_reason"], "stop")
            value = json.loads(choice["message"]["content"])
            jsonschema.validate(value, self.SCHEMA)
            self.assertEqual(list(value), ["name", "age", "mood"])
        events = self.server.stream("/v1/chat/completions", {**body, "seed": 1, "n": 3})
        for i in range(3):
            said = "".join(e["choices"][0]["delta"].get("content", "") for e in events
                           if e["choices"][0]["index"] == i)
            jsonschema.validate(json.loads(said), self.SCHEMA)
        free = {"prompt": "Once", "max_tokens": 200, "seed": 1, "response_format": {"type": "json_object"}}
        choice = self.server.ask("POST", "/v1/completions", free)[1]["choices"][0]
        if choice["finish_reason"] == "stop":
            self.assertIsInstance(json.loads(choice["text"]), dict)
        for form, part in (({"type": "xml"}, "json_schema"), ({"type": "json_schema"}, "schema"), (7,
                                                                                                   "object"),
                           ({"type": "json_schema", "json_schema": {"schema": {"pattern": "a"}}},
                            "'pattern'"),
                           ({"type": "json_schema", "json_schema": {"schema": {"properties": 3}}},
                            "properties")):
            status, answer = self.server.ask("POST", "/v1/chat/completions", {**body,
                                                                              "response_format": form})
            self.assertEqual((status, answer["error"]["param"]), (400, "response_format"))
            self.assertIn(part, answer["error"]["message"])

    def test_tools_are_called_in_the_chat_format(self):
        """The embedded model with the marks of V4, which has a place for tools."""
        tools = [{"type": "function", "function": {"name": "weather", "parameters": {
            "type": "object", "required": ["city", "days"], "properties": {
                "city": {"type": "string", "enum": ["Oslo", "Rome"]}, "days": {"type": "integer"},
                "wind": {"type": "boolean"}}}}}]
        body = {"messages": [{"role": "user", "content": "How is the weather in Oslo?"}], "max_tokens": 300,
                "seed": 3, "temperature": 1, "tools": tools}
        with tempfile.TemporaryDirectory() as folder:
            tiny_with_marks_of_v4(folder)
            server = Server(folder, "--chat-format", "deepseek-v4")
            try:
                for choice in ("required", {"type": "function", "function": {"name": "weather"}}):
                    answer = server.ask("POST", "/v1/chat/completions", {**body, "tool_choice": choice})[1]
                    said = answer["choices"][0]
                    self.assertEqual(said["finish_reason"], "tool_calls", answer)
                    self.assertIsNone(said["message"]["content"])
                    call = said["message"]["tool_calls"][0]
                    self.assertEqual((call["type"], call["function"]["name"]), ("function", "weather"))
                    arguments = json.loads(call["function"]["arguments"])
                    jsonschema.validate(arguments, tools[0]["function"]["parameters"])
                    events = server.stream("/v1/chat/completions", {**body, "tool_choice": choice})
                    deltas = [c for e in events for c in e["choices"][0]["delta"].get("tool_calls", [])]
                    self.assertEqual([d["index"] for d in deltas], [0])
                    self.assertEqual(json.loads(deltas[0]["function"]["arguments"]), arguments)
                    self.assertEqual(events[-1]["choices"][0]["finish_reason"], "tool_calls")
                    # the call and its result, told back
                    told = [*body["messages"], said["message"],
                            {"role": "tool", "tool_call_id": call["id"], "content": "rain"}]
                    status, answer = server.ask("POST", "/v1/chat/completions",
                                                {**body, "messages": told, "tool_choice": "none",
                                                 "max_tokens": 8})
                    self.assertEqual(status, 200, answer)
                status, answer = server.ask("POST", "/v1/chat/completions", {**body, "max_tokens": 8})
                self.assertEqual(status, 200, answer)  # auto: the model chooses
                for choice, part in ((7, "tool_choice"),
                                     ({"type": "function", "function": {"name": "time"}}, "time")):
                    status, answer = server.ask("POST", "/v1/chat/completions", {**body,
                                                                                 "tool_choice": choice})
                    self.assertEqual(status, 400)
                    self.assertIn(part, answer["error"]["message"])
            finally:
                self.assertEqual(server.end(), 0)
        status, answer = self.server.ask("POST", "/v1/chat/completions", body)
        self.assertEqual(status, 400)
        self.assertIn("no place for definitions of tools", answer["error"]["message"])

    def test_metrics_are_prometheus_text(self):
        self.server.ask("POST", "/v1/completions", self.STORY)
        text = self.server.ask("GET", "/metrics")[1]
        values = {}
        for line in text.splitlines():
            if line.startswith("#"):
                self.assertRegex(line, r"^# (HELP fathom_\w+ \S|TYPE fathom_\w+ (counter|gauge|histogram)$)")
            else:
                name, value = line.rsplit(" ", 1)
                self.assertRegex(name, r'^fathom_\w+(\{\w+="[^"]+"\})?$')
                values[name] = float(value)
        for kind in ("queue", "first_token", "inter_token"):
            buckets = [v for name, v in values.items() if name.startswith(f"fathom_{kind}_seconds_bucket")]
            self.assertEqual(buckets, sorted(buckets))
            self.assertEqual(buckets[-1], values[f"fathom_{kind}_seconds_count"])
            self.assertGreater(buckets[-1], 0)
        self.assertGreater(values["fathom_inter_token_seconds_sum"], 0)
        self.assertGreater(values["fathom_expert_load_variation"], 0)
        self.assertGreater(values['fathom_cache_pages{state="all"}'], 0)

    def request(self, text, **more):
        return json.dumps({"kind": "generate", "text": text, "keep": 0, "chat": False, "again": False,
                           "twice": False, "temperature": 0, "top_p": 1, "top_k": 0, "max_tokens": 12,
                           "seed": 1,
                           **more})

    def test_a_viewer_is_told_what_is_written(self):
        viewer = Viewer(self.server.port)
        self.assertEqual(viewer.status, 101)
        hello = json.loads(viewer.until(1))
        self.assertEqual((hello["kind"], hello["version"]), ("hello", 1))
        self.assertEqual(hello["identity"]["shape"]["n_experts"], 16)
        self.assertFalse(json.loads(viewer.until(1))["busy"])
        viewer.send(self.request("Once upon a time"))
        self.assertTrue(json.loads(viewer.until(1))["busy"])
        told = 0
        while True:
            kind, data = viewer.receive()
            if kind == 2:
                sequence = struct.unpack("<I", data[:4])[0]
                self.assertEqual(data[4:8], b"FRAM")
                viewer.send(json.dumps({"kind": "ack", "sequence": sequence}))
                told += 1
            elif kind == 1 and not json.loads(data)["busy"]:
                break
        self.assertGreater(told, 3)
        self.assertIn("\nfathom_viewers 1\n", self.server.ask("GET", "/metrics")[1])
        viewer.send(b"\x03\xe8", kind=8)
        self.assertEqual(viewer.closing_code(), 1000)

    def test_sockets_that_misbehave_are_closed_with_the_right_code(self):
        port = self.server.port
        old = Viewer(port, protocol="fathom.v0")
        self.assertEqual(old.status, 101)
        self.assertIn("fathom.v1", json.loads(old.until(1))["reason"])
        self.assertEqual(old.closing_code(), 1002)
        large = Viewer(port)
        large.send(b"x" * 1000, declared=1 << 20)
        self.assertEqual(large.closing_code(), 1009)
        binary = Viewer(port)
        binary.send(b"abc", kind=2)
        self.assertEqual(binary.closing_code(), 1003)
        for message in ("no json", self.request("a", temperature=-1), '{"kind":"steer","experts":7}',
                        b"\xff\xfe"):
            broken = Viewer(port)
            broken.send(message)
            self.assertEqual(broken.closing_code(), 1007)
        unmasked = Viewer(port)
        unmasked.socket.sendall(b"\x81\x02hi")
        self.assertEqual(unmasked.closing_code(), 1002)
        self.assertEqual(Viewer(port, headers="Host: evil.example\r\n").status, 403)
        evil = "Host: localhost\r\nOrigin: http://evil.example\r\n"
        self.assertEqual(Viewer(port, headers=evil).status, 403)
        self.assertEqual(self.server.ask("GET", "/live")[0], 426)
        self.assertEqual(self.server.ask("POST", "/live", "{}")[0], 405)
        self.assertEqual(self.server.ask("GET", "/health")[0], 200)
        silent = [Viewer(port) for _ in range(20)]  # half-open: nobody is there any more
        self.assertEqual(self.server.ask("POST", "/v1/completions", self.STORY)[0], 200)
        for viewer in silent:
            viewer.socket.close()
        deadline = time.monotonic() + 20
        while "\nfathom_viewers 0\n" not in self.server.ask("GET", "/metrics")[1]:
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.1)

    def test_a_story_without_a_display_is_served_too(self):
        master, terminal = pty.openpty()
        env = {**os.environ, "DISPLAY": "", "WAYLAND_DISPLAY": "", "TERM": "dumb"}
        process = subprocess.Popen([PROGRAM], stdin=terminal, stdout=terminal, stderr=terminal, env=env)
        os.close(terminal)
        told = b""

        def read_until(part):
            nonlocal told
            while part not in told:
                told += os.read(master, 4096)

        read_until(b"begin> ")
        port = int(re.search(rb"In a browser: http://127.0.0.1:(\d+)/", told)[1])
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("GET", "/health")
        self.assertEqual(connection.getresponse().status, 200)
        connection.close()
        viewer = Viewer(port)
        self.assertEqual(json.loads(viewer.until(1))["kind"], "hello")
        os.write(master, b"One day\r")
        self.assertIn(b"FRAM", viewer.until(2))  # what the terminal asked for is seen
        os.write(master, b"\x03")
        time.sleep(1)
        os.write(master, b"/quit\r")
        self.assertEqual(process.wait(60), 0)
        os.close(master)

    def test_without_viewers(self):
        server = Server("--no-viewer")
        self.assertEqual(server.ask("GET", "/")[0], 404)
        self.assertEqual(Viewer(server.port).status, 404)
        self.assertEqual(server.end(), 0)

    def test_a_key_is_asked_for(self):
        server = Server("--api-key", "secret")
        self.assertEqual(server.ask("GET", "/v1/models")[0], 401)
        self.assertEqual(server.ask("GET", "/v1/models", headers={"Authorization": "Bearer wrong"})[0], 401)
        self.assertEqual(server.ask("GET", "/v1/models", headers={"Authorization": "Bearer secret"})[0], 200)
        self.assertEqual(server.ask("GET", "/health")[0], 200)
        self.assertEqual(Viewer(server.port).status, 401)
        self.assertEqual(Viewer(server.port, "/live?key=wrong").status, 401)
        self.assertEqual(Viewer(server.port, "/live?key=secret").status, 101)
        self.assertEqual(server.end(), 0)

    def test_streams_end_properly_when_the_server_goes_down(self):
        server = Server("--cache-tokens", "16384")
        results = []

        def client():
            body = {"prompt": "Once", "max_tokens": 900, "temperature": 1}
            results.append(server.stream("/v1/completions", body))

        threads = [threading.Thread(target=client) for _ in range(8)]
        for thread in threads:
            thread.start()
        time.sleep(3)
        began = time.monotonic()
        self.assertEqual(server.end(), 0)
        self.assertLess(time.monotonic() - began, 10)
        for thread in threads:
            thread.join(10)
        self.assertEqual(len(results), 8)
        for events in results:
            self.assertIn(events[-1]["choices"][0]["finish_reason"], ("stop", "length"))

    def test_a_port_that_is_taken_is_an_error(self):
        # It is said before a model is looked for, let alone loaded.
        result = subprocess.run([PROGRAM, "serve", "no-such-model", "--port", str(self.server.port)],
                                capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual(result.returncode, 1)
        self.assertIn("cannot listen", result.stderr)
        self.assertNotIn("no-such-model", result.stderr)


if __name__ == "__main__":
    PROGRAM = os.path.abspath(sys.argv.pop(1))
    unittest.main(verbosity=2)
