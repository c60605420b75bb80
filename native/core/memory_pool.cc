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

// Few sizes, so that blocks are found again: powers of two up to 1 MiB, then eighths of them.
size_t blockSize(size_t bytes) {
  const size_t power = std::bit_ceil(std::max(bytes, kSmallest));
  if (power <= kStep) return power;
  const size_t step = power / 16;  // an eighth of the power of two below
  return (bytes + step - 1) / step * step;
}

}  // namespace

struct MemoryPool::State {
  State(size_t limit, MemorySource memory) : maxIdleBytes(limit), source(std::move(memory)) {}
  ~State() { releaseIdle(); }

  void releaseIdle() {
    for (auto& [size, blocks] : idle) {
      for (void* block : blocks) source.release(block);
    }
    idle.clear();
    reservedBytes -= idleBytes;
    idleBytes = 0;
  }

  const size_t maxIdleBytes;
  const MemorySource source;
  mutable std::mutex mutex;
  std::map<size_t, std::vector<void*>> idle;  // by block size
  size_t idleBytes = 0;
  size_t reservedBytes = 0;
};

MemoryPool::MemoryPool(size_t maxIdleBytes, MemorySource source)
    : state_(std::make_shared<State>(maxIdleBytes, std::move(source))) {}

std::shared_ptr<void> MemoryPool::acquire(size_t bytes) {
  // What the pool would not keep is not rounded up.
  const size_t size = bytes > state_->maxIdleBytes ? bytes : blockSize(bytes);
  void* block = nullptr;
  {
    std::lock_guard lock(state_->mutex);
    if (const auto entry = state_->idle.find(size); entry != state_->idle.end() && !entry->second.empty()) {
      block = entry->second.back();
      entry->second.pop_back();
      state_->idleBytes -= size;
    }
  }
  if (block == nullptr) {
    try {
      block = state_->source.allocate(size);
    } catch (const Error&) {
      {
        std::lock_guard lock(state_->mutex);
        if (state_->idleBytes == 0) throw;
        state_->releaseIdle();
      }
      block = state_->source.allocate(size);
    }
    std::lock_guard lock(state_->mutex);
    state_->reservedBytes += size;
  }
  return std::shared_ptr<void>(block, [state = state_, size](void* released) {
    std::lock_guard lock(state->mutex);
    if (state->idleBytes + size > state->maxIdleBytes) {
      state->source.release(released);
      state->reservedBytes -= size;
    } else {
      state->idle[size].push_back(released);
      state->idleBytes += size;
    }
  });
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
