// TensorRT as this flavour's headers declare it, and conversions for its types, whose values differ between
// flavours. Included only by sources that are compiled once per flavour: see flavour.h.
#pragma once

#include <NvInfer.h>

#include <algorithm>
#include <string>
#include <string_view>

#include "core/data_type.h"
#include "runtime/tensorrt/flavour.h"

// 1 if the headers are TensorRT-RTX's, or 0. Only these declare how to compile for other GPUs
// (IBuilderConfig::setComputeCapability), keep kernels that were compiled at run time (IRuntimeCache) and
// check a plan before loading it (IRuntime::getEngineValidity). Differences between releases of one flavour
// are only known when its library is open: see Capabilities in tensorrt.h.
#ifdef TRT_MAJOR_RTX
#define NODE_TENSORRT_RTX 1
#else
#define NODE_TENSORRT_RTX 0
#endif

namespace node_tensorrt::tensorrt::NODE_TENSORRT_FLAVOUR {

#if NODE_TENSORRT_RTX
inline constexpr Flavour kFlavour = Flavour::kRtx;
#elif NV_TENSORRT_MAJOR == 10
inline constexpr Flavour kFlavour = Flavour::kTrt10;
#else
inline constexpr Flavour kFlavour = Flavour::kTrt11;
#endif

// Makes networks keep the model's types. TensorRT 11 and TensorRT-RTX always do, and the flag is deprecated
// there. TensorRT 10 needs the flag.
inline uint32_t networkFlags() {
#if NV_TENSORRT_MAJOR == 10
  return 1U << static_cast<uint32_t>(nvinfer1::NetworkDefinitionCreationFlag::kSTRONGLY_TYPED);
#else
  return 0;
#endif
}

inline DataType toDataType(nvinfer1::DataType type) {
  switch (type) {
    case nvinfer1::DataType::kFLOAT:
      return DataType::kFloat32;
    case nvinfer1::DataType::kHALF:
      return DataType::kFloat16;
    case nvinfer1::DataType::kBF16:
      return DataType::kBfloat16;
    case nvinfer1::DataType::kINT8:
      return DataType::kInt8;
    case nvinfer1::DataType::kUINT8:
      return DataType::kUint8;
    case nvinfer1::DataType::kINT32:
      return DataType::kInt32;
    case nvinfer1::DataType::kINT64:
      return DataType::kInt64;
    case nvinfer1::DataType::kBOOL:
      return DataType::kBool;
    default:
      return DataType::kUndefined;
  }
}

inline std::string quoted(std::string_view text) {
  std::string result = "\"";
  return result.append(text).append("\"");
}

inline std::string toString(const Shape& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) text += (i > 0 ? ", " : "") + std::to_string(shape[i]);
  return text + ']';
}

inline Shape toShape(const nvinfer1::Dims& dims) {
  return dims.nbDims > 0 ? Shape(dims.d, dims.d + dims.nbDims) : Shape{};
}

inline nvinfer1::Dims toDims(const Shape& shape) {
  nvinfer1::Dims dims;
  dims.nbDims = static_cast<int32_t>(shape.size());
  std::copy(shape.begin(), shape.end(), dims.d);
  return dims;
}

}  // namespace node_tensorrt::tensorrt::NODE_TENSORRT_FLAVOUR
