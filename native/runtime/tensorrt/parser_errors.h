// What TensorRT's ONNX parser says of a model that it cannot import, and which node that is about.
#pragma once

#include <NvOnnxParser.h>

#include <string>
#include <vector>

#include "runtime/tensorrt/messages.h"
#include "runtime/tensorrt/tensorrt.h"

namespace node_tensorrt::tensorrt::NODE_TENSORRT_FLAVOUR {

// Why the parser, which has failed, did: at least one error. `model`: the file's name for messages. Throws
// Error ERR_MODEL_INVALID where the parser could not even read the file, and ERR_OUT_OF_MEMORY.
std::vector<ImportError> importErrors(const std::string& model, const nvonnxparser::IParser& parser,
                                      const Messages& messages);

// Whether the parser found neither an operator nor a plugin of the node's name.
bool lacksPlugin(const ImportError& error);

// Sentences that name the nodes.
std::string describe(const std::vector<ImportError>& errors);

}  // namespace node_tensorrt::tensorrt::NODE_TENSORRT_FLAVOUR
