// Runs of a plan, one at a time, on a stream of their own.
// Included only by sources that are compiled once per flavour: see flavour.h.
#pragma once

#include <atomic>
#include <cstddef>
#include <memory>
#include <optional>
#include <span>

#include "core/tensor.h"
#include "runtime/cuda/device.h"
#include "runtime/runtime.h"
#include "runtime/tensorrt/bound_shapes.h"
#include "runtime/tensorrt/device_buffers.h"
#include "runtime/tensorrt/engine.h"
#include "runtime/tensorrt/messages.h"

namespace node_tensorrt::tensorrt::NODE_TENSORRT_FLAVOUR {

class EngineContext final : public ExecutionContext {
 public:
  explicit EngineContext(std::shared_ptr<Engine> engine);
  ~EngineContext() override;

  void execute(std::span<const Tensor> inputs, std::span<const size_t> outputIndices,
               std::span<Tensor> outputs) override;
  void expectShapes(size_t count) override;
  std::optional<DeviceTiming> timing() const override { return timing_; }
  void cancel() noexcept override { cancelled_ = true; }
  void reset() override { cancelled_ = false; }

 private:
  // What belongs to the GPU.
  struct Resources {
    explicit Resources(Engine& engine)
        : stream(engine.device),
          begun(engine.device),
          copied(engine.device),
          computed(engine.device),
          ended(engine.device),
          buffers(engine),
          shapes(engine, stream, buffers) {}
    const cuda::Stream stream;
    const cuda::Event begun, copied, computed, ended;
    DeviceBuffers buffers;
    BoundShapesCache shapes;
  };

  void run(std::span<const Tensor> inputs, std::span<const size_t> outputIndices, std::span<Tensor> outputs);
  void copyIn(std::span<const Tensor> inputs);
  void copyOut(const BoundShapes& bound, std::span<const Tensor> inputs,
               std::span<const size_t> outputIndices, std::span<Tensor> outputs);

  const std::shared_ptr<Engine> engine_;
  std::optional<Resources> gpu_;
  DeviceTiming timing_;
  std::atomic<bool> cancelled_ = false;
};

}  // namespace node_tensorrt::tensorrt::NODE_TENSORRT_FLAVOUR
