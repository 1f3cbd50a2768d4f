#!/usr/bin/env python3
"""`fathom render` as a person meets it: python3 render_test.py PROGRAM.

The prompts of each chat format are the matter of tests/text. Standard library only.
"""
import json
import os
import sys
import unittest

import cli_test
from cli_test import Case, run

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
        self.fails(run("render", self.with_template("other", "<|im_start|>"), talk), "deepseek-v3.1")

    def test_what_is_wrong(self):
        talk = self.conversation()
        self.fails(run("render", "deepseek-v3", self.path("nothing")), "nothing")
        self.fails(run("render", "deepseek-v9", talk), "deepseek-v9")
        self.fails(run("render", "deepseek-v3", self.conversation(temperature=1)), "talk.json", "temperature")
        self.fails(run("render", "deepseek-v3", self.conversation(thinking=True)), "thinking")
        self.fails(run("render", "deepseek-v3"), "FILE", code=2)
        self.fails(run("render", "deepseek-v3", "-", text="[" * 100), "standard input", "nesting")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    cli_test.PROGRAM = os.path.abspath(sys.argv.pop(1))
    unittest.main(verbosity=2)
