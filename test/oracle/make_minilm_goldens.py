"""Embeds test/fixtures/minilm/sentences.json with PyTorch, as sentence-transformers does: token vectors averaged over
the attention mask, then scaled to length one. Writes test/fixtures/minilm/goldens.json.

Run once, in an environment of its own:

    pip install torch transformers
    python test/oracle/make_minilm_goldens.py DIRECTORY_OF_ALL_MINILM_L6_V2
"""

import base64
import json
import pathlib
import sys

import tokenizers
import torch
import transformers

directory = pathlib.Path(sys.argv[1])
fixtures = pathlib.Path(__file__).resolve().parent.parent / "fixtures" / "minilm"
sentences = json.loads((fixtures / "sentences.json").read_text())

tokenizer = tokenizers.Tokenizer.from_file(str(directory / "tokenizer.json"))
tokenizer.no_padding()
tokenizer.no_truncation()
model = transformers.BertModel.from_pretrained(directory, dtype=torch.float32, attn_implementation="eager").eval()

tokens = []
embeddings = []
with torch.inference_mode():
    for sentence in sentences:
        ids = tokenizer.encode(sentence).ids
        assert len(ids) <= 256, sentence
        hidden = model(
            input_ids=torch.tensor([ids]),
            attention_mask=torch.ones(1, len(ids), dtype=torch.int64),
            token_type_ids=torch.zeros(1, len(ids), dtype=torch.int64),
        ).last_hidden_state
        mean = hidden.mean(dim=1)
        tokens.append(ids)
        embeddings.append(torch.nn.functional.normalize(mean, p=2, dim=1)[0])

values = torch.stack(embeddings).numpy().astype("<f4")
(fixtures / "goldens.json").write_text(
    json.dumps(
        {
            "made_by": f"make_minilm_goldens.py, torch {torch.__version__.split('+')[0]}, "
            f"transformers {transformers.__version__}, CPU, float32",
            "tokens": tokens,
            "dims": list(values.shape),
            "embeddings_float32_base64": base64.b64encode(values.tobytes()).decode(),
        },
        separators=(",", ":"),
    )
    + "\n"
)
print(values.shape, max(map(len, tokens)), "tokens at most")
