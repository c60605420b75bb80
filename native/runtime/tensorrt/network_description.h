// Describes a network of TensorRT's for callers that don't know TensorRT.
#pragma once

#include <string>

#include "runtime/tensorrt/api.h"
#include "runtime/tensorrt/tensorrt.h"

namespace node_tensorrt::tensorrt::NODE_TENSORRT_FLAVOUR {

NetworkDescription describe(const nvinfer1::INetworkDefinition& network);

// A tensor's name and dimensions for a sentence: "x" [batch, 64]
std::string describeInput(const nvinfer1::ITensor& tensor);

}  // namespace node_tensorrt::tensorrt::NODE_TENSORRT_FLAVOUR
