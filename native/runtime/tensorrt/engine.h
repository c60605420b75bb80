// A plan on a GPU: TensorRT's engine, its inputs and outputs, and the memory that is in use for it.
// Included only by sources that are compiled once per flavour: see flavour.h.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/memory_pool.h"
#include "core/tensor.h"
#include "runtime/cuda/device.h"
#include "runtime/runtime.h"
#include "runtime/tensorrt/api.h"
#include "runtime/tensorrt/flavour.h"
#include "runtime/tensorrt/messages.h"
#include "runtime/tensorrt/runtime_config.h"

namespace node_tensorrt::tensorrt::NODE_TENSORRT_FLAVOUR {

// TensorRT asks for 256-byte alignment, which cuMemAlloc gives, and for an address even where there are no
// elements.
inline constexpr size_t kSmallestBuffer = 256;

inline constexpr size_t kNone = SIZE_MAX;

// An input or output of the plan.
struct Binding {
  std::string name;
  DataType type = DataType::kUndefined;
  bool onHost = false;    // its values are shapes, which TensorRT reads or writes in host memory
  size_t alias = kNone;   // of an output: the input whose memory it must share
  bool isShared = false;  // of an input: an output must share its memory
  Shape shape;            // -1: dynamic
};

struct Limits {
  Shape min;
  Shape opt;
  Shape max;
};

size_t elementCount(const Shape& shape);

// The elements of a shape tensor.
Shape valuesOf(const Tensor& tensor);

// Turns TensorRT's messages into an error.
Error failed(const char* code, const std::string& what, const Messages& messages);

// At its end, what was released before is free.
struct Settled {
  const cuda::Device& device;
  ~Settled() { device.settle(); }
};

// The state that the contexts of a plan share. It is thread-safe. When it is destroyed, its memory is free.
class Engine {
 public:
  Engine(const LibraryFiles& library, std::span<const uint8_t> plan, const EngineOptions& options);
  ~Engine();

  int chooseProfile(std::span<const Tensor> inputs) const;
  // True if TensorRT reads this input in place, because an output has to share its memory.
  bool isBoundInPlace(const Tensor& input, size_t index) const;
  std::unique_ptr<nvinfer1::IExecutionContext> createContext();
  DeviceStats stats() const;
  PlanDescription inspect() const;
  void persist() { config_->persist(); }

  const nvinfer1::ICudaEngine& cuda() const noexcept { return *engine_; }
  const Limits& limits(size_t profile, size_t input) const { return profiles_[profile][input]; }
  size_t profileCount() const noexcept { return profiles_.size(); }

  const cuda::Device& device;
  const Settled settled;
  const bool capturesGraphs;  // we do, rather than TensorRT or nobody
  MemoryPool memory;          // inputs and outputs
  MemoryPool activations;
  const std::shared_ptr<MemoryPool> pinned;
  std::vector<Binding> inputs;
  std::vector<Binding> outputs;
  std::atomic<uint64_t> graphsCaptured = 0;
  std::atomic<uint64_t> graphsReplayed = 0;
  std::atomic<uint64_t> graphsRefused = 0;

 private:
  void readBindings();
  void readProfiles();

  const Capabilities capabilities_;
  size_t weights_ = 0;  // bytes
  std::mutex mutex_;
  // Destroyed in reverse order, as TensorRT asks.
  std::unique_ptr<nvinfer1::IRuntime> runtime_;
  std::unique_ptr<nvinfer1::ICudaEngine> engine_;
  std::optional<RuntimeConfig> config_;
  std::vector<std::vector<Limits>> profiles_;  // by profile and input
};

// See Library::loadEngine.
std::unique_ptr<Model> loadEngine(const LibraryFiles& library, std::span<const uint8_t> plan,
                                  const EngineOptions& options, std::stop_token stop);
// See Library::inspectPlan.
PlanDescription inspectPlan(const LibraryFiles& library, std::span<const uint8_t> plan,
                            const EngineOptions& options);

}  // namespace node_tensorrt::tensorrt::NODE_TENSORRT_FLAVOUR
