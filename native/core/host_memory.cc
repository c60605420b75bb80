#include "core/host_memory.h"

#ifdef __GLIBC__
#include <malloc.h>
#endif

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>

#include "core/error.h"

namespace node_tensorrt {
namespace {

constexpr size_t kHugePage = size_t{1} << 21;

void* allocateAligned(size_t bytes, size_t alignment) {
  const size_t rounded = (bytes + alignment - 1) / alignment * alignment;
  void* block = rounded < bytes ? nullptr : std::aligned_alloc(alignment, rounded ? rounded : alignment);
  if (block == nullptr) {
    throw Error("ERR_OUT_OF_MEMORY",
                "Could not allocate " + std::to_string(bytes) + " bytes of host memory.");
  }
  return block;
}

void* allocateForPool(size_t bytes) {
  return allocateAligned(bytes, kHostAlignment);
}

class HostTensorMemory final : public TensorMemory {
 public:
  Location location() const noexcept override { return Location::kHost; }
  int device() const noexcept override { return 0; }

  std::shared_ptr<void> reserve(size_t bytes) override {
    if (bytes == 0) return allocateHostMemory(0);
    void* address = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                         /*file*/ -1, 0);
    if (address == MAP_FAILED) {
      throw Error("ERR_OUT_OF_MEMORY", "Could not reserve " + std::to_string(bytes) +
                                           " bytes of address space: " + std::strerror(errno) + ".");
    }
    // A single token must not take a huge page in each head of each layer. Fails on kernels without huge
    // pages.
    madvise(address, bytes, MADV_NOHUGEPAGE);
    return std::shared_ptr<void>(address, [bytes](void* reserved) { munmap(reserved, bytes); });
  }

  void copy(const BlockCopy& blocks) override {
    for (size_t i = 0; i < blocks.count; ++i) {
      std::memcpy(static_cast<std::byte*>(blocks.to) + i * blocks.toStride,
                  static_cast<const std::byte*>(blocks.from) + i * blocks.fromStride, blocks.bytes);
    }
  }
  void toHost(const BlockCopy& blocks) override { copy(blocks); }
  void fromHost(const BlockCopy& blocks) override { copy(blocks); }
  void clear(void* blocks, size_t stride, size_t bytes, size_t count) override {
    for (size_t i = 0; i < count; ++i) std::memset(static_cast<std::byte*>(blocks) + i * stride, 0, bytes);
  }
  void finish() override {}

  void giveBack(void* from, size_t bytes) override {
    static const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
    const auto begin = (reinterpret_cast<uintptr_t>(from) + page - 1) / page * page;
    const auto end = (reinterpret_cast<uintptr_t>(from) + bytes) / page * page;
    if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
  }
};

}  // namespace

std::shared_ptr<void> allocateHostMemory(size_t bytes) {
  void* block = allocateAligned(bytes, kHostAlignment);
  std::memset(block, 0, bytes);
  return std::shared_ptr<void>(block, std::free);
}

std::shared_ptr<void> allocateUnzeroedMemory(size_t bytes) {
  const bool isLarge = bytes >= 2 * kHugePage;
  void* block = allocateAligned(bytes, isLarge ? kHugePage : kHostAlignment);
  // Fails on kernels without huge pages.
  if (isLarge) madvise(block, bytes, MADV_HUGEPAGE);
  return std::shared_ptr<void>(block, std::free);
}

MemorySource hostMemory() {
  return {allocateForPool, std::free};
}

std::shared_ptr<TensorMemory> hostTensorMemory() {
  return std::make_shared<HostTensorMemory>();
}

void trimHostMemory() noexcept {
#ifdef __GLIBC__
  malloc_trim(0);
#endif
}

}  // namespace node_tensorrt
