// TensorRT's execution contexts, each set up for the shapes of a run and kept, with its CUDA graph, for the
// next one with the same. Included only by sources that are compiled once per flavour: see flavour.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <vector>

#include "core/tensor.h"
#include "runtime/cuda/device.h"
#include "runtime/tensorrt/device_buffers.h"
#include "runtime/tensorrt/engine.h"
#include "runtime/tensorrt/messages.h"
#include "runtime/tensorrt/output_allocator.h"

namespace node_tensorrt::tensorrt::NODE_TENSORRT_FLAVOUR {

// Distinguishes one graph from another: everything that TensorRT's work depends on, except the elements of
// tensors.
struct ShapeKey {
  int profile = -1;
  std::vector<Shape> shapes;   // of the inputs
  std::vector<Shape> values;   // of the inputs on the host
  std::vector<void*> aliased;  // memory of the caller's that outputs share
  bool operator==(const ShapeKey&) const = default;
};

// Throws Error(ERR_SHAPE_MISMATCH) where no profile accepts the inputs.
ShapeKey keyOf(const Engine& engine, std::span<const Tensor> inputs);

// One of TensorRT's execution contexts, set up for one key. The contexts of one thread share their buffers
// and their stream, and run one after the other.
class BoundShapes {
 public:
  // Throws Error(ERR_OUT_OF_MEMORY).
  BoundShapes(Engine& engine, const cuda::Stream& stream, DeviceBuffers& buffers);

  // Its profile is -1 as long as no shapes are set.
  const ShapeKey& key() const noexcept { return key_; }
  // Sets the context up for inputs that have this key, which TensorRT takes long for. Throws Error.
  void setShapes(ShapeKey key, std::span<const Tensor> inputs);
  void forgetShapes() { key_ = {}; }
  // Provides memory for everything that a run with these shapes reads and writes.
  void provideBuffers(std::span<const Tensor> inputs);
  // Does the same, and gives TensorRT the addresses where they have changed.
  void bind(std::span<const Tensor> inputs);

  // Gives the run to the stream: as a CUDA graph once there is one, which the second run captures.
  void enqueue(const Messages& messages);
  // Must be called after the stream has reached the end of a run.
  void setWarm() noexcept { warm_ = true; }

  bool dependsOnData(size_t output) const noexcept { return allocators_[output] != nullptr; }
  // If the shape depends on the data, it is that of the run that was enqueued last.
  Shape outputShape(size_t output) const;
  // The address that TensorRT writes the output to. It is hostOutput()'s where that is not null.
  const void* outputAddress(std::span<const Tensor> inputs, size_t output) const;
  const std::shared_ptr<void>& hostOutput(size_t output) const { return hostOutputs_[output]; }

 private:
  friend class BoundShapesCache;

  Engine& engine_;
  const cuda::Stream& stream_;
  DeviceBuffers& buffers_;
  const std::unique_ptr<nvinfer1::IExecutionContext> context_;
  ShapeKey key_;
  uint64_t lastUse_ = 0;
  uint64_t boundGeneration_ = 0;  // of the buffers whose addresses TensorRT has
  bool warm_ = false;             // ran with them
  bool capturable_ = true;
  std::unique_ptr<cuda::Graph> graph_;
  std::vector<Shape> outputShapes_;
  std::vector<std::shared_ptr<void>> hostInputs_;             // null for those on the device
  std::vector<std::shared_ptr<void>> hostOutputs_;            // likewise
  std::vector<std::unique_ptr<OutputAllocator>> allocators_;  // of outputs whose shape depends on the data
};

// The contexts of one thread, by shapes. Those that were not used for longest make room for new ones.
class BoundShapesCache {
 public:
  BoundShapesCache(Engine& engine, const cuda::Stream& stream, DeviceBuffers& buffers)
      : engine_(engine), stream_(stream), buffers_(buffers) {}

  // Has so many more kept than without.
  void expect(size_t count) { expected_ = count; }
  // Returns the context that is set up for the key; or, if there is none, one that the caller is to set up.
  // Throws Error(ERR_OUT_OF_MEMORY).
  BoundShapes& find(const ShapeKey& key);

 private:
  BoundShapes& choose(const ShapeKey& key);

  Engine& engine_;
  const cuda::Stream& stream_;
  DeviceBuffers& buffers_;
  std::deque<BoundShapes> all_;  // never moved: callers hold references
  size_t expected_ = 0;
  uint64_t uses_ = 0;
};

}  // namespace node_tensorrt::tensorrt::NODE_TENSORRT_FLAVOUR
