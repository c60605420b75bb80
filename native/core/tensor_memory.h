// Memory for tensors that stay between a model's runs: those of a KV cache.
#pragma once

#include <cstddef>
#include <memory>

#include "core/tensor.h"

namespace node_tensorrt {

// `count` blocks of `bytes` each, whose beginnings lie a stride apart.
struct BlockCopy {
  void* to;
  size_t toStride;
  const void* from;
  size_t fromStride;
  size_t bytes;
  size_t count;
};

// One thread at a time, but for what reserve() gave, which any thread may let go of.
class TensorMemory {
 public:
  virtual ~TensorMemory() = default;

  virtual Location location() const noexcept = 0;
  virtual int device() const noexcept = 0;  // CUDA's ordinal, where the location is a device

  // Zeros; may outlive this object. Where the system can, only address space, which becomes memory as
  // it is written. Throws Error(ERR_OUT_OF_MEMORY).
  virtual std::shared_ptr<void> reserve(size_t bytes) = 0;

  // Copies, which may still go on when these return: within this memory (without overlap), to host memory and
  // from it.
  virtual void copy(const BlockCopy& blocks) = 0;
  virtual void toHost(const BlockCopy& blocks) = 0;
  virtual void fromHost(const BlockCopy& blocks) = 0;
  // Zeros `count` blocks of `bytes` each, whose beginnings lie a stride apart; that too may still go on.
  virtual void clear(void* blocks, size_t stride, size_t bytes, size_t count) = 0;
  // Waits for all of these. To be called before a run, or the host, uses them.
  virtual void finish() = 0;

  // Says that the contents aren't needed any more, and gives the memory back to the system if possible. It
  // may be written again.
  virtual void giveBack(void* from, size_t bytes) = 0;
};

}  // namespace node_tensorrt
