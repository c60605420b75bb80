"""Compiles an ONNX model with TensorRT-RTX's own Python binding, as bench/build.mjs asks: JSON in, JSON out."""

import json
import resource
import sys

import tensorrt_rtx_bindings as trt

request = json.loads(sys.argv[1])
logger = trt.Logger(trt.Logger.ERROR)
builder = trt.Builder(logger)
network = builder.create_network(0)
parser = trt.OnnxParser(network, logger)
if not parser.parse_from_file(request["model"]):
    raise SystemExit(str(parser.get_error(0)))
config = builder.create_builder_config()
config.num_compute_capabilities = 1
config.set_compute_capability(trt.ComputeCapability.SM89, 0)
profile = builder.create_optimization_profile()
for name, shape in request["shapes"].items():
    profile.set_shape(name, shape["min"], shape["opt"], shape["max"])
config.add_optimization_profile(profile)
plan = builder.build_serialized_network(network, config)
if plan is None:
    raise SystemExit("TensorRT could not compile the model.")
with open(request["plan"], "wb") as file:
    file.write(plan)
print(json.dumps({"preparation": 0, "bytes": plan.nbytes, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}))
