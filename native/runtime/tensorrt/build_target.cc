#include "runtime/tensorrt/build_target.h"

#include <algorithm>
#include <array>
#include <string>
#include <utility>

#include "core/error.h"

namespace node_tensorrt::tensorrt::NODE_TENSORRT_FLAVOUR {
namespace {

// The GPU that TensorRT compiles for by default: `device`, or CUDA's first.
cuda::Gpu gpuHere(const cuda::Device* device) {
  if (device != nullptr) return device->gpu();
  cuda::Report report = cuda::probe();
  if (!report.gpus.empty()) return std::move(report.gpus.front());
  throw Error(
      "ERR_NO_GPU",
      "There is no GPU to compile for: name one in options.target, such as \"sm_89\". " + report.error);
}

#if NODE_TENSORRT_RTX

// The compute capabilities in TensorRT-RTX's headers. They don't include sm_90 and sm_100.
constexpr std::array<std::pair<int, nvinfer1::ComputeCapability>, 6> kComputeCapabilities = {{
    {75, nvinfer1::ComputeCapability::kSM75},
    {80, nvinfer1::ComputeCapability::kSM80},
    {86, nvinfer1::ComputeCapability::kSM86},
    {89, nvinfer1::ComputeCapability::kSM89},
    {120, nvinfer1::ComputeCapability::kSM120},
    {121, nvinfer1::ComputeCapability::kSM121},
}};

const nvinfer1::ComputeCapability* findComputeCapability(int number) {
  const auto entry = std::find_if(kComputeCapabilities.begin(), kComputeCapabilities.end(),
                                  [number](const auto& known) { return known.first == number; });
  return entry == kComputeCapabilities.end() ? nullptr : &entry->second;
}

std::string listComputeCapabilities() {
  std::string list;
  for (const auto& [number, value] : kComputeCapabilities) {
    list += (list.empty() ? "sm_" : ", sm_") + std::to_string(number);
  }
  return list;
}

#endif

}  // namespace

#if NODE_TENSORRT_RTX

void setTargets(nvinfer1::IBuilderConfig& config, const std::vector<int>& computeCapabilities,
                const cuda::Device* device) {
  std::vector<nvinfer1::ComputeCapability> targets;
  for (const int number : computeCapabilities) {
    const nvinfer1::ComputeCapability* target = findComputeCapability(number);
    if (target == nullptr) {
      throw Error("ERR_INVALID_ARG_VALUE", "options.target names sm_" + std::to_string(number) +
                                               ", for which TensorRT-RTX cannot compile; it supports " +
                                               listComputeCapabilities() + '.');
    }
    targets.push_back(*target);
  }
  if (targets.empty()) {
    const cuda::Gpu gpu = gpuHere(device);
    if (findComputeCapability(gpu.major * 10 + gpu.minor) == nullptr) {
      throw Error("ERR_LIBRARY_UNSUPPORTED", "TensorRT-RTX cannot compile for this machine's GPU (" +
                                                 gpu.name + ", sm_" +
                                                 std::to_string(gpu.major * 10 + gpu.minor) +
                                                 "); it supports " + listComputeCapabilities() + '.');
    }
    targets.push_back(nvinfer1::ComputeCapability::kCURRENT);
  }
  bool accepted = config.setNbComputeCapabilities(static_cast<int32_t>(targets.size()));
  for (size_t i = 0; i < targets.size(); ++i) {
    accepted = accepted && config.setComputeCapability(targets[i], static_cast<int32_t>(i));
  }
  if (!accepted) throw Error("ERR_INVALID_ARG_VALUE", "options.target was refused by TensorRT-RTX.");
}

#else

// TensorRT measures kernels on the GPU in this machine and compiles only for that one.
void setTargets(nvinfer1::IBuilderConfig&, const std::vector<int>& computeCapabilities,
                const cuda::Device* device) {
  const cuda::Gpu gpu = gpuHere(device);
  for (const int number : computeCapabilities) {
    if (number == gpu.major * 10 + gpu.minor) continue;
    throw Error("ERR_LIBRARY_UNSUPPORTED",
                "options.target names sm_" + std::to_string(number) +
                    ", but TensorRT compiles only for the GPU of the machine it runs on, here " + gpu.name +
                    ", sm_" + std::to_string(gpu.major * 10 + gpu.minor) +
                    ". TensorRT-RTX compiles for others: install it, and leave options.runtime to it.");
  }
}

#endif

}  // namespace node_tensorrt::tensorrt::NODE_TENSORRT_FLAVOUR
