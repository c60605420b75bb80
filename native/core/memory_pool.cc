#include "core/memory_pool.h"

#include <algorithm>
#include <bit>
#include <map>
#include <mutex>
#include <utility>
#include <vector>

#include "core/error.h"

namespace node_tensorrt {
namespace {

constexpr size_t kSmallest = 64;
constexpr size_t kStep = size_t{1} << 20;

// Uses few sizes, so that blocks can be reused: powers of two up to 1 MiB, then multiples of an eighth of a
// power of two.
size_t blockSize(size_t bytes) {
  const size_t power = std::bit_ceil(std::max(bytes, kSmallest));
  if (power <= kStep) return power;
  const size_t step = power / 16;  // an eighth of the power of two below
  return (bytes + step - 1) / step * step;
}

}  // namespace

// The state outlives the pool if blocks do. The source is called without holding the lock, because some
// threads that take the lock must not wait for a device.
struct MemoryPool::State {
  State(size_t limit, MemorySource memory) : maxIdleBytes(limit), source(std::move(memory)) {}

  void* allocate(size_t size) {
    void* block = source.allocate(size);
    std::lock_guard lock(mutex);
    reservedBytes += size;
    return block;
  }

  // Sizes that the pool wouldn't keep are not rounded up.
  size_t sizeOf(size_t bytes) const { return bytes > maxIdleBytes ? bytes : blockSize(bytes); }

  void* takeIdle(size_t size) {
    std::lock_guard lock(mutex);
    const auto entry = idle.find(size);
    if (entry == idle.end() || entry->second.empty()) return nullptr;
    void* block = entry->second.back();
    entry->second.pop_back();
    idleBytes -= size;
    return block;
  }

  // Releases all idle blocks. Returns false if there were none.
  bool releaseIdle() {
    std::map<size_t, std::vector<void*>> released;
    {
      std::lock_guard lock(mutex);
      released.swap(idle);
      reservedBytes -= idleBytes;
      if (std::exchange(idleBytes, 0) == 0) return false;
    }
    for (const auto& [size, blocks] : released) {
      for (void* block : blocks) source.release(block);
    }
    return true;
  }

  void giveBack(void* block, size_t size) {
    {
      std::lock_guard lock(mutex);
      if (!gone && idleBytes + size <= maxIdleBytes) {
        idle[size].push_back(block);
        idleBytes += size;
        return;
      }
      reservedBytes -= size;
    }
    source.release(block);
  }

  const size_t maxIdleBytes;
  const MemorySource source;
  mutable std::mutex mutex;
  std::map<size_t, std::vector<void*>> idle;  // by block size
  size_t idleBytes = 0;
  size_t reservedBytes = 0;
  bool gone = false;  // the pool was destroyed
};

MemoryPool::MemoryPool(size_t maxIdleBytes, MemorySource source)
    : state_(std::make_shared<State>(maxIdleBytes, std::move(source))) {}

MemoryPool::~MemoryPool() {
  {
    std::lock_guard lock(state_->mutex);
    state_->gone = true;
  }
  state_->releaseIdle();
}

std::shared_ptr<void> MemoryPool::acquire(size_t bytes) {
  const size_t size = state_->sizeOf(bytes);
  void* block = state_->takeIdle(size);
  if (block != nullptr) return own(block, size);
  try {
    block = state_->allocate(size);
  } catch (const Error&) {
    if (!state_->releaseIdle()) throw;
    block = state_->allocate(size);
  }
  return own(block, size);
}

std::shared_ptr<void> MemoryPool::acquireIdle(size_t bytes) {
  const size_t size = state_->sizeOf(bytes);
  if (void* block = state_->takeIdle(size)) return own(block, size);
  if (state_->source.later && size <= state_->maxIdleBytes) {
    state_->source.later([state = state_, size] {
      try {
        state->giveBack(state->allocate(size), size);
      } catch (const Error&) {
        // No memory is available for now.
      }
    });
  }
  return nullptr;
}

std::shared_ptr<void> MemoryPool::own(void* block, size_t size) {
  return std::shared_ptr<void>(block,
                               [state = state_, size](void* released) { state->giveBack(released, size); });
}

size_t MemoryPool::idleBytes() const {
  std::lock_guard lock(state_->mutex);
  return state_->idleBytes;
}

size_t MemoryPool::reservedBytes() const {
  std::lock_guard lock(state_->mutex);
  return state_->reservedBytes;
}

}  // namespace node_tensorrt
