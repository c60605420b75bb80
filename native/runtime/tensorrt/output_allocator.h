// Memory for an output whose shape depends on the data. TensorRT asks for it during a run. Included only by
// sources that are compiled once per flavour: see flavour.h.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "core/memory_pool.h"
#include "runtime/tensorrt/api.h"
#include "runtime/tensorrt/engine.h"

namespace node_tensorrt::tensorrt::NODE_TENSORRT_FLAVOUR {

// Allocates from a pool and keeps the memory for later runs.
class OutputAllocator final : public nvinfer1::IOutputAllocator {
 public:
  explicit OutputAllocator(MemoryPool& pool) : pool_(pool) {}

  void* reallocateOutputAsync(const char*, void*, uint64_t size, uint64_t, cudaStream_t) noexcept override {
    if (size <= capacity_) return memory_.get();
    try {
      memory_.reset();
      capacity_ = 0;
      memory_ = pool_.acquire(std::max<size_t>(size, kSmallestBuffer));
      capacity_ = size;
      return memory_.get();
    } catch (...) {
      return nullptr;
    }
  }
  void notifyShape(const char*, const nvinfer1::Dims& dims) noexcept override { dims_ = dims; }

  // The output of the last run, valid once the run is enqueued.
  const void* data() const noexcept { return memory_.get(); }
  Shape shape() const { return toShape(dims_); }

 private:
  MemoryPool& pool_;
  std::shared_ptr<void> memory_;
  size_t capacity_ = 0;
  nvinfer1::Dims dims_{};
};

}  // namespace node_tensorrt::tensorrt::NODE_TENSORRT_FLAVOUR
