// Loads a plan and runs it as a Model. Compiled once per flavour, with NODE_TENSORRT_FLAVOUR as its name: see
// flavour.h.
#include "runtime/tensorrt/engine.h"

#include <algorithm>
#include <utility>

#include "runtime/cuda/tensor_memory.h"
#include "runtime/tensorrt/engine_context.h"

namespace node_tensorrt::tensorrt::NODE_TENSORRT_FLAVOUR {
namespace {

// How many bytes of idle blocks a model's pools keep for its next runs.
constexpr size_t kIdleDeviceBytes = size_t{256} << 20;
constexpr size_t kIdlePinnedBytes = size_t{64} << 20;

bool within(const Shape& values, const Limits& limits) {
  for (size_t i = 0; i < values.size(); ++i) {
    if (values[i] < limits.min[i] || values[i] > limits.max[i]) return false;
  }
  return values.size() == limits.min.size();
}

#if NODE_TENSORRT_RTX

// Asks the library whether it can run the plan on this machine, before it reads more than the header.
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

void requireValid(const nvinfer1::IRuntime&, std::span<const uint8_t>) {}

#endif

}  // namespace

size_t elementCount(const Shape& shape) {
  size_t count = 1;
  for (const int64_t size : shape) count *= static_cast<size_t>(size);
  return count;
}

Shape valuesOf(const Tensor& tensor) {
  const size_t count = elementCount(tensor.shape);
  Shape values(count);
  for (size_t i = 0; i < count; ++i) {
    values[i] = tensor.type == DataType::kInt32 ? static_cast<const int32_t*>(tensor.data.get())[i]
                                                : static_cast<const int64_t*>(tensor.data.get())[i];
  }
  return values;
}

Error failed(const char* code, const std::string& what, const Messages& messages) {
  const bool isMemory = messages.hasError({"ut of memory", "OutOfMemory", "OUT_OF_MEMORY"});
  return Error(isMemory ? "ERR_OUT_OF_MEMORY" : code, couldNot(what, messages));
}

Engine::Engine(const LibraryFiles& library, std::span<const uint8_t> plan, const EngineOptions& options)
    : device(cuda::Device::open(options.device)),
      settled{device},
      capturesGraphs(options.cudaGraph && !RuntimeConfig::kCapturesGraphs),
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
  // Code in the plan must not run on the host (IRuntime::setEngineHostCodeAllowed), because anyone may have
  // made the plan.
  engine_.reset(runtime_->deserializeCudaEngine(plan.data(), plan.size()));
  if (!engine_) {
    const bool incompatible =
        messages.hasError({"ncompatible", "not compatible", "ompute capability", "ersion", "platform"});
    throw failed(incompatible ? "ERR_ENGINE_INCOMPATIBLE" : "ERR_ENGINE_CORRUPT", "load the plan", messages);
  }
  readBindings();
  readProfiles();
  config_.emplace(*engine_, options);
  if (capabilities_.engineStatistics) {
    const int64_t weights = engine_->getEngineStat(nvinfer1::EngineStat::kTOTAL_WEIGHTS_SIZE);
    weights_ = static_cast<size_t>(std::max<int64_t>(weights, 0));
  }
  device.settle();  // TensorRT has allocated memory
}

Engine::~Engine() {
  try {
    const cuda::Current current(device);
    if (config_) config_->persist();
    config_.reset();
    engine_.reset();
    runtime_.reset();
  } catch (const Error&) {
    // The driver has shut down.
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
    if (entry == inputs.end()) continue;
    entry->isShared = true;
    output.alias = static_cast<size_t>(entry - inputs.begin());
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

// Returns the profile that accepts the inputs; if several do, the one that is tuned for the smallest shapes.
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

bool Engine::isBoundInPlace(const Tensor& input, size_t index) const {
  return inputs[index].isShared && input.location == Location::kDevice && input.device == device.ordinal();
}

std::unique_ptr<nvinfer1::IExecutionContext> Engine::createContext() {
  const std::lock_guard lock(mutex_);
  auto context = config_->createContext();
  device.post([] {});  // TensorRT has allocated memory
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

namespace {

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
        if (engine_->inputs[i].onHost) continue;  // limits values instead of shapes; a run checks them
        const Limits& limits = engine_->limits(p, i);
        profiles[p].push_back({engine_->inputs[i].name, limits.min, limits.opt, limits.max});
      }
    }
    return profiles;
  }
  // A graph is captured for certain shapes and addresses. Without graphs, TensorRT still sets itself up again
  // when shapes change, and TensorRT-RTX compiles kernels for new shapes.
  bool preparesShapes() const override { return true; }
  std::shared_ptr<MemoryPool> inputMemory() const override { return engine_->pinned; }
  std::shared_ptr<TensorMemory> tensorMemory() const override {
    return cuda::deviceTensorMemory(engine_->device);
  }
  // The plan says which memory an output shares. All other outputs have memory of their own.
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
  throwIfStopped(stop);
  auto engine = std::make_shared<Engine>(library, plan, options);
  throwIfStopped(stop);
  return std::make_unique<EngineModel>(std::move(engine));
}

PlanDescription inspectPlan(const LibraryFiles& library, std::span<const uint8_t> plan,
                            const EngineOptions& options) {
  return Engine(library, plan, options).inspect();
}

}  // namespace node_tensorrt::tensorrt::NODE_TENSORRT_FLAVOUR
