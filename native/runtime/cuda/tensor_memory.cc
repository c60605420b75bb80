#include "runtime/cuda/tensor_memory.h"

#include <algorithm>
#include <optional>

#include "core/error.h"

namespace node_tensorrt::cuda {
namespace {

class DeviceTensorMemory final : public TensorMemory {
 public:
  explicit DeviceTensorMemory(const Device& device) : device_(device), source_(device.deviceMemory()) {
    const Current current(device_);
    stream_.emplace(device_);
  }

  ~DeviceTensorMemory() override {
    try {
      const Current current(device_);
      stream_.reset();
    } catch (const Error&) {
      // The driver has shut down.
    }
  }

  Location location() const noexcept override { return Location::kDevice; }
  int device() const noexcept override { return device_.ordinal(); }

  // Zeroed because of the KV cache: see KvCache.
  std::shared_ptr<void> reserve(size_t bytes) override {
    const Current current(device_);
    bytes = std::max<size_t>(bytes, 1);
    const std::shared_ptr<void> memory(source_.allocate(bytes), source_.release);
    stream_->clear(memory.get(), bytes);
    stream_->synchronize();
    return memory;
  }

  void copy(const BlockCopy& blocks) override { copy(blocks, MemoryKind::kDevice, MemoryKind::kDevice); }
  void toHost(const BlockCopy& blocks) override { copy(blocks, MemoryKind::kHost, MemoryKind::kDevice); }
  void fromHost(const BlockCopy& blocks) override { copy(blocks, MemoryKind::kDevice, MemoryKind::kHost); }

  void clear(void* blocks, size_t stride, size_t bytes, size_t count) override {
    const Current current(device_);
    stream_->clearRows(blocks, stride, bytes, count);
  }

  void finish() override {
    const Current current(device_);
    stream_->synchronize();
  }

  // Part of an allocation can't be given back.
  void giveBack(void*, size_t) override {}

 private:
  void copy(const BlockCopy& blocks, MemoryKind to, MemoryKind from) {
    const Current current(device_);
    stream_->copyRows({.data = blocks.to, .kind = to, .pitch = blocks.toStride},
                      {.data = const_cast<void*>(blocks.from), .kind = from, .pitch = blocks.fromStride},
                      blocks.bytes, blocks.count);
  }

  const Device& device_;
  const MemorySource source_;
  std::optional<Stream> stream_;
};

}  // namespace

std::shared_ptr<TensorMemory> deviceTensorMemory(const Device& device) {
  return std::make_shared<DeviceTensorMemory>(device);
}

}  // namespace node_tensorrt::cuda
