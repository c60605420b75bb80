// Reads the messages of TensorRT's ONNX parser about a model that it can't import, and finds the node that
// each is about.
#pragma once

#include <NvOnnxParser.h>

#include <string>
#include <vector>

#include "runtime/tensorrt/messages.h"
#include "runtime/tensorrt/tensorrt.h"

namespace node_tensorrt::tensorrt::NODE_TENSORRT_FLAVOUR {

// Returns at least one error for a parser that has failed. `model` is the file's name for messages. Throws
// Error ERR_MODEL_INVALID if the parser couldn't even read the file, and ERR_OUT_OF_MEMORY.
std::vector<ImportError> importErrors(const std::string& model, const nvonnxparser::IParser& parser,
                                      const Messages& messages);

// True if the parser found neither an operator nor a plugin with the node's name.
bool lacksPlugin(const ImportError& error);

// Sentences that name the nodes.
std::string describe(const std::vector<ImportError>& errors);

}  // namespace node_tensorrt::tensorrt::NODE_TENSORRT_FLAVOUR
