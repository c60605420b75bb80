"""Child of decoder-steps.mjs: steps of a decoder in a Python runtime. Prints { name, version, stepMs, bandwidth } as JSON, or
{ absent } with the reason.

`python3 decoder-steps.py torch|onnxruntime TASK`; torch builds the same architecture itself, with a cache of fixed size and,
on a GPU, its step recorded as a CUDA graph: speed does not depend on the weights' values.
"""

import json
import statistics
import sys
import time

runtime, task = sys.argv[1], json.loads(sys.argv[2])
device, rows, context, steps, shape = (task[key] for key in ("device", "rows", "context", "steps", "shape"))
gpu = device.startswith("cuda")


def timed(step, synchronize=lambda: None):
    """Median time of a step in milliseconds, when each step begins after the previous one has ended."""
    for _ in range(8):
        step()
    times = []
    for _ in range(5):
        synchronize()
        began = time.perf_counter()
        for _ in range(steps):
            step()
        synchronize()
        times.append(1000 * (time.perf_counter() - began) / steps)
    return statistics.median(times)


def torch_steps():
    import torch
    from torch import nn
    from torch.nn import functional

    if gpu and not torch.cuda.is_available():
        raise RuntimeError(f"PyTorch {torch.__version__} has no CUDA")
    hidden, heads, kv_heads, intermediate = (shape[key] for key in ("hidden", "heads", "kvHeads", "intermediate"))
    size, capacity = hidden // heads, context + 2 * steps
    torch.set_default_dtype(torch.float16 if gpu else torch.float32)
    torch.set_default_device(device)

    def turn(x, cos, sin):
        low, high = x.chunk(2, -1)
        return torch.cat((low * cos - high * sin, high * cos + low * sin), -1)

    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            linear = lambda into, out: nn.Linear(into, out, bias=False)
            self.norms = nn.ModuleList(nn.RMSNorm(hidden, 1e-5) for _ in range(2))
            self.q, self.o = linear(hidden, hidden), linear(hidden, hidden)
            self.k, self.v = linear(hidden, kv_heads * size), linear(hidden, kv_heads * size)
            self.gate, self.up = linear(hidden, intermediate), linear(hidden, intermediate)
            self.down = linear(intermediate, hidden)
            self.keys, self.values = (torch.zeros(rows, kv_heads, capacity, size) for _ in range(2))

        def forward(self, x, position, mask, cos, sin):
            attended = self.norms[0](x)
            split = lambda y, count: y.view(rows, 1, count, size).transpose(1, 2)
            q = turn(split(self.q(attended), heads), cos, sin)
            self.keys.index_copy_(2, position, turn(split(self.k(attended), kv_heads), cos, sin))
            self.values.index_copy_(2, position, split(self.v(attended), kv_heads))
            context = functional.scaled_dot_product_attention(q, self.keys, self.values, mask, enable_gqa=True)
            x = x + self.o(context.transpose(1, 2).reshape(rows, 1, hidden))
            fed = self.norms[1](x)
            return x + self.down(functional.silu(self.gate(fed)) * self.up(fed))

    class Decoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(shape["vocabulary"], hidden)
            self.layers = nn.ModuleList(Layer() for _ in range(shape["layers"]))
            self.norm = nn.RMSNorm(hidden, 1e-5)
            self.head = nn.Linear(hidden, shape["vocabulary"], bias=False)
            angles = torch.outer(torch.arange(capacity), 10_000 ** (-torch.arange(size // 2) / (size // 2)))
            self.cos, self.sin = angles.cos(), angles.sin()

        def forward(self, ids, position):
            mask = (torch.arange(capacity) <= position)[None, None, None]
            x = self.embedding(ids)
            for layer in self.layers:
                x = layer(x, position, mask, self.cos[position], self.sin[position])
            ids.copy_(self.head(self.norm(x)).argmax(-1))
            position.add_(1).remainder_(capacity)  # wraps around after the last position

    with torch.inference_mode():
        decoder = Decoder().eval()
        ids = torch.ones(rows, 1, dtype=torch.int64)
        position = torch.full((1,), context)
        step = lambda: decoder(ids, position)
        if gpu:
            stream = torch.cuda.Stream()
            with torch.cuda.stream(stream):
                for _ in range(3):
                    step()
            torch.cuda.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                step()
            step = graph.replay

        def read_back():
            step()
            return ids.cpu()  # a caller reads each token

        result = {"name": "PyTorch", "version": torch.__version__, "stepMs": timed(read_back)}
        if gpu:
            source, target = (torch.zeros(2**30, dtype=torch.uint8) for _ in range(2))
            copies = []
            for _ in range(10):
                begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
                begin.record()
                target.copy_(source)
                end.record()
                torch.cuda.synchronize()
                copies.append(begin.elapsed_time(end))
            result["bandwidth"] = 2 * 2**30 / (statistics.median(copies) / 1000)
        return result


def onnxruntime_steps():
    import numpy as np
    import onnxruntime as ort

    provider = "CUDAExecutionProvider" if gpu else "CPUExecutionProvider"
    if provider not in ort.get_available_providers():
        raise RuntimeError(f"onnxruntime {ort.__version__} has no {provider}")
    session = ort.InferenceSession(task["model"], providers=[provider])
    if provider not in session.get_providers():
        raise RuntimeError(f"onnxruntime could not start its {provider}")
    kind, place = ("cuda", "cuda") if gpu else ("cpu", "cpu")
    capacity = context + 2 * steps
    size = shape["hidden"] // shape["heads"]
    zeros = np.zeros((rows, shape["kvHeads"], capacity, size), np.float16 if gpu else np.float32)
    # Past and present share one buffer, as GroupQueryAttention expects.
    caches = {
        value.name: ort.OrtValue.ortvalue_from_numpy(zeros, kind, 0)
        for value in session.get_inputs()
        if value.name.startswith("past_")
    }
    state = {"ids": np.ones((rows, 1), np.int64), "length": context}

    def step():
        state["length"] = context + (state["length"] + 1 - context) % steps
        binding = session.io_binding()
        binding.bind_cpu_input("input_ids", state["ids"])
        binding.bind_cpu_input("attention_mask", np.ones((rows, state["length"] + 1), np.int64))
        for name, value in caches.items():
            binding.bind_ortvalue_input(name, value)
            binding.bind_ortvalue_output(name.replace("past_key_values", "present"), value)
        binding.bind_output("logits", "cpu")
        session.run_with_iobinding(binding)
        state["ids"] = binding.copy_outputs_to_cpu()[-1][:, -1].argmax(-1)[:, None]

    # Outputs come in the order in which they were bound: the logits are last.
    return {"name": "ONNX Runtime (Python)", "version": ort.__version__, "stepMs": timed(step)}


try:
    print(json.dumps({"torch": torch_steps, "onnxruntime": onnxruntime_steps}[runtime]()))
except Exception as error:  # the table reports whatever is missing or broken here
    print(json.dumps({"absent": f"{type(error).__name__}: {error}".splitlines()[0]}))
