// Recycles memory: the inputs and outputs of runs lie in a pool's blocks, so a steady stream of runs causes
// no allocations and no page faults. The memory may be on a device.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>

namespace node_tensorrt {

// Where a pool's blocks come from. Its functions may be called from any thread.
struct MemorySource {
  std::function<void*(size_t bytes)> allocate;  // throws Error(ERR_OUT_OF_MEMORY); may wait for a device
  std::function<void(void*)> release;           // must neither throw nor wait
  // Soon calls the function, which allocates, on a thread that may wait. Null if allocating never waits.
  std::function<void(std::function<void()>)> later = nullptr;
};

// Keeps blocks that aren't in use for later. Thread-safe. Blocks may outlive the pool: they are then
// released.
class MemoryPool {
 public:
  // Releases idle blocks when there are more than `maxIdleBytes` in total.
  MemoryPool(size_t maxIdleBytes, MemorySource source);
  MemoryPool(const MemoryPool&) = delete;
  ~MemoryPool();

  // Returns a block of at least `bytes` bytes, with undefined contents. If memory runs out, it releases the
  // idle blocks and tries again; then it throws Error(ERR_OUT_OF_MEMORY).
  std::shared_ptr<void> acquire(size_t bytes);
  // Does the same without waiting. Returns null if no block of that size is idle; one will be soon, if the
  // pool may keep it and memory is available.
  std::shared_ptr<void> acquireIdle(size_t bytes);

  size_t idleBytes() const;
  size_t reservedBytes() const;  // in use and idle

 private:
  struct State;
  std::shared_ptr<void> own(void* block, size_t size);

  const std::shared_ptr<State> state_;
};

}  // namespace node_tensorrt
