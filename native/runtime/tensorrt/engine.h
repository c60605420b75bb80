// A plan loaded on a GPU: TensorRT's engine, its inputs and outputs, and the memory they use. Included only
// by sources that are compiled once per flavour: see flavour.h.
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

// TensorRT requires 256-byte alignment, which cuMemAlloc provides. It also requires an address for tensors
// without elements.
inline constexpr size_t kSmallestBuffer = 256;

inline constexpr size_t kNone = SIZE_MAX;

// An input or output of a plan.
struct Binding {
  std::string name;
  DataType type = DataType::kUndefined;
  bool onHost = false;    // its values are shapes, which TensorRT reads or writes in host memory
  size_t alias = kNone;   // for an output: the input whose memory it must share
  bool isShared = false;  // for an input: an output must share its memory
  Shape shape;            // -1: dynamic
};

// The shapes that one profile allows for an input.
struct Limits {
  Shape min;
  Shape opt;
  Shape max;
};

size_t elementCount(const Shape& shape);

// Returns the elements of a shape tensor.
Shape valuesOf(const Tensor& tensor);

// Returns an error with TensorRT's messages. `what` says what TensorRT could not do, as in couldNot().
Error failed(const char* code, const std::string& what, const Messages& messages);

// When this is destroyed, waits until all device memory released before is free.
struct Settled {
  const cuda::Device& device;
  ~Settled() { device.settle(); }
};

// A loaded plan, which its contexts share. Thread-safe. Its device memory is free once it has been
// destroyed.
class Engine {
 public:
  Engine(const LibraryFiles& library, std::span<const uint8_t> plan, const EngineOptions& options);
  ~Engine();

  // Returns the index of the profile for a run with these inputs. Throws Error ERR_SHAPE_MISMATCH if none
  // accepts them, or ERR_INVALID_ARG_VALUE.
  int chooseProfile(std::span<const Tensor> inputs) const;
  // True if TensorRT reads this input in place, because an output must share its memory.
  bool isBoundInPlace(const Tensor& input, size_t index) const;
  // Creates one of TensorRT's contexts, whose memory the caller provides.
  std::unique_ptr<nvinfer1::IExecutionContext> createContext();
  DeviceStats stats() const;
  PlanDescription inspect() const;
  void persist() { config_->persist(); }

  const nvinfer1::ICudaEngine& cuda() const noexcept { return *engine_; }
  const Limits& limits(size_t profile, size_t input) const { return profiles_[profile][input]; }
  size_t profileCount() const noexcept { return profiles_.size(); }

  const cuda::Device& device;
  const Settled settled;
  const bool capturesGraphs;  // true if this code captures CUDA graphs, instead of TensorRT or nobody
  MemoryPool memory;          // for inputs and outputs
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
  // Destroyed in reverse order, as TensorRT requires.
  std::unique_ptr<nvinfer1::IRuntime> runtime_;
  std::unique_ptr<nvinfer1::ICudaEngine> engine_;
  std::optional<RuntimeConfig> config_;
  std::vector<std::vector<Limits>> profiles_;  // by profile and input
};

// Implements Library::loadEngine.
std::unique_ptr<Model> loadEngine(const LibraryFiles& library, std::span<const uint8_t> plan,
                                  const EngineOptions& options, std::stop_token stop);
// Implements Library::inspectPlan.
PlanDescription inspectPlan(const LibraryFiles& library, std::span<const uint8_t> plan,
                            const EngineOptions& options);

}  // namespace node_tensorrt::tensorrt::NODE_TENSORRT_FLAVOUR
