// Aligned host memory.
#pragma once

#include <cstddef>
#include <memory>

#include "core/memory_pool.h"
#include "core/tensor_memory.h"

namespace node_tensorrt {

// Enough for any vector instruction set that ONNX Runtime's kernels use.
inline constexpr size_t kHostAlignment = 64;

// Allocates one zeroed block, which its last owner frees. Throws Error(ERR_OUT_OF_MEMORY).
std::shared_ptr<void> allocateHostMemory(size_t bytes);

// As allocateHostMemory(), but the block isn't zeroed. A large one is made of huge pages where the system has
// them, because it costs more to get many small ones than to write to them.
std::shared_ptr<void> allocateUnzeroedMemory(size_t bytes);

// A source of aligned memory for a pool.
MemorySource hostMemory();

// Reserves address space, which becomes memory page by page as it is written. Pages that weren't written, or
// were given back, read as zeros.
std::shared_ptr<TensorMemory> hostTensorMemory();

// Returns freed memory that the allocator would keep to the system. Takes milliseconds.
void trimHostMemory() noexcept;

}  // namespace node_tensorrt
