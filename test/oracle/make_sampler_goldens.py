"""Writes test/fixtures/sampler/goldens.txt: distributions as Hugging Face's logits processors make them.

    python make_sampler_goldens.py test/fixtures/sampler/goldens.txt     (transformers 4.57.6, torch 2.15.0)

One case is lines of `key values…`, and ends with an empty one. `logprob`: of every token after bias and penalties;
`probability`: of every token after all filters, which is what is drawn from. Presence and frequency penalties, which
transformers lacks, are the formula of OpenAI's reference.
"""

import sys

import numpy as np
import torch
from transformers.generation.logits_process import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    SequenceBiasLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

# Each: vocabulary, spread of the logits, options. Most have more than 256 tokens, so that some are not ranked.
CASES = [
    (40, 2.0, {}),
    (300, 1.5, {}),
    (1000, 0.3, dict(temperature=1.5)),
    (1000, 3.0, dict(temperature=0.7, topK=40)),
    (1000, 0.5, dict(temperature=1.2, topK=400)),
    (1000, 3.0, dict(temperature=0.9, topP=0.9)),
    (1000, 0.3, dict(temperature=1.1, topP=0.8)),
    (1000, 2.0, dict(temperature=1.3, minP=0.1)),
    (1000, 0.3, dict(minP=0.5)),
    (1000, 0.6, dict(topP=0.9, minP=0.5)),
    (1000, 2.5, dict(temperature=0.8, topK=60, topP=0.9, minP=0.02)),
    (300, 2.0, dict(topK=25, repetitionPenalty=1.3)),
    (300, 2.0, dict(topK=25, presencePenalty=0.7, frequencyPenalty=0.4)),
    (300, 2.0, dict(topP=0.7, bias={3: 4.0, 17: -5.0, 290: 2.5, 299: float("-inf")})),
    (
        300,
        2.0,
        dict(
            temperature=0.8,
            topP=0.95,
            repetitionPenalty=1.15,
            presencePenalty=0.3,
            frequencyPenalty=0.2,
            bias={7: 3.0, 200: -2.0},
        ),
    ),
]


def write(out, key, values):
    out.write(" ".join([key, *(f"{float(value):.9g}" for value in values)]) + "\n")


def main(path):
    generator = torch.Generator().manual_seed(2024)
    with open(path, "w") as out:
        for vocabulary, spread, options in CASES:
            logits = torch.randn(1, vocabulary, generator=generator) * spread
            prompt = torch.randint(vocabulary, (30,), generator=generator)
            answer = torch.randint(vocabulary, (20,), generator=generator)
            answer[10:15] = answer[0]
            tokens = torch.cat([prompt, answer])[None]
            scores = logits
            bias = options.get("bias", {})
            if bias:
                scores = SequenceBiasLogitsProcessor({(token,): value for token, value in bias.items()})(tokens, scores)
            if "repetitionPenalty" in options:
                scores = RepetitionPenaltyLogitsProcessor(options["repetitionPenalty"])(tokens, scores)
            counts = torch.bincount(answer, minlength=vocabulary)[None]
            scores = scores - options.get("frequencyPenalty", 0) * counts
            scores = scores - options.get("presencePenalty", 0) * (counts > 0)
            logprobs = torch.log_softmax(scores.double(), -1)[0]
            scores = TemperatureLogitsWarper(options.get("temperature", 1.0))(tokens, scores)
            if "topK" in options:
                scores = TopKLogitsWarper(options["topK"])(tokens, scores)
            if "topP" in options:
                scores = TopPLogitsWarper(options["topP"])(tokens, scores)
            if "minP" in options:
                scores = MinPLogitsWarper(options["minP"])(tokens, scores)
            for name in ("temperature", "topK", "topP", "minP", "repetitionPenalty", "presencePenalty", "frequencyPenalty"):
                if name in options:
                    write(out, name, [options[name]])
            write(out, "bias", np.ravel(list(bias.items())))
            write(out, "logits", logits[0])
            write(out, "prompt", prompt)
            write(out, "answer", answer)
            write(out, "logprob", logprobs)
            write(out, "probability", torch.softmax(scores.double(), -1)[0])
            out.write("\n")


main(sys.argv[1])
