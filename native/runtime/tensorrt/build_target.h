// The GPUs that a plan is compiled for, and the GPU that TensorRT uses while it compiles.
#pragma once

#include <optional>
#include <vector>

#include "runtime/cuda/device.h"
#include "runtime/tensorrt/api.h"

namespace node_tensorrt::tensorrt::NODE_TENSORRT_FLAVOUR {

// Makes TensorRT compile for these compute capabilities (89 for sm_89). If there are none, it compiles for
// `device`, or for CUDA's first GPU if that is null. Only TensorRT-RTX can compile for other GPUs. Throws
// Error ERR_INVALID_ARG_VALUE, ERR_LIBRARY_UNSUPPORTED or ERR_NO_GPU.
void setTargets(nvinfer1::IBuilderConfig& config, const std::vector<int>& computeCapabilities,
                const cuda::Device* device);

// Makes a GPU current on the calling thread, because that is the one TensorRT uses. Does nothing without an
// ordinal.
class UsedDevice {
 public:
  explicit UsedDevice(std::optional<int> ordinal)
      : device_(ordinal ? &cuda::Device::open(*ordinal) : nullptr) {
    if (device_ != nullptr) current_.emplace(*device_);
  }

  // Null if no ordinal was given.
  const cuda::Device* device() const noexcept { return device_; }

 private:
  const cuda::Device* const device_;
  std::optional<cuda::Current> current_;
};

}  // namespace node_tensorrt::tensorrt::NODE_TENSORRT_FLAVOUR
