// Explains why TensorRT's ONNX parser couldn't import a model, and names the nodes.
#pragma once

#include <NvOnnxParser.h>

#include <string>
#include <vector>

#include "runtime/tensorrt/messages.h"
#include "runtime/tensorrt/tensorrt.h"

namespace node_tensorrt::tensorrt::NODE_TENSORRT_FLAVOUR {

// Returns the errors of a parser that has failed: at least one. `model` is the file's name for messages.
// Throws Error ERR_MODEL_INVALID if the parser couldn't even read the file, and ERR_OUT_OF_MEMORY.
std::vector<ImportError> importErrors(const std::string& model, const nvonnxparser::IParser& parser,
                                      const Messages& messages);

// True if the parser found neither an operator nor a plugin with the node's operator name.
bool lacksPlugin(const ImportError& error);

// Returns sentences that name the nodes.
std::string describe(const std::vector<ImportError>& errors);

}  // namespace node_tensorrt::tensorrt::NODE_TENSORRT_FLAVOUR
