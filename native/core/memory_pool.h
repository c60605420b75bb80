// Memory, recycled: a run's inputs and outputs lie in blocks of a pool, so that a steady stream of runs costs
// neither allocations nor page faults. The memory may be a device's.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>

namespace node_tensorrt {

// Where a pool's blocks come from. Both functions are called from any thread.
struct MemorySource {
  std::function<void*(size_t bytes)> allocate;  // throws Error(ERR_OUT_OF_MEMORY)
  std::function<void(void*)> release;           // must not throw
};

// Thread-safe. Blocks may outlive the pool: they are then released instead of kept.
class MemoryPool {
 public:
  // Idle blocks above `maxIdleBytes` in total are released rather than kept.
  MemoryPool(size_t maxIdleBytes, MemorySource source);

  // At least `bytes` bytes, contents undefined. Throws Error(ERR_OUT_OF_MEMORY), after having tried again
  // without idle blocks.
  std::shared_ptr<void> acquire(size_t bytes);

  size_t idleBytes() const;
  size_t reservedBytes() const;  // in use and idle

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace node_tensorrt
