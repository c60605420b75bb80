// GPU memory for tensors that stay in place between runs.
#pragma once

#include <memory>

#include "core/tensor_memory.h"
#include "runtime/cuda/device.h"

namespace node_tensorrt::cuda {

// Returns the device's memory. Copies run on a stream of its own. Throws as Driver::call.
std::shared_ptr<TensorMemory> deviceTensorMemory(const Device& device);

}  // namespace node_tensorrt::cuda
