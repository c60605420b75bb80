// A tensor in host memory. Copying a Tensor shares its memory; the memory lives as long as any copy does.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/data_type.h"

namespace node_tensorrt {

using Shape = std::vector<int64_t>;

struct Tensor {
  DataType type = DataType::kUndefined;
  Shape shape;
  std::shared_ptr<void> data;  // null for strings and for an output that the runtime is to allocate
  size_t byteLength = 0;
  std::shared_ptr<std::vector<std::string>> strings;  // UTF-8 elements when type is kString
};

}  // namespace node_tensorrt
