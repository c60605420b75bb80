// Memory for tensors that stay in place between runs, such as a KV cache.
#pragma once

#include <cstddef>
#include <memory>

#include "core/tensor.h"

namespace node_tensorrt {

// Copies `count` blocks of `bytes` each. Strides are the distances in bytes between the beginnings of blocks.
struct BlockCopy {
  void* to;
  size_t toStride;
  const void* from;
  size_t fromStride;
  size_t bytes;
  size_t count;
};

// Memory of the host or of one device. One thread at a time may use it, but any thread may free what
// reserve() returned.
class TensorMemory {
 public:
  virtual ~TensorMemory() = default;

  virtual Location location() const noexcept = 0;
  virtual int device() const noexcept = 0;  // CUDA's device ordinal, if the location is a device

  // Returns zeroed memory, which may outlive this object. Where the system can, this only reserves address
  // space, which becomes memory as it is written. Throws Error(ERR_OUT_OF_MEMORY).
  virtual std::shared_ptr<void> reserve(size_t bytes) = 0;

  // Copy within this memory (without overlap), to host memory, and from host memory. They may return before
  // the copy is done.
  virtual void copy(const BlockCopy& blocks) = 0;
  virtual void toHost(const BlockCopy& blocks) = 0;
  virtual void fromHost(const BlockCopy& blocks) = 0;
  // Zeros `count` blocks of `bytes` each, whose beginnings are `stride` bytes apart. It may return before
  // that is done.
  virtual void clear(void* blocks, size_t stride, size_t bytes, size_t count) = 0;
  // Waits until all of these are done. Call this before a run or the host uses the memory.
  virtual void finish() = 0;

  // Gives memory whose contents are no longer needed back to the system, where that is possible. The memory
  // may be written again.
  virtual void giveBack(void* from, size_t bytes) = 0;
};

}  // namespace node_tensorrt
