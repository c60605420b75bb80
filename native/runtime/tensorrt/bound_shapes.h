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

// What tells one graph from another: everything that TensorRT's work depends on but the elements of tensors.
struct ShapeKey {
  int profile = -1;
  std::vector<Shape> shapes;   // of the inputs
  std::vector<Shape> values;   // of the inputs on the host
  std::vector<void*> aliased;  // memory of the caller's that outputs share
  bool operator==(const ShapeKey&) const = default;
};

// Throws Error(ERR_SHAPE_MISMATCH) where no profile accepts the inputs.
ShapeKey keyOf(const Engine& engine, std::span<const Tensor> inputs);

// One of TensorRT's execution contexts, set up for one key. Of those that share buffers one runs at a time,
// on the stream that they share too.
class BoundShapes {
 public:
  // Throws Error(ERR_OUT_OF_MEMORY).
  BoundShapes(Engine& engine, const cuda::Stream& stream, DeviceBuffers& buffers);

  // Of no profile where it is set up for nothing.
  const ShapeKey& key() const noexcept { return key_; }
  // Tells TensorRT the shapes of inputs that have this key. Throws Error.
  void setShapes(ShapeKey key, std::span<const Tensor> inputs);
  void forgetShapes() { key_ = {}; }
  // Memory for everything that a run with these shapes reads and writes.
  void provideBuffers(std::span<const Tensor> inputs);
  // The same; and gives TensorRT the addresses of everything, where they have changed.
  void bind(std::span<const Tensor> inputs);

  // Gives the run to the stream, as a graph where there is one.
  void enqueue(const Messages& messages);
  // To be called after the stream has come to the end of a run.
  void setWarm() noexcept { warm_ = true; }

  // Of a shape that depends on the data, once the run is enqueued.
  Shape outputShape(size_t output) const;
  // Where TensorRT writes it; in host memory if hostOutput() is there.
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

// The shapes that one thread ran last.
class BoundShapesCache {
 public:
  BoundShapesCache(Engine& engine, const cuda::Stream& stream, DeviceBuffers& buffers)
      : engine_(engine), stream_(stream), buffers_(buffers) {}

  // So many more are kept.
  void expect(size_t count) { expected_ = count; }
  // What is set up for the key, or what is to be: something new, or what was used longest ago. Throws
  // Error(ERR_OUT_OF_MEMORY).
  BoundShapes& find(const ShapeKey& key);

 private:
  BoundShapes& choose(const ShapeKey& key);

  Engine& engine_;
  const cuda::Stream& stream_;
  DeviceBuffers& buffers_;
  std::deque<BoundShapes> all_;  // which stay where they are
  size_t expected_ = 0;
  uint64_t uses_ = 0;
};

}  // namespace node_tensorrt::tensorrt::NODE_TENSORRT_FLAVOUR
