#!/usr/bin/env python3
"""`fathom render` of V3.2, V4 and GLM-4.7 against a second writing of their rules, over random conversations:
python3 encoders_test.py PROGRAM [COUNT].

DeepSeek's own test cases of its encoders are few; here the encoders' rules stand once more, message by
message as the encoders go, where the program goes turn by turn. GLM's are those of its published template.
The English texts that declare tools are not repeated: one is known by its first and last words.
"""
import json
import os
import random
import re
import subprocess
import sys
import tempfile

BOS, EOS, USER, ASSISTANT = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>"
DECLARED = "{tools}"
DECLARATIONS = (r"## Tools\n\nYou have access to a set of tools you can use.*?</functions>\n",
                r"## Tools\n\nYou have access to a set of tools to help.*?to invoke tool calls\.\n",
                r"<\|system\|>\n# Tools\n\nYou may call.*?</arg_value>\.\.\.</tool_call>")


def asks(message):
    return message["role"] in ("user", "developer")


def last_asked(messages):
    return max((i for i, message in enumerate(messages) if asks(message)), default=-1)


def held(request):
    """The messages, the first of which has the tools."""
    messages = [dict(message) for message in request["messages"]]
    if request.get("tools"):
        if not messages or messages[0]["role"] not in ("system", "developer"):
            messages.insert(0, {"role": "system", "content": ""})
        messages[0]["tools"] = True
    return messages


def dropped(messages):
    last = last_asked(messages)
    return [message for i, message in enumerate(messages) if i >= last or message["role"] != "developer"]


def dsml(message, block):
    if not message.get("tool_calls"):
        return ""
    out = []
    for call in message["tool_calls"]:
        arguments = [f'<｜DSML｜parameter name="{key}" string="{str(isinstance(value, str)).lower()}">'
                     + (value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
                     + "</｜DSML｜parameter>"
                     for key, value in json.loads(call["function"]["arguments"]).items()]
        out.append(f'<｜DSML｜invoke name="{call["function"]["name"]}">\n' + "\n".join(arguments)
                   + "\n</｜DSML｜invoke>")
    return f"\n\n<｜DSML｜{block}>\n" + "\n".join(out) + f"\n</｜DSML｜{block}>"


def v3_2(request):
    thinking = request["thinking"]
    if thinking:  # before the tools find their place
        request = {**request, "messages": dropped(request["messages"])}
    messages = held(request)
    last, out = last_asked(messages), BOS
    for i, message in enumerate(messages):
        role, content = message["role"], message.get("content")
        declared = "\n\n" + DECLARED if message.get("tools") else ""
        mark = "<think>" if thinking and i >= last else "</think>"
        if role == "system":
            out += content + declared
        elif role == "developer":
            out += f"{USER}{declared}\n\n# The user's message is: {content}{ASSISTANT}{mark}"
        elif role == "user":
            out += f"{USER}{content}{ASSISTANT}{mark}"
        elif role == "tool":
            caller = max(k for k in range(i) if messages[k]["role"] != "tool")
            order, count = i - caller, len(messages[caller]["tool_calls"])
            out += ("\n\n<function_results>" if order == 1 else "") + f"\n<result>{content}</result>"
            out += f"\n</function_results>\n\n{mark}" if order == count else ""
        else:
            if thinking and i > last:
                out += message.get("reasoning_content", "") + "</think>"
            out += (content or "") + dsml(message, "function_calls") + EOS
    return out


def merged_v4(messages):
    merged, order = [], {}
    for message in messages:
        message = dict(message)
        if message["role"] in ("tool", "user"):
            result = message["role"] == "tool"
            block = [result, message.get("tool_call_id", ""), message["content"]]
            joins = merged and merged[-1]["role"] == "user" and (result or "task" not in merged[-1])
            if joins:
                merged[-1]["blocks"].append(block)
                continue
            task = {"task": message["task"]} if "task" in message and not result else {}
            message = {"role": "user", "blocks": [block], **task}
        merged.append(message)
    for message in merged:
        if message.get("tool_calls"):
            order = {call["id"]: i for i, call in enumerate(message["tool_calls"]) if call.get("id")}
        results = iter(sorted((block for block in message.get("blocks", ()) if block[0]),
                              key=lambda block: order.get(block[1], 0)))
        if "blocks" in message:
            message["blocks"] = [next(results) if block[0] else block for block in message["blocks"]]
    return merged


def v4(request):
    thinking, messages = request["thinking"], merged_v4(held(request))
    drop = not request.get("tools")
    if thinking and drop:
        messages = dropped(messages)
    last, out = last_asked(messages), BOS
    for i, message in enumerate(messages):
        role, content = message["role"], message.get("content")
        declared = "\n\n" + DECLARED if message.get("tools") else ""
        if role == "system":
            out += content + declared
        elif role == "developer":
            out += USER + content + declared
        elif role == "user":
            out += USER + "\n\n".join(f"<tool_result>{text}</tool_result>" if result else text
                                      for result, _, text in message["blocks"])
        elif role == "latest_reminder":
            out += "<｜latest_reminder｜>" + content
        else:
            if thinking and not (i > 0 and "task" in messages[i - 1]) and (not drop or i > last):
                out += message.get("reasoning_content", "") + "</think>"
            out += (content or "") + dsml(message, "tool_calls") + EOS
        if i + 1 < len(messages) and messages[i + 1]["role"] not in ("assistant", "latest_reminder"):
            continue
        task = message.get("task")
        if task:
            if task == "action":
                out += ASSISTANT + ("<think>" if thinking else "</think>")
            out += f"<｜{task}｜>"
        elif asks(message):
            out += ASSISTANT + ("<think>" if thinking and (not drop or i >= last) else "</think>")
    return out


def glm(request):
    messages = request["messages"]
    last = max((i for i, message in enumerate(messages) if message["role"] == "user"), default=-1)
    out = "[gMASK]<sop>" + (DECLARED if request.get("tools") else "")
    for i, message in enumerate(messages):
        role, content = message["role"], message.get("content")
        if role in ("user", "system"):
            out += f"<|{role}|>{content}"
        elif role == "tool":
            out += "" if i and messages[i - 1]["role"] == "tool" else "<|observation|>"
            out += f"<tool_response>{content}</tool_response>"
        else:
            reasoning = message.get("reasoning_content")
            content = str(content)
            if reasoning is None and "</think>" in content:
                reasoning = content.split("</think>")[0].rstrip("\n").split("<think>")[-1].lstrip("\n")
                content = content.split("</think>")[-1].lstrip("\n")
            out += "<|assistant|>"
            out += f"<think>{reasoning.strip()}</think>" if i > last and reasoning else "</think>"
            out += content.strip()
            for call in message.get("tool_calls", ()):
                out += "<tool_call>" + call["function"]["name"]
                for key, value in json.loads(call["function"]["arguments"]).items():
                    shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
                    out += f"<arg_key>{key}</arg_key><arg_value>{shown}</arg_value>"
                out += "</tool_call>"
    return out + "<|assistant|>" + ("<think>" if request["thinking"] else "</think>")


def random_request(form, rng):
    def text():
        return rng.choice(("Hi", "two\nlines\n", " padded ", "", "größer", "\u3000x\u00a0"))

    def call():
        arguments = rng.choice(({}, {"a": 1}, {"s": "x", "n": [1, {"k": None}], "t": True}, {"ü": "ß"}))
        own = {} if rng.random() < 0.2 else {"id": f"c{rng.randrange(4)}"}
        return {"type": "function", **own,
                "function": {"name": rng.choice("fg"), "arguments": json.dumps(arguments)}}

    roles = {"deepseek-v3.2": ("user", "user", "developer", "assistant", "system"),
             "deepseek-v4": ("user", "user", "developer", "assistant", "system", "latest_reminder"),
             "glm-4.7": ("user", "user", "assistant", "system")}[form]
    messages = []
    for _ in range(rng.randrange(1, 7)):
        role = rng.choice(roles)
        message = {"role": role, "content": text() or ("d" if role == "developer" else "")}
        messages.append(message)
        if role == "user" and form == "deepseek-v4" and rng.random() < 0.2:
            message["task"] = rng.choice(("action", "query", "title"))
        if role != "assistant":
            continue
        if rng.random() < 0.6:
            message["reasoning_content"] = "because " + text()
        elif form == "glm-4.7" and rng.random() < 0.5:
            message["content"] = f"<think>\nwell\n</think>\n{text()}"
        if rng.random() < 0.5:
            calls = message["tool_calls"] = [call() for _ in range(rng.randrange(1, 4))]
            if rng.random() < 0.2:
                message["content"] = None
            for other in rng.sample(calls, len(calls)):
                messages.append({"role": "tool", "content": text(), "tool_call_id": other.get("id", "c9")})
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    return {"messages": messages, "thinking": rng.random() < 0.5, "add_generation_prompt": True,
            **({"tools": tools} if rng.random() < 0.4 else {})}


def main():
    program, count = os.path.abspath(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 300
    rng, wrong = random.Random(7), 0
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "request.json")
        for form, model in (("deepseek-v3.2", v3_2), ("deepseek-v4", v4), ("glm-4.7", glm)):
            equal = 0
            for _ in range(count):
                request = random_request(form, rng)
                with open(path, "w", encoding="utf-8") as file:
                    json.dump(request, file)
                result = subprocess.run([program, "render", form, path], capture_output=True, check=False)
                got, expected = result.stdout.decode(), model(request)
                if request.get("tools"):
                    for declaration in DECLARATIONS:
                        got = re.sub(declaration, lambda _: DECLARED, got, flags=re.S)
                if got == expected:
                    equal += 1
                elif wrong < 5:
                    print(form, json.dumps(request, ensure_ascii=False), "expected", repr(expected), "got",
                          repr(got), result.stderr.decode(), sep="\n  ")
                wrong += got != expected
            print(f"{form}: {equal} of {count} conversations are the same")
    return 1 if wrong else 0


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    sys.exit(main())
