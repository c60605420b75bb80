"""Trains small tokenizers in the styles of known models, and writes what transformers makes of texts with them, and with
the decoder fixtures' own. Writes test/fixtures/tokenizers (transformers 4.57.6, tokenizers 0.22).

    python test/oracle/make_tokenizer_goldens.py
"""

import json
import pathlib
import random
import shutil

import tokenizers
import transformers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

fixtures = pathlib.Path(__file__).resolve().parent.parent / "fixtures"
out = fixtures / "tokenizers"

CORPUS = (pathlib.Path(__file__).parent.parent.parent / "README.md").read_text() + """
The quick brown fox jumps over the lazy dog. Zwei Züge fahren über die Brücke. Où est la gare ? 東京の天気は晴れです。
def add(a, b):\n    return a + b\n\nfor i in range(10):\n\tprint(i)\n
"""

TEXTS = [
    "",
    " ",
    "Hello",
    " Hello",
    "Hello world",
    "Hello  world   again ",
    "  two spaces first",
    "\n",
    "line one\nline two\n\nline four\r\n",
    "\tdef f(x):\n\t\treturn x  # tabs\n    y = 1",
    "don't can't I'll we've they're it's",
    "DON'T CAN'T",
    "1 22 333 4444 3.14159 1,000,000 2024-11-24",
    "a+b=c; f(x)->y != z && w || !v // ok?",
    "!!! ... ?!?! --- ___",
    "é è ü ñ ß œ Å",
    "e\u0301 n\u0303 o\u0308 (combining)",
    "東京の天気は晴れです。今日は良い日",
    "안녕하세요 세계",
    "Привет, мир! Как дела?",
    "שלום עולם مرحبا بالعالم",
    "ไทย हिन्दी",
    "🦊 fox 🚆train 👩‍👩‍👧‍👦 family 🇩🇪 flag 👍🏽",
    "𝄞 𝕳𝖊𝖑𝖑𝖔 ﬁ ½ ²",
    "zero\u200bwidth\u200djoiner nbsp\u00a0here\u3000ideographic",
    "\ufeffBOM first",
    "ctrl\x00null\x7fdel",
    "<s>Hello</s>",
    "text <s> in the middle</s> and after",
    "<|im_start|>user\nHi there<|im_end|>\n<|im_start|>assistant\n",
    "<|im_start|><|im_end|>",
    "<|im_start",
    "<think>hm</think> answer",
    "▁ the metaspace itself ▁▁",
    "<0x0A> is no byte",
    "the cache keeps what the model has already read",
    "ENGINE engine Engine eNgInE",
    "word" * 30,
    " " * 20 + "x",
    "mixed: naïve café — “quotes” ‘single’ … €100 £5",
]

SPECIAL = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]


def save(name, tokenizer, config):
    folder = out / name
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n")


def byte_level():
    """As Llama 3 and Qwen 2 have it."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    tokenizer.normalizer = normalizers.NFC()
    pattern = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
        r"|\s+(?!\S)|\s+"
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(pattern), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=SPECIAL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator([CORPUS], trainer)
    tokenizer.add_tokens([AddedToken("<think>", special=False), AddedToken("</think>", special=False)])
    tokenizer.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]),
        ]
    )
    save("byte-level", tokenizer, {"bos_token": "<s>", "eos_token": "</s>", "clean_up_tokenization_spaces": True})


def sentencepiece(name, prepend, config):
    """BPE with byte fallback: with a space before the text as Llama 2 has it, or without as Gemma."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence(
        ([normalizers.Prepend("▁")] if prepend else []) + [normalizers.Replace(" ", "▁")]
    )
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=700, special_tokens=SPECIAL[:3] + bytes_, show_progress=False)
    # Merged within words only, as SentencePiece does: the trainer sees them apart.
    tokenizer.train_from_iterator([word for word in CORPUS.split()], trainer)
    trained = json.loads(tokenizer.to_str())
    trained["added_tokens"] = [token for token in trained["added_tokens"] if token["id"] < 3]
    tokenizer = Tokenizer.from_str(json.dumps(trained))
    tokenizer.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence(steps + ([decoders.Strip(" ", 1, 0)] if prepend else []))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
    )
    save(name, tokenizer, {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", **config})


def unigram():
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=400, special_tokens=["<pad>", *SPECIAL], unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS.splitlines(), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 3)]
    )
    save("unigram", tokenizer, {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"})


def wordpiece():
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=True)
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=500, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator([CORPUS], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    save("wordpiece", tokenizer, {"cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]", "pad_token": "[PAD]"})


shutil.rmtree(out, ignore_errors=True)
byte_level()
sentencepiece("llama-2", True, {"tokenizer_class": "LlamaTokenizerFast", "add_bos_token": True, "add_eos_token": False})
sentencepiece("llama-2-ends", True, {"tokenizer_class": "LlamaTokenizerFast", "add_bos_token": False, "add_eos_token": True})
sentencepiece("gemma", False, {"tokenizer_class": "PreTrainedTokenizerFast"})
unigram()
wordpiece()
shutil.copytree(fixtures / "decoders" / "llama" / "optimum", out / "decoders", ignore=lambda _, names: [
    name for name in names if not name.startswith("tokenizer")
])

random.seed(1)
goldens = {"versions": {"transformers": transformers.__version__, "tokenizers": tokenizers.__version__}, "texts": TEXTS}
goldens["tokenizers"] = {}
for folder in sorted(out.iterdir()):
    of_llama = "LlamaTokenizer" in (folder / "tokenizer_config.json").read_text()
    kind = transformers.LlamaTokenizerFast if of_llama else transformers.PreTrainedTokenizerFast
    tokenizer = kind.from_pretrained(folder)
    golden = {"encoded": [], "encodedBare": [], "decoded": [], "random": []}
    for text in TEXTS:
        tokens = tokenizer.encode(text)
        golden["encoded"].append(tokens)
        golden["encodedBare"].append(tokenizer.encode(text, add_special_tokens=False))
        golden["decoded"].append(tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False))
    while len(golden["random"]) < 40:
        tokens = random.choices(range(len(tokenizer)), k=random.randint(1, 12))
        text = tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        # Not what is told apart on purpose: of bytes that are no character tokenizers gives one U+FFFD each where they are
        # `<0x..>`, ours what bytes.decode gives; and a word's later part keeps its ## at the beginning of a text.
        if not ("<0x00>" in tokenizer.get_vocab() and "\ufffd" in text) and not text.startswith("##"):
            golden["random"].append([tokens, text])
    goldens["tokenizers"][folder.name] = golden
    if folder.name == "decoders":
        shutil.rmtree(folder)  # these are in test/fixtures/decoders
(out / "goldens.json").write_text(json.dumps(goldens, ensure_ascii=True) + "\n")
