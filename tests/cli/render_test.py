#!/usr/bin/env python3
"""`fathom render`, and `fathom chat` in other formats than V3: python3 render_test.py PROGRAM.

The prompts of each chat format are the matter of tests/text. Standard library only.
"""
import json
import os
import sys
import unittest

import cli_test
from cli_test import TINY, Case, run

TALK = {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi\n"}],
        "add_generation_prompt": True}
V3_PROMPT = "<｜begin▁of▁sentence｜>Be brief.<｜User｜>Hi\n<｜Assistant｜>"


class Render(Case):
    def conversation(self, **values):
        path = self.path("talk.json")
        with open(path, "w", encoding="utf-8") as file:
            json.dump({**TALK, **values}, file)
        return path

    def with_template(self, name, template):
        folder = self.model(name=name)
        with open(os.path.join(folder, "tokenizer_config.json"), "w", encoding="utf-8") as file:
            json.dump({"chat_template": template}, file)
        return folder

    def test_by_name(self):
        self.assertEqual(self.works(run("render", "deepseek-v3", self.conversation())).out, V3_PROMPT)
        self.assertEqual(self.works(run("render", "deepseek-v3", "-", text=json.dumps(TALK))).out, V3_PROMPT)
        self.assertEqual(self.works(run("render", "deepseek-v3.1", self.conversation(thinking=True))).out,
                         V3_PROMPT + "<think>")

    def test_by_model(self):
        talk = self.conversation()
        self.assertEqual(self.works(run("render", "fathom-tiny", talk)).out, V3_PROMPT)
        plain = "{{ bos_token }}{% for message in messages %}User: {{ message }}\n\nAssistant: {% endfor %}"
        for number, template in enumerate((plain, [{"name": "default", "template": plain}])):
            folder = self.with_template(f"plain{number}", template)
            self.assertEqual(self.works(run("render", folder, talk)).out,
                             "<｜begin▁of▁sentence｜>Be brief.\n\nUser: Hi\n\n\nAssistant:")
        newest = self.model({"model_type": "deepseek_v4"}, name="newest", without=("model.safetensors",))
        self.assertEqual(self.works(run("render", newest, talk)).out, V3_PROMPT + "</think>")
        newer = self.model({"model_type": "deepseek_v41"}, name="newer")
        self.fails(run("render", newer, talk), "deepseek_v41", "--chat-format")
        self.fails(run("render", self.with_template("other", "<|im_start|>"), talk), "deepseek-v3.1")

    def test_what_is_wrong(self):
        talk = self.conversation()
        self.fails(run("render", "deepseek-v3", self.path("nothing")), "nothing")
        self.fails(run("render", "deepseek-v9", talk), "deepseek-v9")
        self.fails(run("render", "deepseek-v3", self.conversation(temperature=1)), "talk.json", "temperature")
        self.fails(run("render", "deepseek-v3", self.conversation(thinking=True)), "thinking")
        self.fails(run("render", "deepseek-v3"), "FILE", code=2)
        self.fails(run("render", "deepseek-v3", "-", text="[" * 100), "standard input", "nesting")


class ChatFormats(Case):
    def chat(self, model, form, *lines):
        return run("chat", model, "--chat-format", form, "-n", 6, "--seed", 1,
                   text="".join(line + "\n" for line in lines))

    def thinker(self):
        """The tiny model, with its padding token for <think>."""
        folder = self.model(without=("tokenizer.json",), name="thinker")
        with open(os.path.join(TINY, "tokenizer.json"), encoding="utf-8") as file:
            text = file.read()
        with open(os.path.join(folder, "tokenizer.json"), "w", encoding="utf-8") as file:
            file.write(text.replace("<｜▁pad▁｜>", "<think>"))
        return folder

    def glm(self):
        """The tiny model with GLM's marks: for its own, and for its last two tokens."""
        folder = self.model(without=("tokenizer.json",), name="glm")
        with open(os.path.join(TINY, "tokenizer.json"), encoding="utf-8") as file:
            tokenizer = json.load(file)
        vocab = tokenizer["model"]["vocab"]
        names = ["[gMASK]", "<|endoftext|>", "<sop>", "<|user|>", "<|assistant|>"]
        for token, name in zip(tokenizer["added_tokens"], names):
            vocab[name] = vocab.pop(token["content"])
            token["content"] = name
        for name in ("<think>", "</think>"):
            last = max((word for word in vocab if "think" not in word), key=vocab.get)
            tokenizer["model"]["merges"] = [
                merge for merge in tokenizer["model"]["merges"]
                if "".join(merge.split(" ") if isinstance(merge, str) else merge) != last]
            vocab[name] = vocab.pop(last)
            tokenizer["added_tokens"].append({**tokenizer["added_tokens"][0], "content": name,
                                              "id": vocab[name]})
        with open(os.path.join(folder, "tokenizer.json"), "w", encoding="utf-8") as file:
            json.dump(tokenizer, file, ensure_ascii=False)
        return folder

    def continued(self, model, prompt):
        return self.works(run("run", model, "-p", prompt, "-n", 6, "--seed", 1)).out.rstrip("\n")

    def test_marks_that_are_text(self):
        model, file = self.model(), self.path("talk.session")
        whole = self.works(self.chat(model, "deepseek-v2", "Hello", "And now?")).out
        first = self.works(self.chat(model, "deepseek-v2", "Hello", "/save " + file)).out
        self.assertEqual(first.rstrip("\n"),
                         self.continued(model, "<｜begin▁of▁sentence｜>User: Hello\n\nAssistant:"))
        loaded = self.works(self.chat(model, "deepseek-v2", "/load " + file, "And now?"))
        self.assertEqual(first + loaded.out, whole)
        self.assertIn("1 questions", loaded.err)

    def test_reasoning_is_apart_and_leaves_the_history(self):
        model = self.thinker()
        result = self.works(self.chat(model, "deepseek-r1", "Hello", "And now?", "/undo", "And now?"))
        self.assertEqual(result.out, "\n" * 3, "this model never ends its reasoning")
        prompt = "<｜begin▁of▁sentence｜><｜User｜>Hello<｜Assistant｜>"
        self.assertEqual(result.err.count(self.continued(model, prompt + "<think>\n")), 1, result)
        second = prompt + "<｜end▁of▁sentence｜><｜User｜>And now?<｜Assistant｜><think>\n"
        self.assertEqual(result.err.count(self.continued(model, second)), 2, result)

    def test_an_answer_that_the_next_question_ends(self):
        model, file = self.glm(), self.path("talk.session")
        whole = run("chat", model, "--chat-format", "glm-4.7", "--no-think", "-n", 6, "--seed", 1,
                    text="Hello\nAnd now?\n/undo\nAnd now?\n").out.splitlines()
        prompt = "[gMASK]<sop><|user|>Hello<|assistant|></think>"
        self.assertEqual(whole[0], self.continued(model, prompt))
        second = prompt + whole[0] + "<|user|>And now?<|assistant|></think>"
        self.assertEqual(whole[1:], [self.continued(model, second)] * 2)
        saved = run("chat", model, "--chat-format", "glm-4.7", "--no-think", "-n", 6, "--seed", 1,
                    text=f"Hello\nAnd now?\n/save {file}\n")
        self.assertEqual(self.works(saved).out.splitlines(), whole[:2])
        loaded = run("chat", model, "--chat-format", "glm-4.7", "--no-think", "-n", 6, "--seed", 1,
                     text=f"/load {file}\n/undo\nAnd now?\n")
        self.assertIn("2 questions", self.works(loaded).err)
        self.assertEqual(loaded.out.splitlines(), whole[1:2])
        thinking = self.chat(model, "glm-4.7", "Hello")
        self.assertEqual(self.works(thinking).out, "\n", "reasoning is no answer")
        self.assertIn(self.continued(model, prompt[:-len("</think>")] + "<think>"), thinking.err)

    def test_wrong_choices(self):
        model = self.model()
        self.fails(self.chat(model, "deepseek-v9", "Hello"), "deepseek-v9", "deepseek-v3.1")
        self.fails(self.chat(model, "kimi-k2", "Hello"), "<|im_end|>")
        self.fails(run("chat", model, "--think", text="Hello\n"), "thinking")
        self.fails(run("chat", model, "--think", "--no-think", text="Hello\n"), "--no-think", code=2)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    cli_test.PROGRAM = os.path.abspath(sys.argv.pop(1))
    unittest.main(verbosity=2)
