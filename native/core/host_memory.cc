#include "core/host_memory.h"

#ifdef __GLIBC__
#include <malloc.h>
#endif

#include <bit>
#include <cstdlib>
#include <cstring>
#include <string>

#include "core/error.h"

namespace node_tensorrt {
namespace {

void* allocateAligned(size_t bytes) {
  const size_t rounded = (bytes + kHostAlignment - 1) / kHostAlignment * kHostAlignment;
  void* block =
      rounded < bytes ? nullptr : std::aligned_alloc(kHostAlignment, rounded ? rounded : kHostAlignment);
  if (block == nullptr) {
    throw Error("ERR_OUT_OF_MEMORY",
                "Could not allocate " + std::to_string(bytes) + " bytes of host memory.");
  }
  return block;
}

}  // namespace

std::shared_ptr<void> allocateHostMemory(size_t bytes) {
  void* block = allocateAligned(bytes);
  std::memset(block, 0, bytes);
  return std::shared_ptr<void>(block, std::free);
}

void trimHostMemory() noexcept {
#ifdef __GLIBC__
  malloc_trim(0);
#endif
}

struct HostMemoryPool::State {
  ~State() {
    for (auto& [size, blocks] : idle) {
      for (void* block : blocks) std::free(block);
    }
  }

  const size_t maxIdleBytes;
  mutable std::mutex mutex;
  std::map<size_t, std::vector<void*>> idle;  // by block size, a power of two
  size_t idleBytes = 0;

  explicit State(size_t limit) : maxIdleBytes(limit) {}
};

HostMemoryPool::HostMemoryPool(size_t maxIdleBytes) : state_(std::make_shared<State>(maxIdleBytes)) {}

std::shared_ptr<void> HostMemoryPool::acquire(size_t bytes) {
  // A block larger than the pool may keep is not worth rounding up to twice its size.
  if (bytes > state_->maxIdleBytes) return std::shared_ptr<void>(allocateAligned(bytes), std::free);
  const size_t size = std::bit_ceil(bytes < kHostAlignment ? kHostAlignment : bytes);
  void* block = nullptr;
  {
    std::lock_guard lock(state_->mutex);
    auto& blocks = state_->idle[size];
    if (!blocks.empty()) {
      block = blocks.back();
      blocks.pop_back();
      state_->idleBytes -= size;
    }
  }
  if (block == nullptr) block = allocateAligned(size);
  return std::shared_ptr<void>(block, [state = state_, size](void* released) {
    std::lock_guard lock(state->mutex);
    if (state->idleBytes + size > state->maxIdleBytes) {
      std::free(released);
    } else {
      state->idle[size].push_back(released);
      state->idleBytes += size;
    }
  });
}

size_t HostMemoryPool::idleBytes() const {
  std::lock_guard lock(state_->mutex);
  return state_->idleBytes;
}

}  // namespace node_tensorrt
