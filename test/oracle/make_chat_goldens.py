"""Renders test/fixtures/chat-templates/*.jinja, written in the styles of known models, with transformers' (4.57.6)
apply_chat_template. Writes goldens.json beside them.

    python test/oracle/make_chat_goldens.py
"""

import json
import pathlib

import jinja2
import transformers

folder = pathlib.Path(__file__).resolve().parent.parent / "fixtures" / "chat-templates"


def messages(*pairs):
    return [{"role": role, "content": content} for role, content in pairs]


CONVERSATIONS = [
    messages(("user", "Hello")),
    messages(("system", "You are terse."), ("user", "Hello")),
    messages(("user", "Hello"), ("assistant", "Hi. What can I do?"), ("user", "Count to 3.")),
    messages(
        ("system", " Spaces around. \n"),
        ("user", "  Who am I?\n"),
        ("assistant", "I don't know."),
        ("user", "東京 🦊 é"),
        ("assistant", "1\n2\n\n3"),
        ("user", "{{ messages }} {% if x %} <|im_end|> \"quoted\" 'single' \\n \t tab"),
    ),
    messages(("user", "")),
    messages(("user", "One"), ("user", "Two")),
    messages(("user", "What is 2+3?"), ("assistant", "Wait."), ("tool", "5"), ("tool", "five")),
]

tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(folder.parent / "decoders" / "llama" / "optimum")
goldens = {"conversations": CONVERSATIONS, "templates": {}}
for file in sorted(folder.glob("*.jinja")):
    texts = goldens["templates"][file.stem] = []
    for conversation in CONVERSATIONS:
        try:
            text = tokenizer.apply_chat_template(
                conversation, chat_template=file.read_text(), tokenize=False, add_generation_prompt=True
            )
        except jinja2.exceptions.TemplateError as error:
            texts.append({"error": error.message})
        else:
            texts.append({"text": text})
(folder / "goldens.json").write_text(json.dumps(goldens, indent=1) + "\n")
