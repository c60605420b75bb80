#include "core/host_memory.h"

#ifdef __GLIBC__
#include <malloc.h>
#endif

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

MemorySource hostMemory() {
  return {allocateAligned, std::free};
}

void trimHostMemory() noexcept {
#ifdef __GLIBC__
  malloc_trim(0);
#endif
}

}  // namespace node_tensorrt
