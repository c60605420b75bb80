"""Runs float32 models in float64, with onnx's reference implementation: what float32 only comes close to.

usage: run_float64.py MODEL...    each on every sample of MODEL.samples, float32 after float32, for its one input; the
                                  outputs, of every sample in turn, go into MODEL.float64
"""

import sys

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator


def widened(model: onnx.ModelProto) -> onnx.ModelProto:
    graph = model.graph
    assert not any(node.op_type in ("Cast", "Constant") for node in graph.node), "of a type of its own"
    for value in [*graph.input, *graph.output]:
        value.type.tensor_type.elem_type = TensorProto.DOUBLE
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name))
    del graph.value_info[:]
    return model


if __name__ == "__main__":
    for path in sys.argv[1:]:
        model = widened(onnx.load(path))
        (x,) = model.graph.input
        dims = [dim.dim_value for dim in x.type.tensor_type.shape.dim]
        samples = np.fromfile(path + ".samples", np.float32).reshape(-1, *dims).astype(np.float64)
        evaluator = ReferenceEvaluator(model)
        with np.errstate(all="ignore"), open(path + ".float64", "wb") as file:
            for sample in samples:
                for output in evaluator.run(None, {x.name: sample}):
                    assert output.dtype == np.float64
                    output.tofile(file)
