// Compiled once per flavour, with NODE_TENSORRT_FLAVOUR as its name: see flavour.h.
#include "runtime/tensorrt/device_buffers.h"

#include <utility>

namespace node_tensorrt::tensorrt::NODE_TENSORRT_FLAVOUR {

DeviceBuffers::DeviceBuffers(Engine& engine, std::function<void()> awaitUse)
    : engine_(engine),
      awaitUse_(std::move(awaitUse)),
      inputs_(engine.inputs.size()),
      outputs_(engine.outputs.size()) {}

void DeviceBuffers::provide(Buffer& buffer, size_t bytes, MemoryPool& pool) {
  if (bytes < kSmallestBuffer) bytes = kSmallestBuffer;
  if (bytes <= buffer.capacity) return;
  awaitUse_();
  ++generation_;
  // Release the old memory first, so that both need not fit at once.
  buffer = {};
  buffer.memory = pool.acquire(bytes);
  buffer.capacity = bytes;
}

}  // namespace node_tensorrt::tensorrt::NODE_TENSORRT_FLAVOUR
