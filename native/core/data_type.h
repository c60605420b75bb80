// Element types. The values are those of TensorProto.DataType in onnx.proto. ONNX Runtime's
// ONNXTensorElementDataType uses the same ones, so a type is the same number in every interface.
#pragma once

#include <cstddef>
#include <cstdint>

namespace node_tensorrt {

enum class DataType : int32_t {
  kUndefined = 0,
  kFloat32 = 1,
  kUint8 = 2,
  kInt8 = 3,
  kUint16 = 4,
  kInt16 = 5,
  kInt32 = 6,
  kInt64 = 7,
  kString = 8,
  kBool = 9,
  kFloat16 = 10,
  kFloat64 = 11,
  kUint32 = 12,
  kUint64 = 13,
  kBfloat16 = 16,
};

// Returns the bytes of one element, or 0 for strings and unsupported types.
constexpr size_t byteSize(DataType type) noexcept {
  switch (type) {
    case DataType::kUint8:
    case DataType::kInt8:
    case DataType::kBool:
      return 1;
    case DataType::kUint16:
    case DataType::kInt16:
    case DataType::kFloat16:
    case DataType::kBfloat16:
      return 2;
    case DataType::kFloat32:
    case DataType::kInt32:
    case DataType::kUint32:
      return 4;
    case DataType::kInt64:
    case DataType::kUint64:
    case DataType::kFloat64:
      return 8;
    case DataType::kString:
    case DataType::kUndefined:
      return 0;
  }
  return 0;
}

}  // namespace node_tensorrt
