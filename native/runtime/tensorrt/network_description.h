// What a network of TensorRT's consists of, for callers that know nothing of TensorRT.
#pragma once

#include <string>

#include "runtime/tensorrt/api.h"
#include "runtime/tensorrt/tensorrt.h"

namespace node_tensorrt::tensorrt::NODE_TENSORRT_FLAVOUR {

NetworkDescription describe(const nvinfer1::INetworkDefinition& network);

// For a sentence: "x" [batch, 64]
std::string describeInput(const nvinfer1::ITensor& tensor);

}  // namespace node_tensorrt::tensorrt::NODE_TENSORRT_FLAVOUR
