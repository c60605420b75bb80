// A GPU's memory for tensors that stay between runs.
#pragma once

#include <memory>

#include "core/tensor_memory.h"
#include "runtime/cuda/device.h"

namespace node_tensorrt::cuda {

// Copies go on a stream of its own. Throws as Driver::call.
std::shared_ptr<TensorMemory> deviceTensorMemory(const Device& device);

}  // namespace node_tensorrt::cuda
