// Runs a plan on a stream of its own. While one run executes, the next can be prepared. Included only by
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

// Runs of one thread. See ExecutionContext for its thread rules.
class EngineContext final : public ExecutionContext {
 public:
  explicit EngineContext(std::shared_ptr<Engine> engine);
  ~EngineContext() override;

  // Does prepare(), launch() and wait().
  void execute(std::span<const Tensor> inputs, std::span<const size_t> outputIndices,
               std::span<Tensor> outputs) override;

  // The parts of a run. They take the same arguments as execute() and throw the same errors. A run ends when
  // wait() returns or a part throws; the spans' contents must stay valid until then. Each part requires a
  // cuda::Current.

  // Does the host's work for a run, and starts copying the inputs on the stream. The previous run may still
  // be executing. prepare() waits for it only if memory has to grow, or if that run's TensorRT context must
  // be set up for other shapes. Only one run may be prepared at a time.
  void prepare(std::span<const Tensor> inputs, std::span<const size_t> outputIndices,
               std::span<Tensor> outputs);
  // Enqueues the prepared run and the copies of its outputs on the stream. The previous run must have been
  // waited for.
  void launch();
  // Waits until the outputs of the launched run are ready.
  void wait();

  void expectShapes(size_t count) override;
  std::optional<DeviceTiming> timing() const override { return timing_; }
  void cancel() noexcept override { cancelled_ = true; }
  void reset() override { cancelled_ = false; }

 private:
  // A run, from prepare() until wait() returns.
  struct Run {
    explicit Run(const cuda::Device& device)
        : begun(device), copied(device), computed(device), ended(device) {}
    const cuda::Event begun, copied, computed, ended;
    std::span<const Tensor> inputs;
    std::span<const size_t> outputIndices;
    std::span<Tensor> outputs;
    std::optional<Messages> messages;
    BoundShapes* bound = nullptr;
    std::vector<std::shared_ptr<void>> staged;  // inputs from another GPU, being copied to this one
    DeviceTiming timing;
    bool finished = false;
  };

  // Resources on the GPU.
  struct Resources {
    Resources(Engine& engine, std::function<void()> awaitUse)
        : stream(engine.device), buffers(engine, std::move(awaitUse)), shapes(engine, stream, buffers) {
      runs[0].emplace(engine.device);
    }
    const cuda::Stream stream;
    std::array<std::optional<Run>, 2> runs;  // one runs while the other is prepared
    DeviceBuffers buffers;
    BoundShapesCache shapes;
  };

  Run& idleRun();  // the one that is neither running nor prepared
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
