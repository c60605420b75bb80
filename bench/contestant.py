"""Child of seed-table.mjs: one Python runtime with one model; see contestant.mjs for its protocol.

`python3 contestant.py onnxruntime|torch DEVICE PRECISION MODEL FEEDS`; torch builds the same architecture itself
(MODEL's file name begins with bert-base or resnet-50), since speed does not depend on the weights' values.
"""

import json
import sys
import time

runtime, device, precision, model, feeds_json = sys.argv[1:6]
feeds = json.loads(feeds_json)
gpu = device.startswith("cuda")


def say(message):
    print(json.dumps(message), flush=True)


def onnxruntime_contestant():
    import numpy as np
    import onnxruntime as ort

    provider = "CUDAExecutionProvider" if gpu else "CPUExecutionProvider"
    if provider not in ort.get_available_providers():
        raise RuntimeError(f"onnxruntime {ort.__version__} has no {provider}")
    ordinal = int(device.split(":")[1]) if ":" in device else 0
    session = ort.InferenceSession(model, providers=[(provider, {"device_id": ordinal}) if gpu else provider])
    if gpu and "CUDAExecutionProvider" not in session.get_providers():
        raise RuntimeError("onnxruntime could not start its CUDA provider")
    inputs = {k: np.full(v["dims"], v["fill"], v["type"]) for k, v in feeds.items()}
    return {"name": "ONNX Runtime (Python)", "version": ort.__version__, "device": device}, lambda: session.run(None, inputs)


def bert(torch):
    nn = torch.nn

    class Bert(nn.Module):
        def __init__(self):
            super().__init__()
            self.words = nn.Embedding(30522, 768)
            self.positions = nn.Embedding(512, 768)
            self.types = nn.Embedding(2, 768)
            self.norm = nn.LayerNorm(768, eps=1e-12)
            layer = nn.TransformerEncoderLayer(768, 12, 3072, 0.1, "gelu", 1e-12, batch_first=True)
            self.encoder = nn.TransformerEncoder(layer, 12)

        def forward(self, input_ids, attention_mask, token_type_ids):
            places = torch.arange(input_ids.shape[1], device=input_ids.device)
            x = self.norm(self.words(input_ids) + self.positions(places) + self.types(token_type_ids))
            return self.encoder(x, src_key_padding_mask=attention_mask == 0)

    return Bert()


def resnet(torch):
    nn = torch.nn

    def conv(into, out, size, stride=1):
        return nn.Sequential(nn.Conv2d(into, out, size, stride, size // 2, bias=False), nn.BatchNorm2d(out))

    class Block(nn.Module):
        def __init__(self, into, width, stride):
            super().__init__()
            self.a, self.b, self.c = conv(into, width, 1), conv(width, width, 3, stride), conv(width, 4 * width, 1)
            self.skip = conv(into, 4 * width, 1, stride) if stride > 1 or into != 4 * width else nn.Identity()

        def forward(self, x):
            y = torch.relu(self.b(torch.relu(self.a(x))))
            return torch.relu(self.c(y) + self.skip(x))

    blocks, into = [], 64
    for width, count, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for i in range(count):
            blocks.append(Block(into, width, stride if i == 0 else 1))
            into = 4 * width
    stem = [conv(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2048, 1000))


def torch_contestant():
    import torch

    if gpu and not torch.cuda.is_available():
        raise RuntimeError(f"PyTorch {torch.__version__} has no CUDA")
    kind = model.rsplit("/", 1)[-1]
    network = (bert if kind.startswith("bert-base") else resnet)(torch).eval().to(device)
    half = gpu and precision == "fp16"
    if half:
        network = network.half()
    host = {k: torch.full(v["dims"], v["fill"], dtype=getattr(torch, v["type"])) for k, v in feeds.items()}
    if half:
        host = {k: v.half() if v.is_floating_point() else v for k, v in host.items()}

    def run():
        with torch.inference_mode():
            inputs = [v.to(device) for v in host.values()]
            return network(*inputs).cpu()  # from host memory to host memory, like the others

    return {"name": "PyTorch", "version": torch.__version__, "device": device}, run


try:
    about, run = {"onnxruntime": onnxruntime_contestant, "torch": torch_contestant}[runtime]()
    for _ in range(3):
        run()
except Exception as error:  # the table reports whatever is missing or broken here
    say({"absent": f"{type(error).__name__}: {error}".splitlines()[0]})
    sys.exit(0)
say(about)

for line in sys.stdin:
    command, *rest = line.split()
    if command == "end":
        with open("/proc/self/status") as status:
            peak = next(int(l.split()[1]) for l in status if l.startswith("VmHWM"))
        say({"peakBytes": 1024 * peak})
        break
    run()
    latencies, began = [], time.perf_counter()
    while True:
        before = time.perf_counter()
        run()
        now = time.perf_counter()
        latencies.append(1000 * (now - before))
        if 1000 * (now - began) >= float(rest[0]):
            break
    say({"latencies": latencies})
