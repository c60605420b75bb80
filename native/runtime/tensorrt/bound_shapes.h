// TensorRT's execution contexts. Each is set up for the shapes of a run and kept, with its CUDA graph, for
// later runs with the same shapes. Included only by sources that are compiled once per flavour: see
// flavour.h.
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

// Identifies a CUDA graph: everything that TensorRT's work depends on, except the tensors' elements.
struct ShapeKey {
  int profile = -1;
  std::vector<Shape> shapes;   // of all inputs
  std::vector<Shape> values;   // of the inputs in host memory
  std::vector<void*> aliased;  // the caller's memory that outputs share
  bool operator==(const ShapeKey&) const = default;
};

// Returns the key of a run with these inputs. Throws Error(ERR_SHAPE_MISMATCH) if no profile accepts them.
ShapeKey keyOf(const Engine& engine, std::span<const Tensor> inputs);

// One of TensorRT's execution contexts, set up for one key. The contexts of one thread share their buffers
// and their stream, and run one after another.
class BoundShapes {
 public:
  // Creates a context that isn't set up for any shapes. Throws Error(ERR_OUT_OF_MEMORY).
  BoundShapes(Engine& engine, const cuda::Stream& stream, DeviceBuffers& buffers);

  // The profile is -1 until shapes have been set.
  const ShapeKey& key() const noexcept { return key_; }
  // Sets the context up for inputs with this key. TensorRT takes long for this. Throws Error.
  void setShapes(ShapeKey key, std::span<const Tensor> inputs);
  void forgetShapes() { key_ = {}; }
  // Provides memory for everything that a run with these shapes reads or writes.
  void provideBuffers(std::span<const Tensor> inputs);
  // Does what provideBuffers() does, and passes the addresses to TensorRT if they have changed.
  void bind(std::span<const Tensor> inputs);

  // Enqueues the run on the stream. The second run captures a CUDA graph, which later runs launch.
  void enqueue(const Messages& messages);
  // Call this when the stream has reached the end of a run.
  void setWarm() noexcept { warm_ = true; }

  bool dependsOnData(size_t output) const noexcept { return allocators_[output] != nullptr; }
  // The output's shape. If it depends on the data, it is the shape in the run that was enqueued last.
  Shape outputShape(size_t output) const;
  // The address that TensorRT writes the output to. If hostOutput() isn't null, it is the same.
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
  uint64_t boundGeneration_ = 0;  // generation of the buffers whose addresses TensorRT has
  bool warm_ = false;             // has run with these shapes and addresses
  bool capturable_ = true;
  std::unique_ptr<cuda::Graph> graph_;
  std::vector<Shape> outputShapes_;
  std::vector<std::shared_ptr<void>> hostInputs_;   // null for inputs on the device
  std::vector<std::shared_ptr<void>> hostOutputs_;  // null for outputs on the device
  // Only for outputs whose shape depends on the data.
  std::vector<std::unique_ptr<OutputAllocator>> allocators_;
};

// Keeps the contexts of one thread, by shapes. The least recently used ones make room for new ones.
class BoundShapesCache {
 public:
  BoundShapesCache(Engine& engine, const cuda::Stream& stream, DeviceBuffers& buffers)
      : engine_(engine), stream_(stream), buffers_(buffers) {}

  // Keeps `count` more contexts than it would otherwise.
  void expect(size_t count) { expected_ = count; }
  // Returns the context that is set up for the key or, if there is none, a context that the caller must set
  // up. Throws Error(ERR_OUT_OF_MEMORY).
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
