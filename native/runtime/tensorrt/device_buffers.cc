// Compiled once per flavour, with NODE_TENSORRT_FLAVOUR as its name: see flavour.h.
#include "runtime/tensorrt/device_buffers.h"

namespace node_tensorrt::tensorrt::NODE_TENSORRT_FLAVOUR {

DeviceBuffers::DeviceBuffers(Engine& engine)
    : engine_(engine), inputs_(engine.inputs.size()), outputs_(engine.outputs.size()) {}

void DeviceBuffers::provide(Buffer& buffer, size_t bytes, MemoryPool& pool) {
  if (bytes < kSmallestBuffer) bytes = kSmallestBuffer;
  if (bytes <= buffer.capacity) return;
  ++generation_;
  // First, so that both need not fit at once. The stream is idle between runs.
  buffer = {};
  buffer.memory = pool.acquire(bytes);
  buffer.capacity = bytes;
}

}  // namespace node_tensorrt::tensorrt::NODE_TENSORRT_FLAVOUR
