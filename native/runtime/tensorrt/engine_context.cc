// Compiled once per flavour, with NODE_TENSORRT_FLAVOUR as its name: see flavour.h.
#include "runtime/tensorrt/engine_context.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <utility>

#include "core/error.h"

namespace node_tensorrt::tensorrt::NODE_TENSORRT_FLAVOUR {

EngineContext::EngineContext(std::shared_ptr<Engine> engine) : engine_(std::move(engine)) {
  const cuda::Current current(engine_->device);
  gpu_.emplace(*engine_);
}

EngineContext::~EngineContext() {
  try {
    const cuda::Current current(engine_->device);
    gpu_.reset();
  } catch (const Error&) {
    // The driver is gone.
  }
}

void EngineContext::execute(std::span<const Tensor> inputs, std::span<const size_t> outputIndices,
                            std::span<Tensor> outputs) {
  if (cancelled_) throw Cancelled();
  const cuda::Current current(engine_->device);
  try {
    run(inputs, outputIndices, outputs);
  } catch (...) {
    // The caller's memory is free to go only when the GPU has done with it.
    engine_->device.driver().streamSynchronize(gpu_->stream.get());
    throw;
  }
  // Nothing can stop what a GPU has begun.
  if (cancelled_) throw Cancelled();
}

// A buffer that grows moves, and no graph outlives that: so all are made for the largest shapes. Shapes that
// follow from the values of shape tensors are not known beforehand; there, buffers grow as they are needed.
void EngineContext::expectShapes(size_t count) {
  gpu_->shapes.expect(count);
  const std::vector<Binding>& bindings = engine_->inputs;
  if (std::any_of(bindings.begin(), bindings.end(), [](const Binding& each) { return each.onHost; })) return;
  const cuda::Current current(engine_->device);
  for (size_t p = 0; p < engine_->profileCount(); ++p) {
    std::vector<Tensor> largest(bindings.size());
    for (size_t i = 0; i < bindings.size(); ++i) {
      Tensor& input = largest[i];
      input.shape = engine_->limits(p, i).max;
      input.byteLength = elementCount(input.shape) * byteSize(bindings[i].type);
      input.location = bindings[i].isShared ? Location::kDevice : Location::kHost;
      input.device = engine_->device.ordinal();
    }
    ShapeKey key;
    key.profile = static_cast<int>(p);
    BoundShapes& bound = gpu_->shapes.find(key);
    bound.setShapes(std::move(key), largest);
    bound.provideBuffers(largest);
    bound.forgetShapes();  // free for the first run
  }
}

void EngineContext::run(std::span<const Tensor> inputs, std::span<const size_t> outputIndices,
                        std::span<Tensor> outputs) {
  Messages messages;
  const Logger::Scope scope(messages);
  Resources& gpu = *gpu_;
  ShapeKey key = keyOf(*engine_, inputs);
  BoundShapes& bound = gpu.shapes.find(key);
  if (bound.key() != key) bound.setShapes(std::move(key), inputs);
  bound.bind(inputs);

  gpu.begun.record(gpu.stream);
  copyIn(inputs);
  gpu.copied.record(gpu.stream);
  const auto enqueued = std::chrono::steady_clock::now();
  if (cancelled_) throw Cancelled();
  bound.enqueue(messages);
  timing_.enqueueMs =
      std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - enqueued).count();
  gpu.computed.record(gpu.stream);
  copyOut(bound, inputs, outputIndices, outputs);
  gpu.ended.record(gpu.stream);
  gpu.stream.synchronize();
  bound.setWarm();

  for (size_t i = 0; i < outputs.size(); ++i) {
    const std::shared_ptr<void>& onHost = bound.hostOutput(outputIndices[i]);
    if (onHost) std::memcpy(outputs[i].data.get(), onHost.get(), outputs[i].byteLength);
  }
  timing_.h2dMs = gpu.copied.since(gpu.begun);
  timing_.computeMs = gpu.computed.since(gpu.copied);
  timing_.d2hMs = gpu.ended.since(gpu.computed);
}

void EngineContext::copyIn(std::span<const Tensor> inputs) {
  for (size_t i = 0; i < inputs.size(); ++i) {
    const Tensor& input = inputs[i];
    if (engine_->inputs[i].onHost || engine_->isBoundInPlace(input, i)) continue;
    void* target = gpu_->buffers.input(i);
    if (input.location == Location::kHost) {
      gpu_->stream.copyToDevice(target, input.data.get(), input.byteLength);
    } else if (input.device == engine_->device.ordinal()) {
      gpu_->stream.copyOnDevice(target, input.data.get(), input.byteLength);
    } else {
      const std::shared_ptr<void> between = engine_->pinned->acquire(input.byteLength);
      cuda::download(cuda::Device::open(input.device), between.get(), input.data.get(), input.byteLength);
      gpu_->stream.copyToDevice(target, between.get(), input.byteLength);
      gpu_->stream.synchronize();
    }
  }
}

void EngineContext::copyOut(const BoundShapes& bound, std::span<const Tensor> inputs,
                            std::span<const size_t> outputIndices, std::span<Tensor> outputs) {
  for (size_t i = 0; i < outputs.size(); ++i) {
    const size_t index = outputIndices[i];
    const Binding& binding = engine_->outputs[index];
    Tensor& output = outputs[i];
    const Shape shape = bound.outputShape(index);
    const size_t bytes = elementCount(shape) * byteSize(binding.type);
    if (output.data && output.shape != shape) {
      throw Error("ERR_SHAPE_MISMATCH", "The output " + quoted(binding.name) + " has dims " +
                                            toString(shape) + ", but the tensor to write it into has " +
                                            toString(output.shape) + '.');
    }
    output.type = binding.type;
    output.shape = shape;
    output.byteLength = bytes;
    const void* from = bound.outputAddress(inputs, index);
    if (binding.onHost) {
      // Written once the stream has come there.
      output.location = Location::kHost;
      if (!output.data) output.data = engine_->pinned->acquire(bytes);
    } else if (output.location == Location::kDevice) {
      output.device = engine_->device.ordinal();
      const size_t alias = binding.alias;
      if (alias != kNone && engine_->isBoundInPlace(inputs[alias], alias)) {
        output.data = inputs[alias].data;
      } else {
        output.data = engine_->memory.acquire(std::max(bytes, kSmallestBuffer));
        gpu_->stream.copyOnDevice(output.data.get(), from, bytes);
      }
    } else {
      if (!output.data) output.data = engine_->pinned->acquire(bytes);
      gpu_->stream.copyToHost(output.data.get(), from, bytes);
    }
  }
}

}  // namespace node_tensorrt::tensorrt::NODE_TENSORRT_FLAVOUR
