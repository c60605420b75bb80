"""Rewrites a mixed-precision model so that it runs in FP32 and gives FP16's numbers: every FP16 value is computed in
FP32 and rounded to FP16 and back. ONNX Runtime's own CPU kernels keep FP16 chains in FP32 and hide what FP16 does.

usage: simulate_float16.py MODEL >OUT
       simulate_float16.py --each MODEL...    each into MODEL.simulated
"""

import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, shape_inference


def simulate(model: onnx.ModelProto) -> onnx.ModelProto:
    inferred = shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    graph = inferred.graph
    half = {v.name for v in [*graph.value_info, *graph.input, *graph.output]
            if v.type.tensor_type.elem_type == TensorProto.FLOAT16}
    known = {v.name for v in [*graph.value_info, *graph.input, *graph.output]}
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT16:
            half.add(tensor.name)
            values = numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))

    nodes = []

    def rounded(source, target):
        nodes.append(helper.make_node("Cast", [source], [target + ":half"], to=TensorProto.FLOAT16))
        nodes.append(helper.make_node("Cast", [target + ":half"], [target], to=TensorProto.FLOAT))

    for node in graph.node:
        for name in node.output:
            assert name == "" or name in known, f"the type of {name} is not known"
        outputs = [name for name in node.output if name in half]
        if node.op_type == "Cast" and outputs:
            rounded(node.input[0], node.output[0])
            continue
        if node.op_type == "Constant" and outputs:
            raise NotImplementedError("an FP16 Constant node")
        exact = onnx.NodeProto()
        exact.CopyFrom(node)
        exact.output[:] = [name + ":exact" if name in half else name for name in node.output]
        nodes.append(exact)
        for name in outputs:
            rounded(name + ":exact", name)
    del graph.node[:]
    graph.node.extend(nodes)
    del graph.value_info[:]
    return inferred


if __name__ == "__main__":
    if sys.argv[1] == "--each":
        for path in sys.argv[2:]:
            onnx.save(simulate(onnx.load(path)), path + ".simulated")
    else:
        sys.stdout.buffer.write(simulate(onnx.load(sys.argv[1])).SerializeToString())
