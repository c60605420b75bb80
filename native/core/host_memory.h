// Aligned host memory.
#pragma once

#include <cstddef>
#include <memory>

#include "core/memory_pool.h"
#include "core/tensor_memory.h"

namespace node_tensorrt {

// Enough for any vector instruction set ONNX Runtime's kernels use.
inline constexpr size_t kHostAlignment = 64;

// A block of its own, zeroed; freed with its last owner. Throws Error(ERR_OUT_OF_MEMORY).
std::shared_ptr<void> allocateHostMemory(size_t bytes);

// Aligned memory for a pool.
MemorySource hostMemory();

// Address space, which becomes memory page by page as it is written. Zeros lie where nothing was written, or
// what was is given back.
std::shared_ptr<TensorMemory> hostTensorMemory();

// Gives memory that was freed back to the system, where the allocator would keep it for later. Takes
// milliseconds.
void trimHostMemory() noexcept;

}  // namespace node_tensorrt
