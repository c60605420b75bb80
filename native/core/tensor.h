// A tensor in host memory or a GPU's. Copying a Tensor shares its memory; the memory lives as long as any
// copy does.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/data_type.h"

namespace node_tensorrt {

using Shape = std::vector<int64_t>;

enum class Location : uint8_t { kHost, kDevice };

struct Tensor {
  DataType type = DataType::kUndefined;
  Shape shape;
  std::shared_ptr<void> data;  // null for strings and for an output that the runtime is to allocate
  size_t byteLength = 0;
  Location location = Location::kHost;                // of an output without data: where it is wanted
  int device = 0;                                     // CUDA's ordinal, where the location is a device
  std::shared_ptr<std::vector<std::string>> strings;  // UTF-8 elements when type is kString
};

}  // namespace node_tensorrt
