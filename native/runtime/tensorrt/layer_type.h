// The names of TensorRT's layer types.
#pragma once

#include "runtime/tensorrt/api.h"

namespace node_tensorrt::tensorrt::NODE_TENSORRT_FLAVOUR {

// TensorRT's own term, e.g. "MATRIX_MULTIPLY"; "UNKNOWN" for a type that is newer than this list.
const char* layerTypeName(nvinfer1::LayerType type);

}  // namespace node_tensorrt::tensorrt::NODE_TENSORRT_FLAVOUR
