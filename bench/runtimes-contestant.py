"""Child of runtimes.mjs: onnxruntime-genai with one model; see runtimes-contestant.mjs for what it prints.

`python3 runtimes-contestant.py FOLDER THREADS PROMPT ANSWER REPEAT`: FOLDER holds model.onnx and genai_config.json.
"""

import json
import sys
import time

import numpy as np
import onnxruntime_genai as og

folder, threads, length, answer, repeat = sys.argv[1], *map(int, sys.argv[2:6])
config_file = folder + "/genai_config.json"
with open(config_file) as file:
    config = json.load(file)
config["model"]["decoder"]["session_options"] = {"intra_op_num_threads": threads}
with open(config_file, "w") as file:
    json.dump(config, file)
model = og.Model(folder)

state = 1


def prompt(count):
    """The same tokens as in runtimes-contestant.mjs: Numerical Recipes' generator."""
    global state
    tokens = []
    for _ in range(count):
        state = (state * 1664525 + 1013904223) % 2**32
        tokens.append(300 + state % 7800)
    return np.array([tokens], dtype=np.int32)


def generate(tokens, count):
    params = og.GeneratorParams(model)
    length = tokens.shape[1] + count
    params.set_search_options(do_sample=False, min_length=length, max_length=length)
    generator = og.Generator(model, params)
    generator.append_tokens(tokens)
    for _ in range(count):
        generator.generate_next_token()
    return [int(token) for token in generator.get_sequence(0)[-count:]]


first = generate(prompt(length), answer)
times = []
for _ in range(repeat):
    tokens = prompt(length)
    began = time.perf_counter()
    generate(tokens, answer)
    times.append(time.perf_counter() - began)
times.sort()
print(json.dumps({"version": og.__version__, "tokensPerSecond": answer / times[len(times) // 2], "tokens": first}))
