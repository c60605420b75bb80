// Compiled once per flavour, with NODE_TENSORRT_FLAVOUR as its name: see flavour.h.
#include "runtime/tensorrt/bound_shapes.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "core/error.h"
#include "core/host_memory.h"

namespace node_tensorrt::tensorrt::NODE_TENSORRT_FLAVOUR {
namespace {

// How many shapes a thread keeps contexts and graphs for, in addition to the expected ones.
constexpr size_t kMaxShapes = 8;

std::unique_ptr<nvinfer1::IExecutionContext> createContext(Engine& engine) {
  std::unique_ptr<nvinfer1::IExecutionContext> context = engine.createContext();
  if (!context) {
    throw Error("ERR_OUT_OF_MEMORY",
                "TensorRT could not create an execution context: the GPU's memory does "
                "not suffice. Lower options.concurrency, or free memory.");
  }
  return context;
}

}  // namespace

ShapeKey keyOf(const Engine& engine, std::span<const Tensor> inputs) {
  ShapeKey key;
  key.profile = engine.chooseProfile(inputs);
  for (size_t i = 0; i < inputs.size(); ++i) {
    key.shapes.push_back(inputs[i].shape);
    if (engine.inputs[i].onHost) key.values.push_back(valuesOf(inputs[i]));
    if (engine.isBoundInPlace(inputs[i], i)) key.aliased.push_back(inputs[i].data.get());
  }
  return key;
}

BoundShapes::BoundShapes(Engine& engine, const cuda::Stream& stream, DeviceBuffers& buffers)
    : engine_(engine),
      stream_(stream),
      buffers_(buffers),
      context_(createContext(engine)),
      outputShapes_(engine.outputs.size()),
      hostInputs_(engine.inputs.size()),
      hostOutputs_(engine.outputs.size()),
      allocators_(engine.outputs.size()) {}

void BoundShapes::setShapes(ShapeKey key, std::span<const Tensor> inputs) {
  const auto check = [](bool accepted, const std::string& what) {
    if (!accepted) throw Error("ERR_SHAPE_MISMATCH", "TensorRT refused " + what + '.');
  };
  graph_.reset();
  warm_ = false;
  capturable_ = true;
  boundGeneration_ = 0;
  key_ = {};  // until everything is set
  if (context_->getOptimizationProfile() != key.profile) {
    check(context_->setOptimizationProfileAsync(key.profile, stream_.get()), "the profile");
  }
  for (size_t i = 0; i < inputs.size(); ++i) {
    const Binding& binding = engine_.inputs[i];
    check(context_->setInputShape(binding.name.c_str(), toDims(inputs[i].shape)),
          "the shape " + toString(inputs[i].shape) + " of the input " + quoted(binding.name));
    if (!binding.onHost) continue;
    hostInputs_[i] = allocateHostMemory(std::max(inputs[i].byteLength, kSmallestBuffer));
    std::memcpy(hostInputs_[i].get(), inputs[i].data.get(), inputs[i].byteLength);
    check(context_->setTensorAddress(binding.name.c_str(), hostInputs_[i].get()),
          "the values of " + quoted(binding.name));
  }
  check(context_->inferShapes(0, nullptr) == 0, "these shapes together");
  const size_t needed = context_->updateDeviceMemorySizeForShapes();
  buffers_.provideActivations(
      needed > 0 ? needed : static_cast<size_t>(engine_.cuda().getDeviceMemorySizeForProfileV2(key.profile)));
  for (size_t i = 0; i < engine_.outputs.size(); ++i) {
    const Binding& binding = engine_.outputs[i];
    const char* name = binding.name.c_str();
    outputShapes_[i] = toShape(context_->getTensorShape(name));
    const Shape& shape = outputShapes_[i];
    const bool dependsOnData = std::find(shape.begin(), shape.end(), -1) != shape.end();
    if (binding.onHost) {
      const size_t bytes = elementCount(shape) * byteSize(binding.type);
      hostOutputs_[i] = allocateHostMemory(std::max(bytes, kSmallestBuffer));
    } else if (dependsOnData) {
      if (!allocators_[i]) allocators_[i] = std::make_unique<OutputAllocator>(engine_.memory);
      capturable_ = false;
    } else {
      allocators_[i].reset();
    }
    check(context_->setOutputAllocator(name, allocators_[i].get()), "an allocator for " + quoted(name));
  }
  key_ = std::move(key);
}

void BoundShapes::provideBuffers(std::span<const Tensor> inputs) {
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (engine_.inputs[i].onHost || engine_.isBoundInPlace(inputs[i], i)) continue;
    buffers_.provideInput(i, inputs[i].byteLength);
  }
  for (size_t i = 0; i < engine_.outputs.size(); ++i) {
    const Binding& binding = engine_.outputs[i];
    if (binding.onHost || binding.alias != kNone || allocators_[i]) continue;
    buffers_.provideOutput(i, elementCount(outputShapes_[i]) * byteSize(binding.type));
  }
}

void BoundShapes::bind(std::span<const Tensor> inputs) {
  provideBuffers(inputs);
  if (boundGeneration_ == buffers_.generation()) return;
  graph_.reset();
  warm_ = false;
  context_->setDeviceMemoryV2(buffers_.activations(), static_cast<int64_t>(buffers_.activationBytes()));
  const auto set = [&](const Binding& binding, const void* address) {
    if (!context_->setTensorAddress(binding.name.c_str(), const_cast<void*>(address))) {
      throw Error("ERR_EXECUTION_FAILED", "TensorRT refused the memory of " + quoted(binding.name) + '.');
    }
  };
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (engine_.inputs[i].onHost) continue;
    set(engine_.inputs[i], engine_.isBoundInPlace(inputs[i], i) ? inputs[i].data.get() : buffers_.input(i));
  }
  for (size_t i = 0; i < engine_.outputs.size(); ++i) {
    if (!allocators_[i]) set(engine_.outputs[i], outputAddress(inputs, i));
  }
  boundGeneration_ = buffers_.generation();
}

void BoundShapes::enqueue(const Messages& messages) {
  const auto enqueue = [&] { return context_->enqueueV3(stream_.get()); };
  // TensorRT finishes setting up a shape in its first run, which therefore can't be captured.
  if (engine_.capturesGraphs && capturable_ && warm_ && !graph_) {
    graph_ = cuda::Graph::capture(engine_.device, stream_, enqueue);
    capturable_ = graph_ != nullptr;
    ++(graph_ ? engine_.graphsCaptured : engine_.graphsRefused);
  }
  if (graph_) {
    graph_->launch(stream_);
    ++engine_.graphsReplayed;
  } else if (!enqueue()) {
    // If the GPU is lost, the driver's error says more, so throw that.
    stream_.synchronize();
    throw failed("ERR_EXECUTION_FAILED", "run the plan", messages);
  }
}

Shape BoundShapes::outputShape(size_t output) const {
  return allocators_[output] ? allocators_[output]->shape() : outputShapes_[output];
}

const void* BoundShapes::outputAddress(std::span<const Tensor> inputs, size_t output) const {
  if (hostOutputs_[output]) return hostOutputs_[output].get();
  if (allocators_[output]) return allocators_[output]->data();
  const size_t alias = engine_.outputs[output].alias;
  if (alias == kNone) return buffers_.output(output);
  return engine_.isBoundInPlace(inputs[alias], alias) ? inputs[alias].data.get() : buffers_.input(alias);
}

BoundShapes& BoundShapesCache::find(const ShapeKey& key) {
  BoundShapes& chosen = choose(key);
  chosen.lastUse_ = ++uses_;
  return chosen;
}

// A graph refers to memory in which TensorRT keeps data about the shapes. So each graph belongs to a context
// whose shapes don't change. If we capture no graphs, one context per profile is enough.
BoundShapes& BoundShapesCache::choose(const ShapeKey& key) {
  const bool perShape = engine_.capturesGraphs;
  const auto found = std::find_if(all_.begin(), all_.end(), [&](const BoundShapes& each) {
    return perShape ? each.key_ == key : each.key_.profile == key.profile;
  });
  if (found != all_.end()) return *found;
  const auto idle =
      std::find_if(all_.begin(), all_.end(), [](const BoundShapes& each) { return each.key_.profile < 0; });
  if (idle != all_.end()) return *idle;
  const size_t most = perShape ? expected_ + kMaxShapes : engine_.profileCount();
  if (all_.size() < most) return all_.emplace_back(engine_, stream_, buffers_);
  return *std::min_element(all_.begin(), all_.end(), [](const BoundShapes& a, const BoundShapes& b) {
    return a.lastUse_ < b.lastUse_;
  });
}

}  // namespace node_tensorrt::tensorrt::NODE_TENSORRT_FLAVOUR
