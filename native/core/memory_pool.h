// Memory, recycled: a run's inputs and outputs lie in blocks of a pool, so that a steady stream of runs costs
// neither allocations nor page faults. The memory may be a device's.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>

namespace node_tensorrt {

// The source of a pool's blocks. Its functions may be called from any thread.
struct MemorySource {
  std::function<void*(size_t bytes)> allocate;  // throws Error(ERR_OUT_OF_MEMORY); may wait for a device
  std::function<void(void*)> release;           // must neither throw nor wait
  // Calls what allocates, soon, on a thread that may wait; null where no allocation waits.
  std::function<void(std::function<void()>)> later = nullptr;
};

// Thread-safe. Blocks may outlive the pool: they are then released instead of kept.
class MemoryPool {
 public:
  // Idle blocks above `maxIdleBytes` in total are released rather than kept.
  MemoryPool(size_t maxIdleBytes, MemorySource source);
  MemoryPool(const MemoryPool&) = delete;
  ~MemoryPool();

  // At least `bytes` bytes, contents undefined. Throws Error(ERR_OUT_OF_MEMORY), after having tried again
  // without idle blocks.
  std::shared_ptr<void> acquire(size_t bytes);
  // The same without waiting: null where no block of that size is idle. Soon after there is one, if the pool
  // may keep it and there is memory.
  std::shared_ptr<void> acquireIdle(size_t bytes);

  size_t idleBytes() const;
  size_t reservedBytes() const;  // in use and idle

 private:
  struct State;
  std::shared_ptr<void> own(void* block, size_t size);

  const std::shared_ptr<State> state_;
};

}  // namespace node_tensorrt
