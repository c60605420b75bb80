// The names of TensorRT's layer types.
#pragma once

#include "runtime/tensorrt/api.h"

namespace node_tensorrt::tensorrt::NODE_TENSORRT_FLAVOUR {

// TensorRT's own name, such as "MATRIX_MULTIPLY", or "UNKNOWN" for types newer than this list.
const char* layerTypeName(nvinfer1::LayerType type);

}  // namespace node_tensorrt::tensorrt::NODE_TENSORRT_FLAVOUR
