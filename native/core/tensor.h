// A tensor in host memory or in a GPU's memory. Copies of a Tensor share its memory, which lives as long as
// any copy does.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/data_type.h"

namespace node_tensorrt {

using Shape = std::vector<int64_t>;

// The number of elements of a tensor with these dimensions, of which none is negative.
inline size_t elementCount(const Shape& shape) {
  size_t count = 1;
  for (const int64_t size : shape) count *= static_cast<size_t>(size);
  return count;
}

enum class Location : uint8_t { kHost, kDevice };

struct Tensor {
  DataType type = DataType::kUndefined;
  Shape shape;
  std::shared_ptr<void> data;  // null for strings, and for an output that the runtime allocates
  size_t byteLength = 0;
  Location location = Location::kHost;  // where the data is or, for an output without data, should be
  int device = 0;                       // CUDA's device ordinal, if the tensor is on a device
  std::shared_ptr<std::vector<std::string>> strings;  // UTF-8 elements when type is kString
};

}  // namespace node_tensorrt
