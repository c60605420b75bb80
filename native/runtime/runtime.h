// The interface of an inference runtime: it loads a model, reads its metadata and runs it. ONNX Runtime
// implements it on the CPU, TensorRT on a GPU. Nothing above this header knows which one it has.
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

struct Dimension {
  int64_t size = -1;   // -1: dynamic
  std::string symbol;  // the exporter's name of a dynamic dimension; empty where it has none
};

struct TensorInfo {
  std::string name;
  DataType type = DataType::kUndefined;  // stays so for an output that is no tensor: it can't be fetched
  std::vector<Dimension> shape;
};

// The shapes of one input that a plan is compiled for; for an input whose values are shapes (a shape tensor),
// its values instead.
struct ShapeRange {
  std::string input;
  Shape min;
  Shape opt;
  Shape max;
};

// Ranges that hold together.
using Profile = std::vector<ShapeRange>;

// The parts of a run's time on a device, in milliseconds.
struct DeviceTiming {
  double enqueueMs = 0;  // on the thread that gave the work to the device
  double h2dMs = 0;      // copying inputs to the device
  double computeMs = 0;
  double d2hMs = 0;  // copying outputs back
};

// Executes one run at a time. Not thread-safe, except for cancel().
class ExecutionContext {
 public:
  virtual ~ExecutionContext() = default;

  // Runs on the calling thread until every output is there. `inputs` holds all model inputs in model order;
  // `outputs[i]` receives model output `outputIndices[i]`, written in place when it comes with memory.
  // Returned tensors share memory with nothing else. Throws Error, or Cancelled after cancel().
  virtual void execute(std::span<const Tensor> inputs, std::span<const size_t> outputIndices,
                       std::span<Tensor> outputs) = 0;

  // Says that runs will have so many different shapes, again and again. The context then keeps what it
  // prepares for each, and takes at once the memory for the largest shapes that the model accepts. To be
  // called before the first run. Throws Error.
  virtual void expectShapes(size_t) {}

  // The times of the last execute(); nothing if the calling thread did all the work itself.
  virtual std::optional<DeviceTiming> timing() const { return std::nullopt; }

  // Makes a running execute() throw Cancelled soon. Any thread. Stays set until reset(), which the executing
  // thread calls between runs.
  virtual void cancel() noexcept = 0;
  virtual void reset() = 0;
};

// The bytes that a loaded model takes on a device, and counts of its CUDA graphs.
struct DeviceStats {
  size_t weights = 0;
  size_t activations = 0;  // of all contexts
  size_t io = 0;           // inputs and outputs, with what the pool keeps of them
  size_t pinned = 0;       // host memory that the device copies from and to, likewise
  size_t free = 0;         // of the device, when this process last allocated or freed there
  size_t total = 0;
  uint64_t graphsCaptured = 0;
  uint64_t graphsReplayed = 0;
  uint64_t graphsRefused = 0;  // shapes whose work could not be captured
};

// A loaded model. Immutable and thread-safe; contexts may outlive it.
class Model {
 public:
  virtual ~Model() = default;
  virtual const std::vector<TensorInfo>& inputs() const noexcept = 0;
  virtual const std::vector<TensorInfo>& outputs() const noexcept = 0;
  virtual std::unique_ptr<ExecutionContext> createContext() = 0;

  // Some profile must accept a run's inputs, where there are any.
  virtual std::vector<Profile> profiles() const { return {}; }
  // Is work prepared for the shapes and addresses of a run's tensors, so that new ones take longer?
  virtual bool preparesShapes() const { return false; }
  // The memory into which inputs are best copied before a run; null for any host memory.
  virtual std::shared_ptr<MemoryPool> inputMemory() const { return nullptr; }
  // The memory that holds a KV cache of the model; null for none.
  virtual std::shared_ptr<TensorMemory> tensorMemory() const { return nullptr; }
  // Does a run write that output over that input, where both are given the same memory? An output that comes
  // with memory is written there: yes, unless a runtime says otherwise.
  virtual bool writesOver(size_t /*output*/, size_t /*input*/) const { return true; }
  // Nothing for a model in host memory. At once.
  virtual std::optional<DeviceStats> deviceStats() const { return std::nullopt; }
  // Keeps what runs have taught, where there is a place for it, so that the next load need not learn it.
  virtual void persist() {}
};

// Blocks until the model is ready to run. Throws Error, or Cancelled soon after a stop was requested.
using LoadModel = std::function<std::unique_ptr<Model>(std::stop_token)>;

// A path, or the bytes of the model itself.
using ModelSource = std::variant<std::string, std::vector<uint8_t>>;

struct ModelOptions {
  int threads = 0;        // CPU threads one run may use; 0: the runtime's default (one per physical core)
  std::string weights{};  // the folder that external data is named relative to; empty: the model file's
};

class Runtime {
 public:
  virtual ~Runtime() = default;
  virtual std::string name() const = 0;
  virtual std::string version() const = 0;
  // Blocks until the model is ready to run. Throws Error, or Cancelled soon after a stop was requested.
  virtual std::unique_ptr<Model> loadModel(const ModelSource& source, const ModelOptions& options,
                                           std::stop_token stop) = 0;
};

}  // namespace node_tensorrt
