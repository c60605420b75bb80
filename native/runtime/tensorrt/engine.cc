// Running a plan with one flavour of TensorRT. Compiled once per flavour, with NODE_TENSORRT_FLAVOUR as its
// name: see flavour.h.
#include "runtime/tensorrt/engine.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <mutex>
#include <utility>

#include "core/error.h"
#include "core/host_memory.h"
#include "runtime/cuda/device.h"
#include "runtime/cuda/tensor_memory.h"
#include "runtime/tensorrt/api.h"
#include "runtime/tensorrt/messages.h"

namespace node_tensorrt::tensorrt::NODE_TENSORRT_FLAVOUR {
namespace {

// TensorRT asks for 256-byte alignment, which cuMemAlloc gives, and for an address even where there are no
// elements.
constexpr size_t kSmallestBuffer = 256;

// Idle blocks that a model's pools keep for its next runs.
constexpr size_t kIdleDeviceBytes = size_t{256} << 20;
constexpr size_t kIdlePinnedBytes = size_t{64} << 20;

// Shapes of which one thread keeps a context, and with it a graph, beside those that it is told to expect.
constexpr size_t kMaxShapes = 8;

constexpr size_t kNone = SIZE_MAX;

size_t elementCount(const Shape& shape) {
  size_t count = 1;
  for (const int64_t size : shape) count *= static_cast<size_t>(size);
  return count;
}

// What TensorRT said, as an error.
Error failed(const char* code, const std::string& what, const Messages& messages) {
  const bool isMemory = messages.hasError({"ut of memory", "OutOfMemory", "OUT_OF_MEMORY"});
  return Error(isMemory ? "ERR_OUT_OF_MEMORY" : code, couldNot(what, messages));
}

// An input or output of the plan.
struct Binding {
  std::string name;
  DataType type = DataType::kUndefined;
  bool onHost = false;   // its values are shapes, which TensorRT reads or writes in host memory
  size_t alias = kNone;  // of an output: the input whose memory it must share
  Shape shape;           // -1: dynamic
};

struct Limits {
  Shape min;
  Shape opt;
  Shape max;
};

bool within(const Shape& values, const Limits& limits) {
  for (size_t i = 0; i < values.size(); ++i) {
    if (values[i] < limits.min[i] || values[i] > limits.max[i]) return false;
  }
  return values.size() == limits.min.size();
}

// The elements of a shape tensor.
Shape valuesOf(const Tensor& tensor) {
  const size_t count = elementCount(tensor.shape);
  Shape values(count);
  for (size_t i = 0; i < count; ++i) {
    values[i] = tensor.type == DataType::kInt32 ? static_cast<const int32_t*>(tensor.data.get())[i]
                                                : static_cast<const int64_t*>(tensor.data.get())[i];
  }
  return values;
}

// ---- TensorRT-RTX compiles kernels when it first runs a plan ----

#ifdef TRT_MAJOR_RTX

// How contexts are made: with a cache of the kernels compiled, kept in a file, and graphs of TensorRT's own,
// which waits for a shape's kernels before it captures.
class Contexts {
 public:
  Contexts(nvinfer1::ICudaEngine& engine, const EngineOptions& options)
      : engine_(engine), file_(options.runtimeCache), config_(engine.createRuntimeConfig()) {
    if (!config_) throw Error("ERR_EXECUTION_FAILED", "TensorRT could not create a runtime configuration.");
    config_->setExecutionContextAllocationStrategy(
        nvinfer1::ExecutionContextAllocationStrategy::kUSER_MANAGED);
    config_->setCudaGraphStrategy(options.cudaGraph ? nvinfer1::CudaGraphStrategy::kWHOLE_GRAPH_CAPTURE
                                                    : nvinfer1::CudaGraphStrategy::kDISABLED);
    if (file_.empty()) return;
    cache_.reset(config_->createRuntimeCache());
    if (!cache_) return;
    std::ifstream stream(file_, std::ios::binary);
    const std::vector<char> kept((std::istreambuf_iterator<char>(stream)), {});
    // Of another GPU, version or driver: TensorRT refuses it, and the cache starts empty.
    if (!kept.empty() && cache_->deserialize(kept.data(), kept.size())) bytes_ = kept.size();
    config_->setRuntimeCache(*cache_);
  }

  static constexpr bool kHasGraphs = true;

  std::unique_ptr<nvinfer1::IExecutionContext> create() {
    return std::unique_ptr<nvinfer1::IExecutionContext>(engine_.createExecutionContext(config_.get()));
  }

  // Writes the cache, if it has grown. It appears whole or not at all; one that can't be written is done
  // without.
  void persist() {
    if (!cache_) return;
    const std::lock_guard lock(mutex_);
    const std::unique_ptr<nvinfer1::IHostMemory> blob(cache_->serialize());
    if (!blob || blob->size() == bytes_) return;
    std::string partial = file_ + ".partial-XXXXXX";
    const int file = ::mkostemp(partial.data(), O_CLOEXEC);
    if (file < 0) return;
    const bool written = ::write(file, blob->data(), blob->size()) == static_cast<ssize_t>(blob->size());
    if (::close(file) == 0 && written && ::rename(partial.c_str(), file_.c_str()) == 0) {
      bytes_ = blob->size();
    } else {
      ::unlink(partial.c_str());
    }
  }

 private:
  nvinfer1::ICudaEngine& engine_;
  const std::string file_;
  const std::unique_ptr<nvinfer1::IRuntimeConfig> config_;
  std::unique_ptr<nvinfer1::IRuntimeCache> cache_;
  std::mutex mutex_;
  size_t bytes_ = 0;  // of the cache as the file has it
};

// Asks the library whether it can run the plan here, before it reads more than the header.
void requireValid(const nvinfer1::IRuntime& runtime, std::span<const uint8_t> plan) {
  const int64_t header = runtime.getEngineHeaderSize();
  if (plan.size() < static_cast<size_t>(header)) {
    throw Error("ERR_ENGINE_CORRUPT", "The plan ends within its header. Build it again.");
  }
  uint64_t diagnostics = 0;
  if (runtime.getEngineValidity(plan.data(), header, &diagnostics) != nvinfer1::EngineValidity::kINVALID) {
    return;
  }
  using Diagnostics = nvinfer1::EngineInvalidityDiagnostics;
  const auto has = [&](Diagnostics bit) { return (diagnostics & static_cast<uint64_t>(bit)) != 0; };
  if (has(Diagnostics::kMALFORMED_ENGINE)) {
    throw Error("ERR_ENGINE_CORRUPT", "TensorRT-RTX says that the plan is malformed. Build it again.");
  }
  std::string reasons;
  const auto add = [&](Diagnostics bit, const char* reason) {
    if (has(bit)) reasons.append(reasons.empty() ? " " : "; ").append(reason);
  };
  add(Diagnostics::kVERSION_MISMATCH, "it was compiled by another version of TensorRT-RTX");
  add(Diagnostics::kUNSUPPORTED_CC, "it was not compiled for this GPU's compute capability");
  add(Diagnostics::kOLD_CUDA_DRIVER, "the NVIDIA driver is older than the one it was compiled with");
  add(Diagnostics::kOLD_CUDA_RUNTIME, "the CUDA runtime is older than the one it was compiled with");
  add(Diagnostics::kINSUFFICIENT_GPU_MEMORY, "the GPU's memory is too small for its weights");
  add(Diagnostics::kCUDA_ERROR, "the CUDA driver or runtime is not installed correctly");
  if (reasons.empty()) reasons = " it gave no reason";
  throw Error("ERR_ENGINE_INCOMPATIBLE", "TensorRT-RTX can't run the plan here:" + reasons + '.');
}

#else

// How contexts are made.
class Contexts {
 public:
  Contexts(nvinfer1::ICudaEngine& engine, const EngineOptions&) : engine_(engine) {}

  static constexpr bool kHasGraphs = false;

  std::unique_ptr<nvinfer1::IExecutionContext> create() {
    return std::unique_ptr<nvinfer1::IExecutionContext>(
        engine_.createExecutionContext(nvinfer1::ExecutionContextAllocationStrategy::kUSER_MANAGED));
  }

  void persist() {}

 private:
  nvinfer1::ICudaEngine& engine_;
};

void requireValid(const nvinfer1::IRuntime&, std::span<const uint8_t>) {}

#endif

// ---- the plan ----

// At its end, what was released before is free.
struct Settled {
  const cuda::Device& device;
  ~Settled() { device.settle(); }
};

// What the contexts of a plan share. Thread-safe. When it is gone, its memory is free.
class Engine {
 public:
  Engine(const LibraryFiles& library, std::span<const uint8_t> plan, const EngineOptions& options);
  ~Engine();

  int chooseProfile(std::span<const Tensor> inputs) const;
  std::unique_ptr<nvinfer1::IExecutionContext> createContext();
  DeviceStats stats() const;
  PlanDescription inspect() const;
  void persist() { contexts_->persist(); }

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
  std::optional<Contexts> contexts_;
  std::vector<std::vector<Limits>> profiles_;  // by profile and input
};

Engine::Engine(const LibraryFiles& library, std::span<const uint8_t> plan, const EngineOptions& options)
    : device(cuda::Device::open(options.device)),
      settled{device},
      capturesGraphs(options.cudaGraph && !Contexts::kHasGraphs),
      memory(kIdleDeviceBytes, device.deviceMemory()),
      activations(0, device.deviceMemory()),
      pinned(std::make_shared<MemoryPool>(kIdlePinnedBytes, device.pinnedMemory())),
      capabilities_(library.capabilities) {
  const cuda::Current current(device);
  Messages messages;
  const Logger::Scope scope(messages);
  auto* createRuntime = library.core.symbol<void*(void*, int32_t) noexcept>("createInferRuntime_INTERNAL");
  runtime_.reset(static_cast<nvinfer1::IRuntime*>(createRuntime(&Logger::instance(), NV_TENSORRT_VERSION)));
  if (!runtime_) throw failed("ERR_EXECUTION_FAILED", "create a runtime", messages);
  requireValid(*runtime_, plan);
  // Host code within a plan stays forbidden (IRuntime::setEngineHostCodeAllowed): anyone can have made it.
  engine_.reset(runtime_->deserializeCudaEngine(plan.data(), plan.size()));
  if (!engine_) {
    const bool incompatible =
        messages.hasError({"ncompatible", "not compatible", "ompute capability", "ersion", "platform"});
    throw failed(incompatible ? "ERR_ENGINE_INCOMPATIBLE" : "ERR_ENGINE_CORRUPT", "load the plan", messages);
  }
  readBindings();
  readProfiles();
  contexts_.emplace(*engine_, options);
  if (capabilities_.engineStatistics) {
    const int64_t weights = engine_->getEngineStat(nvinfer1::EngineStat::kTOTAL_WEIGHTS_SIZE);
    weights_ = static_cast<size_t>(std::max<int64_t>(weights, 0));
  }
  device.settle();  // TensorRT has allocated
}

Engine::~Engine() {
  try {
    const cuda::Current current(device);
    if (contexts_) contexts_->persist();
    contexts_.reset();
    engine_.reset();
    runtime_.reset();
  } catch (const Error&) {
    // The driver is gone.
  }
}

PlanDescription Engine::inspect() const {
  const cuda::Current current(device);
  Messages messages;
  const Logger::Scope scope(messages);
  const std::unique_ptr<nvinfer1::IEngineInspector> inspector(engine_->createEngineInspector());
  const char* text = inspector != nullptr
                         ? inspector->getEngineInformation(nvinfer1::LayerInformationFormat::kJSON)
                         : nullptr;
  if (text == nullptr) throw failed("ERR_EXECUTION_FAILED", "inspect the plan", messages);
  PlanDescription description{text, {}};
  for (const Binding& output : outputs) {
    if (output.alias != kNone) description.aliases.emplace_back(output.name, inputs[output.alias].name);
  }
  return description;
}

void Engine::readBindings() {
  for (int32_t i = 0; i < engine_->getNbIOTensors(); ++i) {
    const char* name = engine_->getIOTensorName(i);
    const bool isInput = engine_->getTensorIOMode(name) == nvinfer1::TensorIOMode::kINPUT;
    Binding binding;
    binding.name = name;
    binding.type = toDataType(engine_->getTensorDataType(name));
    binding.onHost = engine_->getTensorLocation(name) == nvinfer1::TensorLocation::kHOST;
    binding.shape = toShape(engine_->getTensorShape(name));
    const std::string what = std::string(isInput ? "The plan's input " : "The plan's output ") + quoted(name);
    if (binding.type == DataType::kUndefined) {
      throw Error("ERR_MODEL_UNSUPPORTED",
                  what + " has an element type that can't be fed or fetched (float8 and 4-bit types can't).");
    }
    if (engine_->getTensorFormat(name) != nvinfer1::TensorFormat::kLINEAR) {
      throw Error("ERR_MODEL_UNSUPPORTED", what + " is laid out as " + engine_->getTensorFormatDesc(name) +
                                               ": build the plan with row-major inputs and outputs.");
    }
    (isInput ? inputs : outputs).push_back(std::move(binding));
  }
  if (!capabilities_.kvCache) return;
  for (Binding& output : outputs) {
    const char* input = engine_->getAliasedInputTensor(output.name.c_str());
    if (input == nullptr) continue;
    const auto entry =
        std::find_if(inputs.begin(), inputs.end(), [&](const Binding& other) { return other.name == input; });
    if (entry != inputs.end()) output.alias = static_cast<size_t>(entry - inputs.begin());
  }
}

void Engine::readProfiles() {
  using nvinfer1::OptProfileSelector;
  for (int32_t p = 0; p < engine_->getNbOptimizationProfiles(); ++p) {
    std::vector<Limits>& limits = profiles_.emplace_back();
    for (const Binding& input : inputs) {
      const auto select = [&](OptProfileSelector selector) {
        if (!input.onHost) return toShape(engine_->getProfileShape(input.name.c_str(), p, selector));
        const int64_t* values = engine_->getProfileTensorValuesV2(input.name.c_str(), p, selector);
        return values != nullptr ? Shape(values, values + elementCount(input.shape)) : Shape{};
      };
      limits.push_back({select(OptProfileSelector::kMIN), select(OptProfileSelector::kOPT),
                        select(OptProfileSelector::kMAX)});
    }
  }
}

// Of those that accept the inputs, the one that is tuned for the smallest.
int Engine::chooseProfile(std::span<const Tensor> tensors) const {
  int chosen = -1;
  size_t least = 0;
  std::string misfit;
  for (size_t p = 0; p < profiles_.size(); ++p) {
    bool fits = true;
    size_t elements = 0;
    for (size_t i = 0; i < inputs.size() && fits; ++i) {
      if (inputs[i].onHost && tensors[i].location == Location::kDevice) {
        throw Error("ERR_INVALID_ARG_VALUE",
                    "The input " + quoted(inputs[i].name) +
                        " holds shapes, which TensorRT reads in host memory: feed what "
                        "the tensor's getData() gives.");
      }
      const Limits& limits = profiles_[p][i];
      const Shape values = inputs[i].onHost ? valuesOf(tensors[i]) : tensors[i].shape;
      fits = within(values, limits);
      if (!fits && misfit.empty()) {
        misfit = quoted(inputs[i].name) + (inputs[i].onHost ? " is " : " has dims ") + toString(values) +
                 ", outside the plan's " + toString(limits.min) + " to " + toString(limits.max);
      }
      if (!inputs[i].onHost) elements += elementCount(limits.max);
    }
    if (fits && (chosen < 0 || elements < least)) {
      chosen = static_cast<int>(p);
      least = elements;
    }
  }
  if (chosen >= 0) return chosen;
  throw Error("ERR_SHAPE_MISMATCH",
              "The input " + misfit + (profiles_.size() > 1 ? " (its first profile)." : "."));
}

std::unique_ptr<nvinfer1::IExecutionContext> Engine::createContext() {
  const std::lock_guard lock(mutex_);
  auto context = contexts_->create();
  device.post([] {});  // TensorRT has allocated
  return context;
}

DeviceStats Engine::stats() const {
  DeviceStats stats;
  stats.weights = weights_;
  stats.activations = activations.reservedBytes();
  stats.io = memory.reservedBytes();
  stats.pinned = pinned->reservedBytes();
  const cuda::Device::Memory all = device.memory();
  stats.free = all.free;
  stats.total = all.total;
  stats.graphsCaptured = graphsCaptured;
  stats.graphsReplayed = graphsReplayed;
  stats.graphsRefused = graphsRefused;
  return stats;
}

// ---- running it ----

// Memory for an output whose shape depends on the data: TensorRT asks for it during a run.
class OutputMemory final : public nvinfer1::IOutputAllocator {
 public:
  explicit OutputMemory(MemoryPool& pool) : pool_(pool) {}

  void* reallocateOutputAsync(const char*, void*, uint64_t size, uint64_t, cudaStream_t) noexcept override {
    if (size <= capacity_) return memory_.get();
    try {
      memory_.reset();
      capacity_ = 0;
      memory_ = pool_.acquire(std::max<size_t>(size, kSmallestBuffer));
      capacity_ = size;
      return memory_.get();
    } catch (...) {
      return nullptr;
    }
  }
  void notifyShape(const char*, const nvinfer1::Dims& dims) noexcept override { dims_ = dims; }

  const void* data() const noexcept { return memory_.get(); }
  Shape shape() const { return toShape(dims_); }

 private:
  MemoryPool& pool_;
  std::shared_ptr<void> memory_;
  size_t capacity_ = 0;
  nvinfer1::Dims dims_{};
};

// What tells one graph from another: everything that TensorRT's work depends on but the elements of tensors.
struct Key {
  int profile = -1;
  std::vector<Shape> shapes;   // of the inputs
  std::vector<Shape> values;   // of the inputs on the host
  std::vector<void*> aliased;  // memory of the caller's that outputs share
  bool operator==(const Key&) const = default;
};

// One of TensorRT's contexts, set up for one shape.
struct ShapeContext {
  std::unique_ptr<nvinfer1::IExecutionContext> context;
  Key key;
  uint64_t lastRun = 0;
  uint64_t addresses = 0;  // those that are bound, see EngineContext::addresses_
  bool warm = false;       // ran with them
  bool capturable = true;
  std::unique_ptr<cuda::Graph> graph;
  std::vector<Shape> outputShapes;
  std::vector<std::shared_ptr<void>> hostInputs;         // null for those on the device
  std::vector<std::shared_ptr<void>> hostOutputs;        // likewise
  std::vector<std::unique_ptr<OutputMemory>> allocated;  // of outputs whose shape depends on the data
};

// Contexts of one thread, which never run beside each other: they share buffers and memory for activations.
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
  // Device memory whose address stays the same until a larger shape comes.
  struct Buffer {
    std::shared_ptr<void> memory;
    size_t capacity = 0;
  };

  // What belongs to the GPU.
  struct Resources {
    explicit Resources(const cuda::Device& device)
        : stream(device), begun(device), copied(device), computed(device), ended(device) {}
    const cuda::Stream stream;
    const cuda::Event begun, copied, computed, ended;
    std::vector<ShapeContext> contexts;
    std::vector<Buffer> inputs;
    std::vector<Buffer> outputs;
    Buffer activations;
  };

  void run(std::span<const Tensor> inputs, std::span<const size_t> outputIndices, std::span<Tensor> outputs);
  Key keyOf(std::span<const Tensor> inputs) const;
  ShapeContext& contextFor(const Key& key);
  void setShapes(ShapeContext& context, std::span<const Tensor> inputs);
  void bind(ShapeContext& context, std::span<const Tensor> inputs);
  void provideAll(const ShapeContext& context, std::span<const Tensor> inputs);
  void provide(Buffer& buffer, size_t bytes, MemoryPool& pool);
  void copyIn(const ShapeContext& context, std::span<const Tensor> inputs);
  void copyOut(const ShapeContext& context, std::span<const Tensor> inputs,
               std::span<const size_t> outputIndices, std::span<Tensor> outputs);
  bool isBoundInPlace(const Tensor& input, size_t index) const;
  const void* outputAddress(const ShapeContext& context, std::span<const Tensor> inputs, size_t output) const;
  void enqueue(ShapeContext& context, const Messages& messages);

  const std::shared_ptr<Engine> engine_;
  std::optional<Resources> gpu_;
  std::vector<bool> aliased_;  // inputs whose memory an output shares
  uint64_t addresses_ = 0;     // counts changes of the buffers' addresses
  uint64_t runs_ = 0;
  size_t expectedShapes_ = 0;
  DeviceTiming timing_;
  std::atomic<bool> cancelled_ = false;
};

EngineContext::EngineContext(std::shared_ptr<Engine> engine) : engine_(std::move(engine)) {
  const cuda::Current current(engine_->device);
  gpu_.emplace(engine_->device);
  gpu_->inputs.resize(engine_->inputs.size());
  gpu_->outputs.resize(engine_->outputs.size());
  aliased_.resize(engine_->inputs.size());
  for (const Binding& output : engine_->outputs) {
    if (output.alias != kNone) aliased_[output.alias] = true;
  }
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
  expectedShapes_ = count;
  const std::vector<Binding>& bindings = engine_->inputs;
  if (std::any_of(bindings.begin(), bindings.end(), [](const Binding& each) { return each.onHost; })) return;
  const cuda::Current current(engine_->device);
  for (size_t p = 0; p < engine_->profileCount(); ++p) {
    std::vector<Tensor> largest(bindings.size());
    for (size_t i = 0; i < bindings.size(); ++i) {
      Tensor& input = largest[i];
      input.shape = engine_->limits(p, i).max;
      input.byteLength = elementCount(input.shape) * byteSize(bindings[i].type);
      input.location = aliased_[i] ? Location::kDevice : Location::kHost;
      input.device = engine_->device.ordinal();
    }
    Key key;
    key.profile = static_cast<int>(p);
    ShapeContext& context = contextFor(key);
    context.key = std::move(key);
    setShapes(context, largest);
    provideAll(context, largest);
    context.key = {};  // free for the first run
  }
}

void EngineContext::run(std::span<const Tensor> inputs, std::span<const size_t> outputIndices,
                        std::span<Tensor> outputs) {
  Messages messages;
  const Logger::Scope scope(messages);
  Resources& gpu = *gpu_;
  const Key key = keyOf(inputs);
  ShapeContext& context = contextFor(key);
  if (context.key != key) {
    context.key = key;
    setShapes(context, inputs);
  }
  bind(context, inputs);
  context.lastRun = ++runs_;

  gpu.begun.record(gpu.stream);
  copyIn(context, inputs);
  gpu.copied.record(gpu.stream);
  const auto enqueued = std::chrono::steady_clock::now();
  if (cancelled_) throw Cancelled();
  enqueue(context, messages);
  timing_.enqueueMs =
      std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - enqueued).count();
  gpu.computed.record(gpu.stream);
  copyOut(context, inputs, outputIndices, outputs);
  gpu.ended.record(gpu.stream);
  gpu.stream.synchronize();
  context.warm = true;

  for (size_t i = 0; i < outputs.size(); ++i) {
    const std::shared_ptr<void>& onHost = context.hostOutputs[outputIndices[i]];
    if (onHost) std::memcpy(outputs[i].data.get(), onHost.get(), outputs[i].byteLength);
  }
  timing_.h2dMs = gpu.copied.since(gpu.begun);
  timing_.computeMs = gpu.computed.since(gpu.copied);
  timing_.d2hMs = gpu.ended.since(gpu.computed);
}

bool EngineContext::isBoundInPlace(const Tensor& input, size_t index) const {
  return aliased_[index] && input.location == Location::kDevice && input.device == engine_->device.ordinal();
}

Key EngineContext::keyOf(std::span<const Tensor> inputs) const {
  Key key;
  key.profile = engine_->chooseProfile(inputs);
  for (size_t i = 0; i < inputs.size(); ++i) {
    key.shapes.push_back(inputs[i].shape);
    if (engine_->inputs[i].onHost) key.values.push_back(valuesOf(inputs[i]));
    if (isBoundInPlace(inputs[i], i)) key.aliased.push_back(inputs[i].data.get());
  }
  return key;
}

// TensorRT keeps what follows from shapes in memory that a graph refers to: a graph lives with a context
// whose shapes don't change. Without graphs of ours, one context per profile suffices.
ShapeContext& EngineContext::contextFor(const Key& key) {
  std::vector<ShapeContext>& contexts = gpu_->contexts;
  const bool perShape = engine_->capturesGraphs;
  const auto found = std::find_if(contexts.begin(), contexts.end(), [&](const ShapeContext& context) {
    return perShape ? context.key == key : context.key.profile == key.profile;
  });
  if (found != contexts.end()) return *found;
  const auto idle = std::find_if(contexts.begin(), contexts.end(),
                                 [](const ShapeContext& context) { return context.key.profile < 0; });
  if (idle != contexts.end()) return *idle;
  const size_t most = perShape ? expectedShapes_ + kMaxShapes : engine_->profileCount();
  if (contexts.size() < most) {
    ShapeContext fresh;
    fresh.context = engine_->createContext();
    if (!fresh.context) {
      throw Error("ERR_OUT_OF_MEMORY",
                  "TensorRT could not create an execution context: the GPU's memory does "
                  "not suffice. Lower options.concurrency, or free memory.");
    }
    fresh.hostInputs.resize(engine_->inputs.size());
    fresh.hostOutputs.resize(engine_->outputs.size());
    fresh.outputShapes.resize(engine_->outputs.size());
    fresh.allocated.resize(engine_->outputs.size());
    return contexts.emplace_back(std::move(fresh));
  }
  return *std::min_element(
      contexts.begin(), contexts.end(),
      [](const ShapeContext& a, const ShapeContext& b) { return a.lastRun < b.lastRun; });
}

void EngineContext::setShapes(ShapeContext& context, std::span<const Tensor> inputs) {
  const auto check = [](bool accepted, const std::string& what) {
    if (!accepted) throw Error("ERR_SHAPE_MISMATCH", "TensorRT refused " + what + '.');
  };
  context.graph.reset();
  context.warm = false;
  context.capturable = true;
  context.addresses = 0;
  nvinfer1::IExecutionContext& trt = *context.context;
  Key key = std::exchange(context.key, Key{});  // until all is set
  if (trt.getOptimizationProfile() != key.profile) {
    check(trt.setOptimizationProfileAsync(key.profile, gpu_->stream.get()), "the profile");
  }
  for (size_t i = 0; i < inputs.size(); ++i) {
    const Binding& binding = engine_->inputs[i];
    check(trt.setInputShape(binding.name.c_str(), toDims(inputs[i].shape)),
          "the shape " + toString(inputs[i].shape) + " of the input " + quoted(binding.name));
    if (!binding.onHost) continue;
    context.hostInputs[i] = allocateHostMemory(std::max(inputs[i].byteLength, kSmallestBuffer));
    std::memcpy(context.hostInputs[i].get(), inputs[i].data.get(), inputs[i].byteLength);
    check(trt.setTensorAddress(binding.name.c_str(), context.hostInputs[i].get()),
          "the values of " + quoted(binding.name));
  }
  check(trt.inferShapes(0, nullptr) == 0, "these shapes together");
  const size_t needed = trt.updateDeviceMemorySizeForShapes();
  provide(
      gpu_->activations,
      needed > 0 ? needed : static_cast<size_t>(engine_->cuda().getDeviceMemorySizeForProfileV2(key.profile)),
      engine_->activations);
  for (size_t i = 0; i < engine_->outputs.size(); ++i) {
    const Binding& binding = engine_->outputs[i];
    const char* name = binding.name.c_str();
    context.outputShapes[i] = toShape(trt.getTensorShape(name));
    const Shape& shape = context.outputShapes[i];
    const bool dependsOnData = std::find(shape.begin(), shape.end(), -1) != shape.end();
    if (binding.onHost) {
      const size_t bytes = elementCount(shape) * byteSize(binding.type);
      context.hostOutputs[i] = allocateHostMemory(std::max(bytes, kSmallestBuffer));
    } else if (dependsOnData) {
      if (!context.allocated[i]) context.allocated[i] = std::make_unique<OutputMemory>(engine_->memory);
      context.capturable = false;
    } else {
      context.allocated[i].reset();
    }
    check(trt.setOutputAllocator(name, context.allocated[i].get()), "an allocator for " + quoted(name));
  }
  context.key = std::move(key);
}

void EngineContext::provide(Buffer& buffer, size_t bytes, MemoryPool& pool) {
  if (bytes < kSmallestBuffer) bytes = kSmallestBuffer;
  if (bytes <= buffer.capacity) return;
  ++addresses_;
  // First, so that both need not fit at once. The stream is idle between runs.
  buffer = {};
  buffer.memory = pool.acquire(bytes);
  buffer.capacity = bytes;
}

// Memory for everything that a run with these shapes reads and writes.
void EngineContext::provideAll(const ShapeContext& context, std::span<const Tensor> inputs) {
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (engine_->inputs[i].onHost || isBoundInPlace(inputs[i], i)) continue;
    provide(gpu_->inputs[i], inputs[i].byteLength, engine_->memory);
  }
  for (size_t i = 0; i < engine_->outputs.size(); ++i) {
    const Binding& binding = engine_->outputs[i];
    if (binding.onHost || binding.alias != kNone || context.allocated[i]) continue;
    provide(gpu_->outputs[i], elementCount(context.outputShapes[i]) * byteSize(binding.type),
            engine_->memory);
  }
}

// Gives TensorRT the addresses of everything, where they have changed.
void EngineContext::bind(ShapeContext& context, std::span<const Tensor> inputs) {
  if (addresses_ == 0) addresses_ = 1;
  provideAll(context, inputs);
  if (context.addresses == addresses_) return;
  context.graph.reset();
  context.warm = false;
  nvinfer1::IExecutionContext& trt = *context.context;
  trt.setDeviceMemoryV2(gpu_->activations.memory.get(), static_cast<int64_t>(gpu_->activations.capacity));
  const auto set = [&](const Binding& binding, const void* address) {
    if (!trt.setTensorAddress(binding.name.c_str(), const_cast<void*>(address))) {
      throw Error("ERR_EXECUTION_FAILED", "TensorRT refused the memory of " + quoted(binding.name) + '.');
    }
  };
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (engine_->inputs[i].onHost) continue;
    set(engine_->inputs[i],
        isBoundInPlace(inputs[i], i) ? inputs[i].data.get() : gpu_->inputs[i].memory.get());
  }
  for (size_t i = 0; i < engine_->outputs.size(); ++i) {
    if (!context.allocated[i]) set(engine_->outputs[i], outputAddress(context, inputs, i));
  }
  context.addresses = addresses_;
}

const void* EngineContext::outputAddress(const ShapeContext& context, std::span<const Tensor> inputs,
                                         size_t output) const {
  if (context.hostOutputs[output]) return context.hostOutputs[output].get();
  if (context.allocated[output]) return context.allocated[output]->data();
  const size_t alias = engine_->outputs[output].alias;
  if (alias == kNone) return gpu_->outputs[output].memory.get();
  return isBoundInPlace(inputs[alias], alias) ? inputs[alias].data.get() : gpu_->inputs[alias].memory.get();
}

void EngineContext::copyIn(const ShapeContext& context, std::span<const Tensor> inputs) {
  for (size_t i = 0; i < inputs.size(); ++i) {
    const Tensor& input = inputs[i];
    if (context.hostInputs[i] || isBoundInPlace(input, i)) continue;
    void* target = gpu_->inputs[i].memory.get();
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

void EngineContext::enqueue(ShapeContext& context, const Messages& messages) {
  const auto enqueue = [&] { return context.context->enqueueV3(gpu_->stream.get()); };
  // TensorRT finishes setting up a shape in its first run, which can't be captured.
  if (engine_->capturesGraphs && context.capturable && context.warm && !context.graph) {
    context.graph = cuda::Graph::capture(engine_->device, gpu_->stream, enqueue);
    context.capturable = context.graph != nullptr;
    ++(context.graph ? engine_->graphsCaptured : engine_->graphsRefused);
  }
  if (context.graph) {
    context.graph->launch(gpu_->stream);
    ++engine_->graphsReplayed;
  } else if (!enqueue()) {
    // Of a GPU that is lost, the driver knows more.
    gpu_->stream.synchronize();
    throw failed("ERR_EXECUTION_FAILED", "run the plan", messages);
  }
}

void EngineContext::copyOut(const ShapeContext& context, std::span<const Tensor> inputs,
                            std::span<const size_t> outputIndices, std::span<Tensor> outputs) {
  for (size_t i = 0; i < outputs.size(); ++i) {
    const size_t index = outputIndices[i];
    const Binding& binding = engine_->outputs[index];
    Tensor& output = outputs[i];
    const Shape shape =
        context.allocated[index] ? context.allocated[index]->shape() : context.outputShapes[index];
    const size_t bytes = elementCount(shape) * byteSize(binding.type);
    if (output.data && output.shape != shape) {
      throw Error("ERR_SHAPE_MISMATCH", "The output " + quoted(binding.name) + " has dims " +
                                            toString(shape) + ", but the tensor to write it into has " +
                                            toString(output.shape) + '.');
    }
    output.type = binding.type;
    output.shape = shape;
    output.byteLength = bytes;
    const void* from = outputAddress(context, inputs, index);
    if (binding.onHost) {
      // Written once the stream has come there.
      output.location = Location::kHost;
      if (!output.data) output.data = engine_->pinned->acquire(bytes);
    } else if (output.location == Location::kDevice) {
      output.device = engine_->device.ordinal();
      const size_t alias = binding.alias;
      if (alias != kNone && isBoundInPlace(inputs[alias], alias)) {
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

class EngineModel final : public Model {
 public:
  explicit EngineModel(std::shared_ptr<Engine> engine)
      : engine_(std::move(engine)), inputs_(infos(engine_->inputs)), outputs_(infos(engine_->outputs)) {}

  const std::vector<TensorInfo>& inputs() const noexcept override { return inputs_; }
  const std::vector<TensorInfo>& outputs() const noexcept override { return outputs_; }
  std::unique_ptr<ExecutionContext> createContext() override {
    return std::make_unique<EngineContext>(engine_);
  }
  std::vector<Profile> profiles() const override {
    std::vector<Profile> profiles(engine_->profileCount());
    for (size_t p = 0; p < profiles.size(); ++p) {
      for (size_t i = 0; i < engine_->inputs.size(); ++i) {
        if (engine_->inputs[i].onHost) continue;  // its limits are of values, which a run checks
        const Limits& limits = engine_->limits(p, i);
        profiles[p].push_back({engine_->inputs[i].name, limits.min, limits.opt, limits.max});
      }
    }
    return profiles;
  }
  // A graph is captured for shapes and addresses. Without graphs TensorRT still sets itself up anew whenever
  // shapes change, and TensorRT-RTX compiles kernels for new ones.
  bool preparesShapes() const override { return true; }
  std::shared_ptr<MemoryPool> inputMemory() const override { return engine_->pinned; }
  std::shared_ptr<TensorMemory> tensorMemory() const override {
    return cuda::deviceTensorMemory(engine_->device);
  }
  // The plan says which memory an output shares: any other output has memory of its own.
  bool writesOver(size_t output, size_t input) const override {
    return engine_->outputs[output].alias == input;
  }
  std::optional<DeviceStats> deviceStats() const override { return engine_->stats(); }
  void persist() override {
    const cuda::Current current(engine_->device);
    engine_->persist();
  }

 private:
  static std::vector<TensorInfo> infos(const std::vector<Binding>& bindings) {
    std::vector<TensorInfo> infos;
    for (const Binding& binding : bindings) {
      TensorInfo& info = infos.emplace_back();
      info.name = binding.name;
      info.type = binding.type;
      for (const int64_t size : binding.shape) info.shape.push_back({size, ""});
    }
    return infos;
  }

  const std::shared_ptr<Engine> engine_;
  const std::vector<TensorInfo> inputs_;
  const std::vector<TensorInfo> outputs_;
};

}  // namespace

std::unique_ptr<Model> loadEngine(const LibraryFiles& library, std::span<const uint8_t> plan,
                                  const EngineOptions& options, std::stop_token stop) {
  const auto throwIfStopped = [&stop] {
    if (stop.stop_requested()) throw Cancelled();
  };
  throwIfStopped();
  auto engine = std::make_shared<Engine>(library, plan, options);
  throwIfStopped();
  return std::make_unique<EngineModel>(std::move(engine));
}

PlanDescription inspectPlan(const LibraryFiles& library, std::span<const uint8_t> plan,
                            const EngineOptions& options) {
  return Engine(library, plan, options).inspect();
}

}  // namespace node_tensorrt::tensorrt::NODE_TENSORRT_FLAVOUR
