// Device memory for the inputs, outputs and activations of one thread's runs. TensorRT and its graphs hold
// addresses, so a buffer keeps its address until a larger shape needs more. Included only by sources that are
// compiled once per flavour: see flavour.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "core/memory_pool.h"
#include "runtime/tensorrt/engine.h"

namespace node_tensorrt::tensorrt::NODE_TENSORRT_FLAVOUR {

// One buffer per input and output, and one for activations. One thread at a time may use them.
class DeviceBuffers {
 public:
  // `awaitUse` must return when the GPU no longer uses this memory. It is called before memory is released.
  DeviceBuffers(Engine& engine, std::function<void()> awaitUse);

  // Make a buffer at least this large. A buffer that has to move loses its contents. Throw
  // Error(ERR_OUT_OF_MEMORY).
  void provideInput(size_t index, size_t bytes) { provide(inputs_[index], bytes, engine_.memory); }
  void provideOutput(size_t index, size_t bytes) { provide(outputs_[index], bytes, engine_.memory); }
  void provideActivations(size_t bytes) { provide(activations_, bytes, engine_.activations); }

  void* input(size_t index) const noexcept { return inputs_[index].memory.get(); }
  void* output(size_t index) const noexcept { return outputs_[index].memory.get(); }
  void* activations() const noexcept { return activations_.memory.get(); }
  size_t activationBytes() const noexcept { return activations_.capacity; }

  // Changes whenever an address changes. Never 0.
  uint64_t generation() const noexcept { return generation_; }

 private:
  struct Buffer {
    std::shared_ptr<void> memory;
    size_t capacity = 0;
  };
  void provide(Buffer& buffer, size_t bytes, MemoryPool& pool);

  Engine& engine_;
  const std::function<void()> awaitUse_;
  std::vector<Buffer> inputs_;
  std::vector<Buffer> outputs_;
  Buffer activations_;
  uint64_t generation_ = 1;
};

}  // namespace node_tensorrt::tensorrt::NODE_TENSORRT_FLAVOUR
