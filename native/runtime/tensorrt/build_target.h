// The GPUs that a plan is compiled for, and the one that TensorRT uses meanwhile.
#pragma once

#include <optional>
#include <vector>

#include "runtime/cuda/device.h"
#include "runtime/tensorrt/api.h"

namespace node_tensorrt::tensorrt::NODE_TENSORRT_FLAVOUR {

// Has TensorRT compile for these compute capabilities (89 for sm_89). Where there are none it compiles for
// the GPU here: `device`, or CUDA's first where that is null. Only TensorRT-RTX can compile for others.
// Throws Error ERR_INVALID_ARG_VALUE, ERR_LIBRARY_UNSUPPORTED or ERR_NO_GPU.
void setTargets(nvinfer1::IBuilderConfig& config, const std::vector<int>& computeCapabilities,
                const cuda::Device* device);

// The GPU for TensorRT to use, which takes the one that is current on its thread.
class UsedDevice {
 public:
  explicit UsedDevice(std::optional<int> ordinal)
      : device_(ordinal ? &cuda::Device::open(*ordinal) : nullptr) {
    if (device_ != nullptr) current_.emplace(*device_);
  }

  // Null where none was named.
  const cuda::Device* device() const noexcept { return device_; }

 private:
  const cuda::Device* const device_;
  std::optional<cuda::Current> current_;
};

}  // namespace node_tensorrt::tensorrt::NODE_TENSORRT_FLAVOUR
