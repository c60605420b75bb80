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
  gpu_.emplace(*engine_, [this] { finishRunning(); });
}

EngineContext::~EngineContext() {
  try {
    const cuda::Current current(engine_->device);
    if (prepared_ != nullptr || running_ != nullptr) {
      engine_->device.driver().streamSynchronize(gpu_->stream.get());
    }
    gpu_.reset();
  } catch (const Error&) {
    // The driver has shut down.
  }
}

void EngineContext::execute(std::span<const Tensor> inputs, std::span<const size_t> outputIndices,
                            std::span<Tensor> outputs) {
  const cuda::Current current(engine_->device);
  prepare(inputs, outputIndices, outputs);
  launch();
  wait();
}

// Runs a part of a run. If it throws, waits for the GPU first, because the caller may then free the memory in
// use.
template <class Part>
void EngineContext::settled(Run& run, Part part) {
  try {
    part();
  } catch (...) {
    engine_->device.driver().streamSynchronize(gpu_->stream.get());
    run.staged.clear();
    throw;
  }
}

EngineContext::Run& EngineContext::idleRun() {
  std::optional<Run>& run = gpu_->runs[running_ == &*gpu_->runs[0] ? 1 : 0];
  if (!run) run.emplace(engine_->device);
  return *run;
}

void EngineContext::prepare(std::span<const Tensor> inputs, std::span<const size_t> outputIndices,
                            std::span<Tensor> outputs) {
  if (cancelled_) throw Cancelled();
  Run& run = idleRun();
  run.inputs = inputs;
  run.outputIndices = outputIndices;
  run.outputs = outputs;
  run.messages.emplace();
  run.finished = false;
  settled(run, [&] {
    const Logger::Scope scope(*run.messages);
    ShapeKey key = keyOf(*engine_, inputs);
    BoundShapes& bound = gpu_->shapes.find(key);
    if (bound.key() != key) {
      if (running_ != nullptr && running_->bound == &bound) finishRunning();
      bound.setShapes(std::move(key), inputs);
    }
    bound.bind(inputs);
    run.bound = &bound;
    for (size_t i = 0; i < outputs.size(); ++i) {
      if (!bound.dependsOnData(outputIndices[i])) provideOutput(run, i);
    }
    run.begun.record(gpu_->stream);
    copyIn(run);
    run.copied.record(gpu_->stream);
  });
  prepared_ = &run;
}

void EngineContext::launch() {
  Run& run = *std::exchange(prepared_, nullptr);
  settled(run, [&] {
    const Logger::Scope scope(*run.messages);
    const auto begin = std::chrono::steady_clock::now();
    if (cancelled_) throw Cancelled();
    run.bound->enqueue(*run.messages);
    run.timing.enqueueMs =
        std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count();
    run.computed.record(gpu_->stream);
    copyOut(run);
    run.ended.record(gpu_->stream);
  });
  running_ = &run;
}

void EngineContext::wait() {
  Run& run = *running_;
  try {
    settled(run, [&] { finishRunning(); });
  } catch (...) {
    running_ = nullptr;
    throw;
  }
  running_ = nullptr;
  timing_ = run.timing;
  // Work that a GPU has begun can't be stopped.
  if (cancelled_) throw Cancelled();
}

// If a run was launched, waits for it and completes its outputs and timing.
void EngineContext::finishRunning() {
  if (running_ == nullptr || running_->finished) return;
  Run& run = *running_;
  run.ended.synchronize();
  run.bound->setWarm();
  run.staged.clear();
  for (size_t i = 0; i < run.outputs.size(); ++i) {
    const std::shared_ptr<void>& onHost = run.bound->hostOutput(run.outputIndices[i]);
    if (onHost) std::memcpy(run.outputs[i].data.get(), onHost.get(), run.outputs[i].byteLength);
  }
  run.timing.h2dMs = run.copied.since(run.begun);
  run.timing.computeMs = run.computed.since(run.copied);
  run.timing.d2hMs = run.ended.since(run.computed);
  run.finished = true;
}

// Makes all buffers large enough for the largest shapes, because a buffer that grows moves, and then its
// graphs can't be used any more. Shapes that depend on the values of shape tensors aren't known in advance;
// with these, buffers grow when needed.
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
    bound.forgetShapes();  // so that the first run can use the context
  }
}

void EngineContext::copyIn(Run& run) {
  for (size_t i = 0; i < run.inputs.size(); ++i) {
    const Tensor& input = run.inputs[i];
    if (engine_->inputs[i].onHost || engine_->isBoundInPlace(input, i)) continue;
    void* target = gpu_->buffers.input(i);
    if (input.location == Location::kHost) {
      gpu_->stream.copyToDevice(target, input.data.get(), input.byteLength);
    } else if (input.device == engine_->device.ordinal()) {
      gpu_->stream.copyOnDevice(target, input.data.get(), input.byteLength);
    } else {
      void* between = run.staged.emplace_back(engine_->pinned->acquire(input.byteLength)).get();
      cuda::download(cuda::Device::open(input.device), between, input.data.get(), input.byteLength);
      gpu_->stream.copyToDevice(target, between, input.byteLength);
    }
  }
}

void EngineContext::copyOut(const Run& run) {
  for (size_t i = 0; i < run.outputs.size(); ++i) {
    const size_t index = run.outputIndices[i];
    // The shape is known now.
    if (run.bound->dependsOnData(index)) provideOutput(run, i);
    if (engine_->outputs[index].onHost) continue;  // copied once the stream has reached that point
    const Tensor& output = run.outputs[i];
    const void* from = run.bound->outputAddress(run.inputs, index);
    if (output.location == Location::kHost) {
      gpu_->stream.copyToHost(output.data.get(), from, output.byteLength);
    } else if (output.data.get() != from) {
      gpu_->stream.copyOnDevice(output.data.get(), from, output.byteLength);
    }
  }
}

// Sets an output's type and shape, and provides memory if it has none.
void EngineContext::provideOutput(const Run& run, size_t i) {
  const size_t index = run.outputIndices[i];
  const Binding& binding = engine_->outputs[index];
  Tensor& output = run.outputs[i];
  const Shape shape = run.bound->outputShape(index);
  if (output.data && output.shape != shape) {
    throw Error("ERR_SHAPE_MISMATCH", "The output " + quoted(binding.name) + " has dims " + toString(shape) +
                                          ", but the tensor to write it into has " + toString(output.shape) +
                                          '.');
  }
  output.type = binding.type;
  output.shape = shape;
  output.byteLength = elementCount(shape) * byteSize(binding.type);
  if (binding.onHost) output.location = Location::kHost;
  if (output.location == Location::kHost) {
    if (!output.data) output.data = engine_->pinned->acquire(output.byteLength);
    return;
  }
  output.device = engine_->device.ordinal();
  const size_t alias = binding.alias;
  if (alias != kNone && engine_->isBoundInPlace(run.inputs[alias], alias)) {
    output.data = run.inputs[alias].data;
  } else {
    output.data = engine_->memory.acquire(std::max(output.byteLength, kSmallestBuffer));
  }
}

}  // namespace node_tensorrt::tensorrt::NODE_TENSORRT_FLAVOUR
