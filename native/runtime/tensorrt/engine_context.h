// Runs of a plan, on a stream of their own: one runs, and the next is prepared meanwhile. Included only by
// sources that are compiled once per flavour: see flavour.h.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

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

  // prepare(), launch() and wait() in one.
  void execute(std::span<const Tensor> inputs, std::span<const size_t> outputIndices,
               std::span<Tensor> outputs) override;

  // The parts of a run. They take what execute() takes and throw what it throws. A run ends when wait()
  // returns or one of the parts throws; what the spans refer to must stay until then. Each part needs
  // cuda::Current.

  // Does everything that the host has to do before the run, and has the stream copy the inputs. The run
  // before may still be running: prepare() waits for it only where memory has to grow, or where the TensorRT
  // context that it runs in has to be set up for other shapes. No other run may be prepared already.
  void prepare(std::span<const Tensor> inputs, std::span<const size_t> outputIndices,
               std::span<Tensor> outputs);
  // Gives the prepared run to the stream, with the copies of its outputs. The run before must have been
  // waited for.
  void launch();
  // Waits until the outputs of the launched run are there.
  void wait();

  void expectShapes(size_t count) override;
  std::optional<DeviceTiming> timing() const override { return timing_; }
  void cancel() noexcept override { cancelled_ = true; }
  void reset() override { cancelled_ = false; }

 private:
  // The state from prepare() to the end of wait().
  struct Run {
    explicit Run(const cuda::Device& device)
        : begun(device), copied(device), computed(device), ended(device) {}
    const cuda::Event begun, copied, computed, ended;
    std::span<const Tensor> inputs;
    std::span<const size_t> outputIndices;
    std::span<Tensor> outputs;
    std::optional<Messages> messages;
    BoundShapes* bound = nullptr;
    std::vector<std::shared_ptr<void>> staged;  // inputs of another GPU, on their way to this one
    DeviceTiming timing;
    bool finished = false;
  };

  // Objects that belong to the GPU.
  struct Resources {
    Resources(Engine& engine, std::function<void()> awaitUse)
        : stream(engine.device), buffers(engine, std::move(awaitUse)), shapes(engine, stream, buffers) {
      runs[0].emplace(engine.device);
    }
    const cuda::Stream stream;
    std::array<std::optional<Run>, 2> runs;  // one that runs and one that is prepared
    DeviceBuffers buffers;
    BoundShapesCache shapes;
  };

  Run& idleRun();  // which neither runs nor is prepared
  void finishRunning();
  void copyIn(Run& run);
  void copyOut(const Run& run);
  void provideOutput(const Run& run, size_t i);
  template <class Part>
  void settled(Run& run, Part part);

  const std::shared_ptr<Engine> engine_;
  std::optional<Resources> gpu_;
  Run* prepared_ = nullptr;
  Run* running_ = nullptr;
  DeviceTiming timing_;
  std::atomic<bool> cancelled_ = false;
};

}  // namespace node_tensorrt::tensorrt::NODE_TENSORRT_FLAVOUR
