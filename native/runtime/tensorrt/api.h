// TensorRT as this flavour's headers declare it, and what its numbers mean, which differs between flavours.
// Included only by sources that are compiled once per flavour: see flavour.h.
#pragma once

#include <NvInfer.h>

#include <algorithm>
#include <string>
#include <string_view>

#include "core/data_type.h"
#include "runtime/tensorrt/flavour.h"

// What one flavour's headers declare and another's do not; 1 or 0. What differs between the releases of one
// flavour is known when its library is open: Capabilities in tensorrt.h.
//
// TensorRT-RTX compiles for GPUs that are not here (IBuilderConfig::setComputeCapability), keeps the kernels
// that it compiled at run time (IRuntimeCache) and judges a plan before it is loaded
// (IRuntime::getEngineValidity).
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

// Types are the model's: what TensorRT 11 and TensorRT-RTX always do (there the flag is deprecated), and
// TensorRT 10 on request.
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
