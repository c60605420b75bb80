// What a session needs from an inference runtime: loading a model, reading its metadata and running it. ONNX
// Runtime implements this on the CPU, TensorRT on a GPU. Code above this header doesn't know which one it
// uses.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <variant>
#include <vector>

#include "core/memory_pool.h"
#include "core/tensor.h"
#include "core/tensor_memory.h"

namespace node_tensorrt {

// One dimension of an input or output.
struct Dimension {
  int64_t size = -1;   // -1: dynamic
  std::string symbol;  // the exporter's name for a dynamic dimension; empty if it has none
};

// An input or output of a model.
struct TensorInfo {
  std::string name;
  DataType type = DataType::kUndefined;  // an output with kUndefined isn't a tensor and can't be fetched
  std::vector<Dimension> shape;
};

// One input's range of shapes in a plan. For an input whose values are themselves a shape (a shape tensor),
// the range of those values.
struct ShapeRange {
  std::string input;
  Shape min;
  Shape opt;
  Shape max;
};

// The ranges of all inputs, which apply together.
using Profile = std::vector<ShapeRange>;

// How long the parts of a run took on a device, in milliseconds.
struct DeviceTiming {
  double enqueueMs = 0;  // on the thread that enqueued the work
  double h2dMs = 0;      // copying inputs to the device
  double computeMs = 0;
  double d2hMs = 0;  // copying outputs back
};

// Executes a model, one run at a time. Not thread-safe, except for cancel().
class ExecutionContext {
 public:
  virtual ~ExecutionContext() = default;

  // Runs on the calling thread and returns when all outputs are ready. `inputs` holds all of the model's
  // inputs in model order. `outputs[i]` receives the model's output `outputIndices[i]`; if it already has
  // memory, the output is written there. The other outputs get memory of their own. Throws Error, or
  // Cancelled after cancel().
  virtual void execute(std::span<const Tensor> inputs, std::span<const size_t> outputIndices,
                       std::span<Tensor> outputs) = 0;

  // Announces that runs will use this many different shapes repeatedly. The context then keeps what it
  // prepares for each shape, and at once takes the memory for the largest shapes that the model accepts. Call
  // this before the first run. Throws Error.
  virtual void expectShapes(size_t) {}

  // The timing of the last execute(); nothing if the calling thread did all the work itself.
  virtual std::optional<DeviceTiming> timing() const { return std::nullopt; }

  // Makes a running execute() throw Cancelled soon. Any thread. Applies until reset(), which the executing
  // thread calls between runs.
  virtual void cancel() noexcept = 0;
  virtual void reset() = 0;
};

// Memory that a loaded model uses on a device, in bytes, and counts of its CUDA graphs.
struct DeviceStats {
  size_t weights = 0;
  size_t activations = 0;  // for all contexts
  size_t io = 0;           // inputs and outputs, including what the pool keeps
  size_t pinned = 0;       // host memory for copies to and from the device, including what the pool keeps
  size_t free = 0;         // on the device, when this process last allocated or freed memory there
  size_t total = 0;
  uint64_t graphsCaptured = 0;
  uint64_t graphsReplayed = 0;
  uint64_t graphsRefused = 0;  // shapes whose work couldn't be captured
};

// A loaded model. Immutable and thread-safe. Contexts may outlive it.
class Model {
 public:
  virtual ~Model() = default;
  virtual const std::vector<TensorInfo>& inputs() const noexcept = 0;
  virtual const std::vector<TensorInfo>& outputs() const noexcept = 0;
  virtual std::unique_ptr<ExecutionContext> createContext() = 0;

  // A run's inputs must fit one of these profiles, unless there are none.
  virtual std::vector<Profile> profiles() const { return {}; }
  // True if work is prepared for the shapes and addresses of a run's tensors, so that a run with new ones
  // takes longer.
  virtual bool preparesShapes() const { return false; }
  // Memory that inputs are best copied to before a run; null if any host memory will do.
  virtual std::shared_ptr<MemoryPool> inputMemory() const { return nullptr; }
  // Memory for the model's KV cache; null if it can't have one.
  virtual std::shared_ptr<TensorMemory> tensorMemory() const { return nullptr; }
  // True if a run writes the output over the input when both are given the same memory. The default is true,
  // because an output that the caller gives memory for is written there.
  virtual bool writesOver(size_t /*output*/, size_t /*input*/) const { return true; }
  // Memory that the model uses on its device; nothing for a model in host memory. Doesn't block.
  virtual std::optional<DeviceStats> deviceStats() const { return std::nullopt; }
  // Saves what runs have taught the model, if there is a file for it, so the next load starts with it.
  virtual void persist() {}
};

// Loads a model. Blocks until it is ready to run. Throws Error, or Cancelled soon after a stop was requested.
using LoadModel = std::function<std::unique_ptr<Model>(std::stop_token)>;

// A model's path, or its bytes.
using ModelSource = std::variant<std::string, std::vector<uint8_t>>;

// Options of loading a model.
struct ModelOptions {
  int threads = 0;        // CPU threads for one run; 0: the runtime's default (one per physical core)
  std::string weights{};  // folder of external data; empty: the model file's folder
};

// A library that runs models. Thread-safe.
class Runtime {
 public:
  virtual ~Runtime() = default;
  virtual std::string name() const = 0;
  virtual std::string version() const = 0;
  // Loads a model. Blocks until it is ready to run. Throws Error, or Cancelled soon after a stop was
  // requested.
  virtual std::unique_ptr<Model> loadModel(const ModelSource& source, const ModelOptions& options,
                                           std::stop_token stop) = 0;
};

}  // namespace node_tensorrt
