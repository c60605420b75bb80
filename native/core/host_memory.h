// Aligned host memory, recycled: a run's inputs are copied into blocks of a pool, so that a steady stream of
// runs costs neither allocations nor page faults.
#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

namespace node_tensorrt {

// Enough for any vector instruction set ONNX Runtime's kernels use.
inline constexpr size_t kHostAlignment = 64;

// A block of its own, zeroed; freed with its last owner. Throws Error(ERR_OUT_OF_MEMORY).
std::shared_ptr<void> allocateHostMemory(size_t bytes);

// Gives memory that was freed back to the system, where the allocator would keep it for later. Takes
// milliseconds.
void trimHostMemory() noexcept;

// Thread-safe. Blocks may outlive the pool: they are then freed instead of kept.
class HostMemoryPool {
 public:
  // Idle blocks above `maxIdleBytes` in total are freed rather than kept.
  explicit HostMemoryPool(size_t maxIdleBytes);

  // At least `bytes` bytes, contents undefined. Throws Error(ERR_OUT_OF_MEMORY).
  std::shared_ptr<void> acquire(size_t bytes);

  size_t idleBytes() const;

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace node_tensorrt
