// Describes a TensorRT network for callers that don't use TensorRT's headers.
#pragma once

#include <string>

#include "runtime/tensorrt/api.h"
#include "runtime/tensorrt/tensorrt.h"

namespace node_tensorrt::tensorrt::NODE_TENSORRT_FLAVOUR {

NetworkDescription describe(const nvinfer1::INetworkDefinition& network);

// Describes an input for a sentence: "x" [batch, 64]
std::string describeInput(const nvinfer1::ITensor& tensor);

}  // namespace node_tensorrt::tensorrt::NODE_TENSORRT_FLAVOUR
