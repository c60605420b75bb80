// Errors for models that couldn't be compiled: TensorRT's messages, and what they mean.
#pragma once

#include <string>

#include "core/error.h"
#include "runtime/tensorrt/messages.h"

namespace node_tensorrt::tensorrt::NODE_TENSORRT_FLAVOUR {

// Returns an ERR_BUILD_FAILED. `what` says what TensorRT could not do, as in couldNot().
Error buildFailed(const std::string& what, const Messages& messages);

}  // namespace node_tensorrt::tensorrt::NODE_TENSORRT_FLAVOUR
