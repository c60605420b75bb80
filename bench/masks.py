# Child of masks.mjs: the same rules in NumPy or PyTorch. Prints as JSON the milliseconds of each rule, one list per rule.
#   python3 masks.py numpy|torch ELEMENTS ROUNDS THREADS
import json
import sys
import time

import numpy as np

library, elements, rounds, threads = sys.argv[1], *map(int, sys.argv[2:])
rng = np.random.default_rng(0)
weights = rng.standard_normal(elements, dtype=np.float32)


def numpy_rules():
    out = np.empty_like(weights)

    def two_four():
        groups = np.abs(weights).reshape(-1, 4)
        best = np.argpartition(groups, 2, axis=1)[:, 2:]
        mask = np.zeros(groups.shape, bool)
        np.put_along_axis(mask, best, True, 1)
        return mask

    def tenth():
        magnitudes = np.abs(weights)
        keep = elements // 10
        threshold = np.partition(magnitudes, elements - keep)[elements - keep]
        return magnitudes >= threshold

    mask = tenth()
    return {
        "2:4": two_four,
        "density 0.1": tenth,
        "apply": lambda: np.multiply(weights, mask, out=out),
        "copy": lambda: np.copyto(out, weights),
    }


def torch_rules():
    import torch

    torch.set_num_threads(threads)
    w = torch.from_numpy(weights)
    out = torch.empty_like(w)

    def two_four():
        groups = w.abs().view(-1, 4)
        best = groups.topk(2, dim=1).indices
        return torch.zeros_like(groups, dtype=torch.bool).scatter_(1, best, True)

    def tenth():
        magnitudes = w.abs()
        keep = elements // 10
        threshold = magnitudes.kthvalue(elements - keep + 1).values
        return magnitudes >= threshold

    mask = tenth()
    return {
        "2:4": two_four,
        "density 0.1": tenth,
        "apply": lambda: torch.mul(w, mask, out=out),
        "copy": lambda: out.copy_(w),
    }


rules = torch_rules() if library == "torch" else numpy_rules()
times = {name: [] for name in rules}
for _ in range(rounds):
    for name, rule in rules.items():
        began = time.perf_counter()
        rule()
        times[name].append(1000 * (time.perf_counter() - began))
print(json.dumps(times))
