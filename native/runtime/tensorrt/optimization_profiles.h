// Turns the shapes that a plan is compiled for into TensorRT's optimization profiles.
#pragma once

#include <vector>

#include "runtime/runtime.h"
#include "runtime/tensorrt/api.h"

namespace node_tensorrt::tensorrt::NODE_TENSORRT_FLAVOUR {

// Adds a profile to `config` for each of `profiles`. Throws Error ERR_INVALID_ARG_VALUE, which names the part
// of options.shapes that doesn't fit the network, ERR_MODEL_UNSUPPORTED or ERR_BUILD_FAILED.
void setProfiles(nvinfer1::IBuilder& builder, nvinfer1::IBuilderConfig& config,
                 const nvinfer1::INetworkDefinition& network, const std::vector<Profile>& profiles);

}  // namespace node_tensorrt::tensorrt::NODE_TENSORRT_FLAVOUR
