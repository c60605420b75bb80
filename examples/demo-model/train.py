"""Trains the demo model on the tasks in tasks.py, exports it, and measures its accuracy.

pip install torch==2.15.0 transformers==4.57.6 optimum-onnx==0.1.0 onnx==1.23.2 onnxruntime==1.32.0 accelerate==1.15.0
python train.py

./                                 model.onnx as optimum exports it, with its other files
./training.json                    versions, the loss curve, accuracy on samples that were held out
test/fixtures/demo-model/expected.json    prompts, the right answers, and PyTorch's answers with these weights
"""

import argparse
import importlib.metadata
import json
import logging
import pathlib
import random
import time
import warnings

import numpy
import onnxruntime
import tasks
import tokenizers
import torch
import transformers
from optimum.exporters.onnx import main_export

FOLDER = pathlib.Path(__file__).resolve().parent
EXPECTED = FOLDER.parent.parent / "test" / "fixtures" / "demo-model" / "expected.json"
CHECKPOINT = FOLDER.parent.parent / "build" / "demo-model"
VOCABULARY = 704  # a limit: there are merges for fewer
SPECIAL_TOKENS = ["<pad>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]
PAD, BOS, EOS, TURN_END = 0, 1, 2, 4
POSITIONS = 4096
SEED = 0
# Copying is learned from random tokens first, since the tasks alone don't teach it. Then all tasks are trained, with
# growing files, and finally with files as long as the context. `tokens` is roughly the number of tokens in a batch of
# copies or of code; `functions` is the number of functions that a file defines.
PHASES = [
    {"steps": 400, "muon": 0.01, "adamw": 0.003, "tokens": 3072, "copies": True},
    {
        "steps": 800,
        "muon": 0.01,
        "adamw": 0.003,
        "tokens": 3000,
        "sums": 40,
        "lists": 16,
        "dialogues": 5,
        "functions": [2, 40],
        "gaps": True,
    },
    {
        "steps": 700,
        "muon": 0.01,
        "adamw": 0.002,
        "tokens": 4000,
        "sums": 64,
        "lists": 20,
        "dialogues": 4,
        "functions": [10, 200],
        "gaps": True,
    },
    {
        "steps": 500,
        "muon": 0.008,
        "adamw": 0.002,
        "tokens": 4000,
        "sums": 64,
        "lists": 20,
        "dialogues": 4,
        "functions": [40, 200],
    },
]
HELD_OUT_SEED = 10
LONGEST_ANSWER = 40  # tokens
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def make_tokenizer():
    core = tokenizers.Tokenizer(tokenizers.models.BPE())
    core.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    core.train_from_iterator(tasks.tokenizer_corpus(), trainer)
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        model_max_length=POSITIONS,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def make_model(vocabulary):
    config = transformers.Qwen2Config(
        vocab_size=vocabulary,
        hidden_size=128,
        intermediate_size=192,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=POSITIONS,
        rope_theta=1e6,
        initializer_range=0.08,
        tie_word_embeddings=True,
        bos_token_id=BOS,
        eos_token_id=EOS,
        pad_token_id=PAD,
    )
    model = transformers.Qwen2ForCausalLM(config)
    look_back(model)
    model.generation_config = transformers.GenerationConfig(
        bos_token_id=BOS, eos_token_id=[TURN_END, EOS], pad_token_id=PAD, do_sample=False
    )
    return model


@torch.no_grad()
def look_back(model):
    """Initialises three heads of the first layer to look 1, 2 and 3 tokens back, whatever the tokens are: their keys' bias is the
    same vector everywhere, and their queries' bias is that vector rotated back by as many positions. Recall needs such heads,
    and training takes long to find them."""
    attention, frequencies = model.model.layers[0].self_attn, model.model.rotary_emb.inv_freq
    query, key = attention.q_proj.bias.view(-1, 2, len(frequencies)), attention.k_proj.bias.view(-1, 2, len(frequencies))
    key[:, 0] = 4
    for head, distance in enumerate((1, 2, 3)):
        query[head, 0] = 4 * torch.cos(distance * frequencies)
        query[head, 1] = -4 * torch.sin(distance * frequencies)


# --- batches ------------------------------------------------------------------------------------------------------------


class Batches:
    """Samples of each task as tensors. The tokens of a part are cached, since parts recur."""

    def __init__(self, tokenizer, seed):
        self.tokenizer, self.rng, self.known = tokenizer, random.Random(seed), {}

    def encode(self, text):
        if text not in self.known:
            if len(self.known) > 200_000:
                self.known.clear()
            self.known[text] = self.tokenizer._tokenizer.encode(text).ids
        return self.known[text]

    def batch(self, samples, gaps=False):
        """Tokens, the number of the answer that each belongs to (0: none, it is given), and positions."""
        rows = []
        for sample in samples:
            ids, answers, positions, shift = [], [], [], 0
            # With gaps, the parts of a file lie further apart than they are: the distances of long files, without their
            # tokens.
            room = self.rng.choice((0, POSITIONS // 2)) if gaps else 0
            for number, (text, is_answer) in enumerate(sample, 1):
                part = self.encode(text)
                positions += range(shift + len(ids), shift + len(ids) + len(part))
                ids += part
                answers += [number if is_answer else 0] * len(part)
                if room and not is_answer and len(text) > 30:
                    shift += self.rng.randrange(2 * room // len(sample))
            rows.append((ids, answers, positions))
        width = max(len(ids) for ids, _, _ in rows)
        return tuple(torch.tensor([row[part] + [0] * (width - len(row[part])) for row in rows]) for part in range(3))

    def copies(self, rows, length):
        """Random tokens, repeated; the answer is the repetition."""
        ids, answers = [], []
        for _ in range(rows):
            period = self.rng.randrange(3, length // 2 + 1)
            tokens = [self.rng.randrange(len(SPECIAL_TOKENS), len(self.tokenizer)) for _ in range(period)]
            ids.append((tokens * (length // period + 1))[:length])
            answers.append([0] * (period + 1) + [1] * (length - period - 1))
        return torch.tensor(ids), torch.tensor(answers), torch.arange(length).expand(rows, -1)

    def step(self, phase, progress):
        """A batch of each task. `progress`, 0 to 1, makes copies and files longer."""
        rng, tokens = self.rng, phase["tokens"]
        if "copies" in phase:
            length = 16 << min(4, max(0, int((progress - 0.6) / 0.06)))
            yield "copies", self.copies(tokens // length, length)
            return
        yield "sums", self.batch([tasks.sum_sample(rng) for _ in range(phase["sums"])])
        yield "sorting", self.batch([tasks.sort_sample(rng) for _ in range(phase["lists"])])
        yield "dialogue", self.batch([tasks.dialogue_sample(rng) for _ in range(phase["dialogues"])])
        fewest, most = phase["functions"]
        functions = rng.randrange(fewest, fewest + 3 + int((most - fewest) * min(1, 1.2 * progress)))
        questions = min(functions, 40)
        rows = max(1, tokens // (24 * functions + 18 * questions))
        gaps = "gaps" in phase and progress > 0.5
        yield "code", self.batch([tasks.code_sample(rng, functions, questions) for _ in range(rows)], gaps)


def loss_of(model, ids, answers, positions):
    # Without a mask, transformers would take gaps in the positions for ends of sequences.
    mask = torch.ones_like(ids)
    hidden = model.model(ids, attention_mask=mask, position_ids=positions, use_cache=False).last_hidden_state
    learnt = answers[:, 1:] > 0
    logits = model.lm_head(hidden[:, :-1][learnt])
    targets = ids[:, 1:][learnt]
    return torch.nn.functional.cross_entropy(logits, targets), (logits.argmax(-1) == targets).float().mean()


# --- training -----------------------------------------------------------------------------------------------------------


def optimizers(model, phase):
    """Muon for matrices, except those of queries and keys: with its large steps, attention becomes hard before it has learned
    where to look, and then stays there."""
    slow = ("embed_tokens", "q_proj", "k_proj", "norm", "bias")
    parts = {True: [], False: []}
    for name, parameter in model.named_parameters():
        parts[any(part in name for part in slow)].append(parameter)
    return [
        torch.optim.Muon(parts[False], lr=phase["muon"], weight_decay=0.01),
        torch.optim.AdamW(parts[True], lr=phase["adamw"], betas=(0.9, 0.98), weight_decay=0.0),
    ]


def train(model, batches, phase):
    steps, everything = phase["steps"], optimizers(model, phase)
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: min(1, (step + 1) / 30) * min(1, 2.0 * (1 - step / steps) + 0.01)
        )
        for optimizer in everything
    ]
    curve, started, cpu = [], time.time(), time.process_time()
    sums = {}
    for step in range(1, steps + 1):
        for task, batch in batches.step(phase, step / steps):
            loss, right = loss_of(model, *batch)
            loss.backward()
            entry = sums.setdefault(task, [0.0, 0.0, 0])
            entry[0] += loss.item()
            entry[1] += right.item()
            entry[2] += 1
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, schedule in zip(everything, schedules):
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            schedule.step()
        if step % 50 == 0 or step == steps:
            entry = {"step": step, "cpuSeconds": round(time.process_time() - cpu)}
            entry |= {task: [round(loss / n, 4), round(right / n, 4)] for task, (loss, right, n) in sums.items()}
            print(f"{time.time() - started:6.0f} s", json.dumps(entry), flush=True)
            curve.append(entry)
            sums = {}
            model.save_pretrained(CHECKPOINT)
    return {**phase, "cpuSeconds": round(time.process_time() - cpu), "curve": curve}


# --- accuracy -----------------------------------------------------------------------------------------------------------


@torch.inference_mode()
def right_answers(model, batches, samples):
    """For each answer of each sample, whether a greedy reader of the model gives it: each of its tokens, given the right ones
    before it, is the likeliest."""
    ids, answers, _ = batches.batch(samples)
    best = model(ids, attention_mask=torch.ones_like(ids), use_cache=False).logits[:, :-1].argmax(-1)
    wrong = torch.where(best != ids[:, 1:], answers[:, 1:], 0)
    return [
        [number not in row for number, (_, is_answer) in enumerate(sample, 1) if is_answer]
        for sample, row in zip(samples, wrong.tolist())
    ]


def accuracy(model, batches):
    rng = random.Random(HELD_OUT_SEED)
    dialogue = lambda turns: tasks.dialogue_sample(rng, turns=turns)
    kinds = {
        "sums of pairs never trained on": (4000, 500, lambda: tasks.sum_sample(rng, held_out=True)),
        "sorting lists never trained on": (2000, 500, lambda: tasks.sort_sample(rng, held_out=True)),
        "answers in dialogues of 5 turns": (500, 50, lambda: dialogue(5)),
        "answers in dialogues of 10 turns": (100, 20, lambda: dialogue(10)),
    }
    for functions in (10, 25, 50, 100, 200):
        for kind, calls in (("calls", 1), ("second definitions", 0)):
            sample = lambda functions=functions, calls=calls: tasks.code_sample(rng, functions, 10, calls)
            kinds[f"{kind} in files of {functions} functions"] = (50, 250 // functions, sample)
    results = {}
    for kind, (count, rows, sample) in kinds.items():
        answers = []
        for done in range(0, count, rows):
            answers += right_answers(model, batches, [sample() for _ in range(min(rows, count - done))])
        results[kind] = {
            "right": sum(map(sum, answers)),
            "of": sum(map(len, answers)),
            "samplesAllRight": sum(map(all, answers)),
            "samples": count,
        }
        print(kind, results[kind], flush=True)
    return results


def greedy(model, ids):
    """PyTorch's answer."""
    return model.generate(torch.tensor([ids]), max_new_tokens=LONGEST_ANSWER)[0, len(ids) :].tolist()


def answers(tokenizer, generate):
    """Prompts that were held out, with the right answer and what `generate(ids) -> ids` makes of them."""
    rng = random.Random(HELD_OUT_SEED + 1)
    text = lambda ids: tokenizer.decode(ids, skip_special_tokens=True)
    encode = lambda prompt: tokenizer(prompt, add_special_tokens=False).input_ids

    def completion(sample):
        (prompt, _), (right, _) = sample
        return {"prompt": prompt, "right": right.removesuffix("</s>"), "answer": text(generate(encode(prompt)))}

    def dialogue():
        messages, turns = [], []
        for question, right in tasks.dialogue_turns(rng, 5):
            messages.append({"role": "user", "content": question})
            ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True)
            turns.append({"user": question, "right": right, "answer": text(generate(ids))})
            messages.append({"role": "assistant", "content": turns[-1]["answer"]})
        return turns

    def code():
        """A file that is read once; each completion follows it, up to an empty line."""
        parts = tasks.code_sample(rng, 200, 30)
        file = "".join(part for part, _ in parts[:200])
        completions = [
            {
                "prompt": prompt,
                "right": right.removesuffix("\n\n"),
                "answer": text(generate(encode(file + prompt))).split("\n\n")[0],
            }
            for (prompt, _), (right, _) in zip(parts[200::2], parts[201::2])
        ]
        return {"file": file, "completions": completions}

    return {
        "sums": [completion(tasks.sum_sample(rng, held_out=True)) for _ in range(200)],
        "sorting": [completion(tasks.sort_sample(rng, held_out=True)) for _ in range(50)],
        "dialogues": [dialogue() for _ in range(10)],
        "code": code(),
    }


def onnx_generate(file):
    """Greedy generation with onnxruntime, over the cache that the export returns."""
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    outputs = [value.name for value in session.get_outputs()]
    caches = [value for value in session.get_inputs() if value.name.startswith("past_")]

    def generate(ids):
        past = {value.name: numpy.zeros((1, value.shape[1], 0, value.shape[3]), numpy.float32) for value in caches}
        answer, length = [], 0
        while len(answer) < LONGEST_ANSWER and (not answer or answer[-1] not in (EOS, TURN_END)):
            new = answer[-1:] or ids
            positions = numpy.arange(length, length + len(new))[None]
            length += len(new)
            feeds = {
                "input_ids": numpy.array([new]),
                "position_ids": positions,
                "attention_mask": numpy.ones((1, length), numpy.int64),
            }
            results = dict(zip(outputs, session.run(None, feeds | past)))
            past = {name: results[name.replace("past_key_values", "present")] for name in past}
            answer.append(int(results["logits"][0, -1].argmax()))
        return answer

    return generate


# --- main ---------------------------------------------------------------------------------------------------------------


def write_json(file, value):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--skip", type=int, default=0, help="phases that build/demo-model has been through already")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)

    tokenizer = make_tokenizer()
    record = CHECKPOINT / "phases.json"
    phases = json.loads(record.read_text())[: options.skip] if options.skip else []
    for number in range(options.skip, len(PHASES)):
        model = transformers.AutoModelForCausalLM.from_pretrained(CHECKPOINT) if number else make_model(len(tokenizer))
        phases.append(train(model, Batches(tokenizer, SEED + 1 + number), PHASES[number]))
        tokenizer.save_pretrained(CHECKPOINT)
        write_json(record, phases)
    model = transformers.AutoModelForCausalLM.from_pretrained(CHECKPOINT).eval()
    batches = Batches(tokenizer, HELD_OUT_SEED)
    main_export(str(CHECKPOINT), FOLDER, task="text-generation-with-past", do_validation=False)

    packages = ["torch", "transformers", "optimum-onnx", "onnx", "onnxruntime", "accelerate", "tokenizers"]
    write_json(
        FOLDER / "training.json",
        {
            "versions": {name: importlib.metadata.version(name) for name in packages},
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "accuracy": accuracy(model, batches),
            "seed": SEED,
            "phases": phases,
        },
    )
    expected = answers(tokenizer, lambda ids: greedy(model, ids))
    exported = answers(tokenizer, onnx_generate(FOLDER / "model.onnx"))
    assert exported == expected, "the export's answers are not PyTorch's"
    write_json(EXPECTED, expected)


if __name__ == "__main__":
    main()
