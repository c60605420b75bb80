// A GPU's memory for tensors that stay between runs.
#pragma once

#include <memory>

#include "runtime/cuda/device.h"
#include "runtime/runtime.h"

namespace node_tensorrt::cuda {

// Copies go on a stream of its own. Throws as Driver::call.
std::shared_ptr<TensorMemory> deviceTensorMemory(const Device& device);

}  // namespace node_tensorrt::cuda
