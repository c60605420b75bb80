"""Counts nodes, casts and FP16 nodes in what ModelOpt's AutoCast makes of models, into
test/fixtures/precision/modelopt-counts.json: once with its defaults, and once told to keep in FP32 the operators that
this package keeps there (`sensitive` in lib/onnx/graph/operators.ts), which its defaults do not. Both with the inputs and
outputs of the graph in float32, and with the same calibration data.

Run once, in an environment of its own, for ModelOpt pins an older onnx:

    pip install 'nvidia-modelopt[onnx]'
    node test/oracle/write_precision_models.mjs FOLDER
    python test/oracle/make_modelopt_counts.py FOLDER
"""

import collections
import importlib.metadata
import json
import pathlib
import re
import sys
import tempfile

import numpy as np
import onnx
from modelopt.onnx.autocast import convert_to_mixed_precision
from onnx import TensorProto

here = pathlib.Path(__file__).resolve().parent
source = (here.parent.parent / "lib/onnx/graph/operators.ts").read_text()
sensitive = re.search(r"export const sensitive = operators\(`(.*?)`\)", source, re.S).group(1).split()


def calibration(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """Two rows of eight tokens, nothing masked, no past; or two images."""
    random = np.random.default_rng(0)
    weights = {tensor.name for tensor in model.graph.initializer}
    feeds = {}
    for value in model.graph.input:
        if value.name in weights:
            continue
        dims = [d.dim_value or {0: 2, 1: 8, 2: 0}.get(axis, 1) for axis, d in enumerate(value.type.tensor_type.shape.dim)]
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            dims = [2, 3, 224, 224] if value.name == "input" else dims
            feeds[value.name] = random.standard_normal(dims).astype(np.float32)
        elif "position" in value.name:
            feeds[value.name] = np.broadcast_to(np.arange(8), dims).astype(np.int64)
        elif "mask" in value.name:
            feeds[value.name] = np.ones(dims, np.int64)
        elif "type" in value.name:
            feeds[value.name] = np.zeros(dims, np.int64)
        else:
            feeds[value.name] = random.integers(0, 300, dims)
    return feeds


def count(model: onnx.ModelProto) -> dict[str, int]:
    graph = onnx.shape_inference.infer_shapes(model).graph if model.ByteSize() < 2**30 else model.graph
    types = {v.name: v.type.tensor_type.elem_type for v in [*graph.value_info, *graph.output]}
    operators = collections.Counter(node.op_type for node in graph.node)
    half = sum(node.op_type != "Cast" and types.get(node.output[0]) == TensorProto.FLOAT16 for node in graph.node)
    return {"nodes": len(graph.node), "casts": operators["Cast"], "float16": half}


folder = pathlib.Path(sys.argv[1])
answers = {}
for path in sorted(folder.glob("*.onnx")):
    model = onnx.load(path)
    answers[path.stem] = {"given": count(model)}
    with tempfile.TemporaryDirectory() as temporary:
        data = str(pathlib.Path(temporary) / "calibration.npz")
        np.savez(data, **calibration(model))
        for label, excluded in (("defaults", None), ("sensitive", sensitive)):
            mixed = convert_to_mixed_precision(str(path), low_precision_type="fp16", keep_io_types=True,
                                               op_types_to_exclude=excluded, calibration_data=data)
            answers[path.stem][label] = count(mixed)
    print(path.stem, answers[path.stem], flush=True)

made_by = f"make_modelopt_counts.py, nvidia-modelopt {importlib.metadata.version('nvidia-modelopt')}, " \
    f"onnx {onnx.__version__}"
fixtures = here.parent / "fixtures" / "precision"
fixtures.mkdir(exist_ok=True)
(fixtures / "modelopt-counts.json").write_text(json.dumps({"made_by": made_by, "models": answers}, indent=2) + "\n")
