"""Has onnx check models, and prints of each a line of JSON: `nodes`, [operator, type of the first output]; `inputs`, the
types of an operator's inputs; `weights`, the type of each; or `error`.

stdin: any number of models, each after a line with its number of bytes.
"""

import json
import sys

import onnx
from onnx import TensorProto, shape_inference


def types(model: onnx.ModelProto) -> dict:
    onnx.checker.check_model(model, full_check=True)
    graph = shape_inference.infer_shapes(model, strict_mode=True).graph
    known = {v.name: v.type.tensor_type.elem_type for v in [*graph.value_info, *graph.input, *graph.output]}
    known.update({t.name: t.data_type for t in graph.initializer})

    def name_of(value):
        return TensorProto.DataType.Name(known[value])

    return {
        "nodes": [[node.op_type, name_of(node.output[0])] for node in graph.node],
        "inputs": {node.op_type: [name_of(value) for value in node.input if value] for node in graph.node},
        "weights": {tensor.name: name_of(tensor.name) for tensor in graph.initializer},
    }


for line in sys.stdin.buffer:
    try:
        answer = types(onnx.load_model_from_string(sys.stdin.buffer.read(int(line))))
    except Exception as error:
        answer = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(answer), flush=True)
