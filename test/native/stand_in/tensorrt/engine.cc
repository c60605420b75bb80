#include "engine.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>

extern "C" {
int cuMemAlloc_v2(unsigned long long* address, size_t bytes);
int cuMemFree_v2(unsigned long long address);
int cuCtxGetCurrent(void** context);
int cuCtxPushCurrent_v2(void* context);
int cuCtxPopCurrent_v2(void** context);
}

namespace stand_in {

void logError(ILogger& logger, const std::string& text) {
  logger.log(ILogger::Severity::kERROR, text.c_str());
}

std::string describe(const Shape& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) text.append(i > 0 ? "," : "").append(std::to_string(shape[i]));
  return text.append("]");
}

void misuse(const std::string& text) {
  std::fprintf(stderr, "stand-in TensorRT: %s\n", text.c_str());
  std::abort();
}

bool DeviceMemory::allocate(size_t bytes, ILogger& logger) {
  if (bytes == 0) return true;
  const int status = ::cuMemAlloc_v2(&address_, bytes);
  if (status == 201) misuse("no CUDA context is current");
  if (status != 0) {
    address_ = 0;
    logError(logger, status == 2
                         ? "[defaultAllocator.cpp::allocate::48] Error Code 1: Cuda Runtime (out of memory)"
                         : "Error Code 1: Cuda Runtime (status " + std::to_string(status) + ")");
    return false;
  }
  size_ = bytes;
  ::cuCtxGetCurrent(&context_);
  return true;
}

void DeviceMemory::release() noexcept {
  if (address_ == 0) return;
  // On a lost device no context can be made current. Its memory is lost as well, but must be removed from the
  // bookkeeping.
  const bool pushed = ::cuCtxPushCurrent_v2(context_) == 0;
  ::cuMemFree_v2(address_);
  if (pushed) ::cuCtxPopCurrent_v2(nullptr);
  address_ = 0;
  size_ = 0;
}

Engine::Engine(Plan loaded, ILogger& log, std::shared_ptr<std::atomic<int>> runtimeUsers)
    : plan(std::move(loaded)),
      logger(log),
      users(std::move(runtimeUsers)),
      computation_(std::make_shared<Computation>(plan.model)) {
  mImpl = this;
  const Computation& made = *computation_;
  const std::vector<std::string> shapeInputs = made.onnx.shapeInputs();
  const auto add = [&](const ValueInfo& info, bool isInput) {
    Port port;
    port.info = info;
    port.isInput = isInput;
    if (!toDataType(info.type, port.type)) throw std::runtime_error("the type of " + info.name);
    port.isShape =
        isInput && std::find(shapeInputs.begin(), shapeInputs.end(), info.name) != shapeInputs.end();
    port.isDataDependent = !isInput && made.onnx.isDataDependent(info.name) &&
                           std::find(info.shape.begin(), info.shape.end(), -1) != info.shape.end();
    ports.push_back(std::move(port));
  };
  for (const ValueInfo& input : made.session.inputs()) add(input, true);
  for (const ValueInfo& output : made.session.outputs()) add(output, false);
  const std::vector<std::pair<std::string, std::string>> aliases = made.onnx.aliases();
  for (const auto& [output, input] : aliases) {
    if (standInFaultOccurs("unaliased")) continue;
    const std::string& named = standInFaultOccurs("misaliased") ? aliases.front().second : input;
    for (Port& port : ports) {
      if (!port.isInput && port.info.name == output) port.alias = named;
    }
  }
  if (!weights_.allocate(made.onnx.weightBytes(), logger)) throw std::runtime_error("");
  ++*users;
}

Engine::~Engine() {
  if (contexts > 0) misuse("an engine was destroyed before its execution contexts");
  --*users;
}

const Port* Engine::find(const char* name) const noexcept {
  for (const Port& port : ports) {
    if (port.info.name == name) return &port;
  }
  logError(logger, std::string("Error Code 3: API Usage Error (Given invalid tensor name: ") + name + ".)");
  return nullptr;
}

int32_t Engine::getNbLayers() const noexcept {
  return static_cast<int32_t>(computation()->onnx.nodes().size());
}

IHostMemory* Engine::serialize() const noexcept {
  return new Object<HostMemory, apiv::VHostMemory>(plan.write());
}

IExecutionContext* Engine::createExecutionContext(ExecutionContextAllocationStrategy strategy) noexcept {
  return createContext(*this, strategy, nullptr);
}

IExecutionContext* Engine::createExecutionContextWithRuntimeConfig(IRuntimeConfig* config) noexcept {
  const auto* options = static_cast<const RuntimeConfig*>(config);
  return createContext(*this, options->strategy, options);
}

IRuntimeConfig* Engine::createRuntimeConfig() noexcept {
  return new Object<RuntimeConfig, apiv::VRuntimeConfig>();
}

Dims Engine::getTensorShape(char const* name) const noexcept {
  const Port* port = find(name);
  return port == nullptr ? Dims{-1, {}} : toDims(port->info.shape);
}

DataType Engine::getTensorDataType(char const* name) const noexcept {
  const Port* port = find(name);
  return port == nullptr ? DataType::kFLOAT : port->type;
}

TensorLocation Engine::getTensorLocation(char const* name) const noexcept {
  return isShapeInferenceIO(name) ? TensorLocation::kHOST : TensorLocation::kDEVICE;
}

bool Engine::isShapeInferenceIO(char const* name) const noexcept {
  const Port* port = find(name);
  return port != nullptr && port->isShape;
}

TensorIOMode Engine::getTensorIOMode(char const* name) const noexcept {
  const Port* port = find(name);
  if (port == nullptr) return TensorIOMode::kNONE;
  return port->isInput ? TensorIOMode::kINPUT : TensorIOMode::kOUTPUT;
}

Range Engine::range(const Port& input, int32_t profile) const {
  const ProfileRanges& ranges = plan.profiles[static_cast<size_t>(profile)];
  const auto entry = ranges.find(input.info.name);
  if (entry != ranges.end() && !input.isShape) return entry->second;
  return {input.info.shape, input.info.shape, input.info.shape};
}

Dims Engine::getProfileShape(char const* name, int32_t profile, OptProfileSelector select) const noexcept {
  const Port* port = find(name);
  if (port == nullptr || !port->isInput || profile < 0 || profile >= getNbOptimizationProfiles())
    return Dims{-1, {}};
  return toDims(range(*port, profile)[static_cast<size_t>(select)]);
}

int64_t const* Engine::getProfileTensorValuesV2(char const* name, int32_t profile,
                                                OptProfileSelector select) const noexcept {
  const Port* port = find(name);
  if (port == nullptr || !port->isShape || profile < 0 || profile >= getNbOptimizationProfiles())
    return nullptr;
  const ProfileRanges& ranges = plan.profiles[static_cast<size_t>(profile)];
  const auto entry = ranges.find(name);
  return entry == ranges.end() ? nullptr : entry->second[static_cast<size_t>(select)].data();
}

char const* Engine::getIOTensorName(int32_t index) const noexcept {
  if (index < 0 || index >= getNbIOTensors()) return nullptr;
  return ports[static_cast<size_t>(index)].info.name.c_str();
}

int64_t Engine::getDeviceMemorySizeForProfileV2(int32_t profile) const noexcept {
  Shapes shapes;
  for (const Port& port : ports) {
    if (port.isInput) shapes[port.info.name] = range(port, profile)[2];
  }
  return static_cast<int64_t>(scratchBytes(shapes));
}

int64_t Engine::getDeviceMemorySizeV2() const noexcept {
  int64_t most = 0;
  for (int32_t i = 0; i < getNbOptimizationProfiles(); ++i) {
    most = std::max(most, getDeviceMemorySizeForProfileV2(i));
  }
  return most;
}

int64_t Engine::getEngineStat(EngineStat stat) const noexcept {
  return stat == EngineStat::kTOTAL_WEIGHTS_SIZE ? static_cast<int64_t>(computation()->onnx.weightBytes())
                                                 : 0;
}

char const* Engine::getAliasedInputTensor(char const* name) const noexcept {
  const Port* port = find(name);
  return port == nullptr || port->alias.empty() ? nullptr : port->alias.c_str();
}

size_t Engine::scratchBytes(const Shapes& inputs) const {
  constexpr size_t kGrain = 256;
  size_t bytes = kGrain;
  for (const Port& port : ports) {
    if (!port.isInput) continue;
    bytes += static_cast<size_t>(volume(inputs.at(port.info.name))) * elementBytes(port.info.type);
  }
  return (bytes + kGrain - 1) / kGrain * kGrain;
}

Shapes Engine::outputShapes(const Shapes& inputs, const Values& values) const {
  std::map<std::string, int64_t> symbols;
  for (const Port& port : ports) {
    if (!port.isInput) continue;
    const Shape& shape = inputs.at(port.info.name);
    for (size_t d = 0; d < shape.size(); ++d) {
      if (!port.info.symbols[d].empty()) symbols[port.info.symbols[d]] = shape[d];
    }
  }
  Shapes shapes;
  bool isKnown = true;
  for (const Port& port : ports) {
    if (port.isInput) continue;
    Shape& shape = shapes[port.info.name];
    shape = port.info.shape;
    for (size_t d = 0; d < shape.size() && !port.isDataDependent; ++d) {
      if (shape[d] >= 0) continue;
      const auto entry = symbols.find(port.info.symbols[d]);
      if (entry != symbols.end()) shape[d] = entry->second;
      isKnown = isKnown && entry != symbols.end();
    }
  }
  if (isKnown) return shapes;
  for (const auto& [name, shape] : computeShapes(inputs, values)) {
    if (!find(name.c_str())->isDataDependent) shapes[name] = shape;
  }
  return shapes;
}

Shapes Engine::computeShapes(const Shapes& inputs, const Values& values) const {
  std::lock_guard lock(mutex_);
  const auto [entry, isNew] = computedShapes_.try_emplace({inputs, values});
  if (!isNew) return entry->second;
  std::vector<Feed> feeds;
  std::map<std::string, std::vector<char>> zeros;
  for (const Port& port : ports) {
    if (!port.isInput) continue;
    const Shape& shape = inputs.at(port.info.name);
    const void* data = nullptr;
    if (port.isShape) {
      data = values.at(port.info.name).data();
    } else {
      std::vector<char>& bytes = zeros[port.info.name];
      bytes.resize(static_cast<size_t>(volume(shape)) * elementBytes(port.info.type));
      data = bytes.data();
    }
    feeds.push_back({port.info.name, port.info.type, shape, data});
  }
  try {
    for (Result& result : computation_->session.run(feeds))
      entry->second[result.name] = std::move(result.shape);
  } catch (const std::exception& error) {
    computedShapes_.erase(entry);
    throw;
  }
  return entry->second;
}

namespace {

class Inspector : public IEngineInspector, public Slots<apiv::VEngineInspector> {
 public:
  explicit Inspector(const Engine& engine) {
    mImpl = this;
    const bool isDetailed = engine.plan.settings.find(kDetailed) != std::string::npos;
    const std::shared_ptr<const Computation> computation = engine.computation();
    text_ = "{\"Layers\": ";
    text_ += list(computation->onnx.nodes(), [&](const Node& node) {
      if (!isDetailed) return quoted(node.name);
      return "{\"Name\": " + quoted(node.name) + ", \"LayerType\": " + quoted(node.op) +
             ", \"Inputs\": " + tensors(node.inputs) + ", \"Outputs\": " + tensors(node.outputs) + '}';
    });
    text_.append(", \"").append(NV_TENSORRT_MAJOR == 10 ? "Bindings" : "I/O Tensors").append("\": ");
    text_ += list(engine.ports, [](const Port& port) { return quoted(port.info.name); });
    text_ += '}';
  }
  IEngineInspector* getPImpl() noexcept override { return this; }
  char const* getEngineInformation(LayerInformationFormat) const noexcept override { return text_.c_str(); }

 private:
  static std::string quoted(const std::string& name) { return '"' + name + '"'; }

  template <typename List, typename Write>
  static std::string list(const List& elements, const Write& write) {
    std::string text = "[";
    for (const auto& element : elements) text.append(text.size() > 1 ? ", " : "").append(write(element));
    return text + ']';
  }

  static std::string tensors(const std::vector<std::string>& names) {
    return list(names, [](const std::string& name) { return "{\"Name\": " + quoted(name) + '}'; });
  }

  std::string text_;
};

}  // namespace

IEngineInspector* Engine::createEngineInspector() const noexcept {
  return new Object<Inspector, apiv::VEngineInspector>(*this);
}

#if NV_TENSORRT_MAJOR == 1

namespace {
constexpr std::string_view kRuntimeCacheHeader = "stand-in runtime cache\n";
}

IHostMemory* RuntimeCache::serialize() const noexcept {
  std::lock_guard lock(mutex_);
  std::string text(kRuntimeCacheHeader);
  for (const std::string& kernel : kernels_) text.append(kernel).append("\n");
  return new Object<HostMemory, apiv::VHostMemory>(std::move(text));
}

bool RuntimeCache::deserialize(void const* blob, size_t size) noexcept {
  std::string_view bytes(static_cast<const char*>(blob), size);
  if (!bytes.starts_with(kRuntimeCacheHeader)) return false;
  bytes.remove_prefix(kRuntimeCacheHeader.size());
  std::lock_guard lock(mutex_);
  while (!bytes.empty()) {
    const size_t end = bytes.find('\n');
    if (end == std::string_view::npos) return false;
    kernels_.emplace(bytes.substr(0, end));
    bytes.remove_prefix(end + 1);
  }
  return true;
}

bool RuntimeCache::reset() noexcept {
  std::lock_guard lock(mutex_);
  kernels_.clear();
  return true;
}

bool RuntimeCache::add(const std::string& kernel) {
  std::lock_guard lock(mutex_);
  return kernels_.insert(kernel).second;
}

#endif

}  // namespace stand_in
