// IExecutionContext: one run at a time, enqueued on a stream.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <set>

#include "engine.h"

extern "C" {
int cuEventRecord(void* event, CUstream_st* stream);
int cuMemcpyHtoDAsync_v2(unsigned long long to, const void* from, size_t bytes, CUstream_st* stream);
int cuStreamIsCapturing(CUstream_st* stream, int* state);
}

namespace stand_in {
namespace {

// What one enqueueV3 launches. It owns everything it refers to, except device memory.
struct Run {
  struct Buffer {
    std::string name;
    int type;
    Shape shape;
    void* address;
    size_t bytes;
  };

  std::shared_ptr<const Computation> computation;
  std::vector<Buffer> inputs;
  Values values;  // of shape tensors, read when the run is enqueued
  std::vector<Buffer> outputs;
  char* scratch;
  size_t scratchBytes;

  std::vector<Result> compute() const {
    std::vector<Feed> feeds;
    for (const Buffer& input : inputs) {
      const auto value = values.find(input.name);
      if (value == values.end() && standInMemoryAt(input.address, input.bytes) != kStandInDevice &&
          input.bytes > 0) {
        misuse("a run reads " + input.name + " from memory that is no longer device memory");
      }
      feeds.push_back({input.name, input.type, input.shape,
                       value == values.end() ? input.address : value->second.data()});
    }
    return computation->session.run(feeds);
  }

  // Called on the stream's thread.
  int execute() const {
    // Two runs that use the same scratch memory at once overwrite each other's marks.
    const Run* self = this;
    if (standInMemoryAt(scratch, scratchBytes) != kStandInDevice) misuse("a run's scratch memory was freed");
    std::memcpy(scratch, &self, sizeof self);
    std::memcpy(scratch + scratchBytes - sizeof self, &self, sizeof self);
    std::vector<Result> results;
    try {
      results = compute();
    } catch (const std::exception& error) {
      std::fprintf(stderr, "stand-in TensorRT: ONNX Runtime: %s\n", error.what());
      return 719;
    }
    if (std::memcmp(scratch, &self, sizeof self) != 0 ||
        std::memcmp(scratch + scratchBytes - sizeof self, &self, sizeof self) != 0) {
      misuse("two runs used the same scratch memory at once");
    }
    for (const Result& result : results) {
      const auto output = std::find_if(outputs.begin(), outputs.end(),
                                       [&](const Buffer& each) { return each.name == result.name; });
      if (output == outputs.end()) continue;
      if (output->shape != result.shape) {
        misuse("the output " + result.name + " was declared as " + describe(output->shape) + " and is " +
               describe(result.shape));
      }
      if (result.bytes.empty()) continue;
      if (standInMemoryAt(output->address, result.bytes.size()) != kStandInDevice) {
        misuse("a run writes " + result.name + " to memory that is no longer device memory");
      }
      std::memcpy(output->address, result.bytes.data(), result.bytes.size());
    }
    return 0;
  }
};

// Marks a context as in use by one thread. Callers must not use it on two threads at once.
class InUse {
 public:
  explicit InUse(std::atomic<bool>& flag) : flag_(flag) {
    if (flag_.exchange(true)) misuse("two threads used an execution context at once");
  }
  ~InUse() { flag_ = false; }
  InUse(const InUse&) = delete;

 private:
  std::atomic<bool>& flag_;
};

class Context : public IExecutionContext, public Slots<apiv::VExecutionContext> {
 public:
  Context(Engine& engine, ExecutionContextAllocationStrategy strategy, const RuntimeConfig* config)
      : engine_(engine), strategy_(strategy) {
    mImpl = this;
    if (config != nullptr) {
#if NV_TENSORRT_MAJOR == 1
      cache_ = config->cache;
      capturesGraphs_ = config->graphs == CudaGraphStrategy::kWHOLE_GRAPH_CAPTURE;
#endif
    }
    ++engine_.contexts;
    useProfile(0);
  }
  ~Context() override { --engine_.contexts; }

  // Allocates the context's own memory, if the strategy requires it.
  bool allocate() {
    if (strategy_ == ExecutionContextAllocationStrategy::kUSER_MANAGED) return true;
    const int64_t bytes = strategy_ == ExecutionContextAllocationStrategy::kSTATIC
                              ? engine_.getDeviceMemorySizeV2()
                              : engine_.getDeviceMemorySizeForProfileV2(profile_);
    own_.release();
    if (!own_.allocate(static_cast<size_t>(bytes), engine_.logger)) return false;
    scratch_ = own_.get();
    scratchBytes_ = own_.size();
    return true;
  }

  IExecutionContext* getPImpl() noexcept override { return this; }
  ICudaEngine const& getEngine() const noexcept override { return engine_; }
  void setName(char const* name) noexcept override { name_ = name; }
  char const* getName() const noexcept override { return name_.c_str(); }
  void setEnqueueEmitsProfile(bool emits) noexcept override { emitsProfile_ = emits; }
  bool getEnqueueEmitsProfile() const noexcept override { return emitsProfile_; }

  // ---- profile and shapes ----

  int32_t getOptimizationProfile() const noexcept override { return profile_; }

  bool setOptimizationProfileAsync(int32_t profile, cudaStream_t) noexcept override {
    const InUse use(inUse_);
    if (profile < 0 || profile >= engine_.getNbOptimizationProfiles()) {
      return fail("setOptimizationProfileAsync: profile index " + std::to_string(profile) +
                  " is out of range");
    }
    useProfile(profile);
    return strategy_ != ExecutionContextAllocationStrategy::kON_PROFILE_CHANGE || allocate();
  }

  bool setInputShape(char const* name, Dims const& dims) noexcept override {
    const InUse use(inUse_);
    const Port* port = engine_.find(name);
    if (port == nullptr || !port->isInput) return false;
    const Shape shape = toShape(dims);
    const auto [min, opt, max] = engine_.range(*port, profile_);
    bool fits = shape.size() == min.size();
    for (size_t d = 0; fits && d < shape.size(); ++d) fits = min[d] <= shape[d] && shape[d] <= max[d];
    if (!fits) {
      return fail("Set dimension " + describe(shape) + " for tensor " + name +
                  " does not satisfy any optimization profiles. Valid range for profile " +
                  std::to_string(profile_) + ": " + describe(min) + ".." + describe(max) + ".");
    }
    shapes_[name] = shape;
    return true;
  }

  Dims getTensorShape(char const* name) const noexcept override {
    const Port* port = engine_.find(name);
    if (port == nullptr) return Dims{-1, {}};
    if (port->isInput) {
      const auto entry = shapes_.find(name);
      return toDims(entry == shapes_.end() ? port->info.shape : entry->second);
    }
    try {
      if (isSpecified()) return toDims(outputShapes().at(name));
    } catch (const std::exception& error) {
      fail(error.what());
      return Dims{-1, {}};
    }
    return toDims(port->info.shape);
  }

  bool allInputDimensionsSpecified() const noexcept override { return isSpecified(); }

  int32_t inferShapes(int32_t most, char const** names) noexcept override {
    const InUse use(inUse_);
    int32_t count = 0;
    for (const Port& port : engine_.ports) {
      if (!port.isInput || isSpecified(port)) continue;
      if (count < most) names[count] = port.info.name.c_str();
      ++count;
    }
    if (count > 0) return count;
    try {
      outputShapes();
    } catch (const std::exception& error) {
      fail(error.what());
      return -1;
    }
    return 0;
  }

  int64_t getMaxOutputSize(char const* name) const noexcept override {
    const Port* port = engine_.find(name);
    if (port == nullptr || port->isInput) return -1;
    Shapes shapes;
    int64_t elements = 0;
    for (const Port& input : engine_.ports) {
      if (!input.isInput) continue;
      shapes[input.info.name] = engine_.range(input, profile_)[2];
      elements = std::max(elements, volume(shapes[input.info.name]));
    }
    try {
      Shape shape = engine_.outputShapes(shapes, shapeValues()).at(name);
      // A shape that depends on the data has at most one row per element.
      std::replace(shape.begin(), shape.end(), int64_t{-1}, elements);
      return volume(shape) * static_cast<int64_t>(elementBytes(port->info.type));
    } catch (const std::exception& error) {
      fail(error.what());
      return -1;
    }
  }

  // ---- memory ----

  bool setTensorAddress(char const* name, void* data) noexcept override {
    const InUse use(inUse_);
    const Port* port = engine_.find(name);
    if (port == nullptr) return false;
    constexpr uintptr_t kAlignment = 256;
    if (!port->isShape && reinterpret_cast<uintptr_t>(data) % kAlignment != 0) {
      return fail("setTensorAddress: the address of " + port->info.name + " is not aligned to 256 bytes");
    }
    addresses_[name] = data;
    return true;
  }
  void const* getTensorAddress(char const* name) const noexcept override {
    const auto entry = addresses_.find(name);
    return entry == addresses_.end() ? nullptr : entry->second;
  }
  bool setInputTensorAddress(char const* name, void const* data) noexcept override {
    const Port* port = engine_.find(name);
    return port != nullptr && port->isInput && setTensorAddress(name, const_cast<void*>(data));
  }
  bool setOutputTensorAddress(char const* name, void* data) noexcept override {
    const Port* port = engine_.find(name);
    return port != nullptr && !port->isInput && setTensorAddress(name, data);
  }
  void* getOutputTensorAddress(char const* name) const noexcept override {
    return const_cast<void*>(getTensorAddress(name));
  }
  bool setOutputAllocator(char const* name, IOutputAllocator* allocator) noexcept override {
    const Port* port = engine_.find(name);
    if (port == nullptr || port->isInput) return false;
    allocators_[name] = allocator;
    return true;
  }
  IOutputAllocator* getOutputAllocator(char const* name) noexcept override {
    const auto entry = allocators_.find(name);
    return entry == allocators_.end() ? nullptr : entry->second;
  }
  size_t updateDeviceMemorySizeForShapes() noexcept override {
    const InUse use(inUse_);
    return isSpecified() ? engine_.scratchBytes(allShapes()) : 0;
  }
  void setDeviceMemoryV2(void* memory, int64_t size) noexcept override {
    const InUse use(inUse_);
    if (strategy_ != ExecutionContextAllocationStrategy::kUSER_MANAGED) {
      fail("setDeviceMemoryV2: the context allocates its memory itself");
      return;
    }
    scratch_ = memory;
    scratchBytes_ = static_cast<size_t>(size);
  }

  // ---- runs ----

  bool setInputConsumedEvent(cudaEvent_t event) noexcept override { return consumed_ = event, true; }
  cudaEvent_t getInputConsumedEvent() const noexcept override { return consumed_; }

#if NV_TENSORRT_MAJOR == 1
  bool isStreamCapturable(cudaStream_t) const noexcept override { return !isDataDependent(); }
#endif

  bool enqueueV3(cudaStream_t cudaStream) noexcept override {
    const InUse use(inUse_);
    auto* stream = reinterpret_cast<CUstream_st*>(cudaStream);
    if (standInFaultOccurs("enqueue")) return fail("enqueueV3: an injected failure", 1);
    auto run = std::make_unique<Run>();
    try {
      if (!prepare(*run)) return false;
      if (isDataDependent()) return runNow(*run, stream);
    } catch (const std::exception& error) {
      return fail(error.what());
    }
#if NV_TENSORRT_MAJOR == 1
    if (cache_ != nullptr) {
      std::string kernel;
      for (const auto& [name, shape] : allShapes()) kernel += name + describe(shape);
      cache_->add(kernel);
    }
    if (capturesGraphs_ && !isCaptured(*run) && standInFaultHolds("recapture")) {
      return fail("enqueueV3: an injected failure: yet another graph", 1);
    }
#endif
    const auto execute = [](void* data) { return static_cast<const Run*>(data)->execute(); };
    const auto destroy = [](void* data) { delete static_cast<const Run*>(data); };
    if (const int status = standInLaunch(stream, {execute, destroy, run.release()})) {
      return fail("Cuda Runtime (status " + std::to_string(status) + ")", 1);
    }
    if (consumed_ != nullptr && ::cuEventRecord(consumed_, stream) != 0) return fail("Cuda Runtime", 1);
    return true;
  }

 private:
  bool fail(const std::string& text, int code = 3) const {
    logError(engine_.logger, "IExecutionContext::enqueueV3: Error Code " + std::to_string(code) +
                                 (code == 3 ? ": API Usage Error (" : ": Internal Error (") + text + ")");
    return false;
  }

  void useProfile(int32_t profile) {
    profile_ = profile;
    // Shapes are set for a profile.
    shapes_.clear();
  }

  bool isSpecified(const Port& input) const {
    const auto entry = shapes_.find(input.info.name);
    const Shape& shape = entry == shapes_.end() ? input.info.shape : entry->second;
    if (input.isShape && addresses_.count(input.info.name) == 0) return false;
    return std::find(shape.begin(), shape.end(), -1) == shape.end();
  }
  bool isSpecified() const {
    return std::all_of(engine_.ports.begin(), engine_.ports.end(),
                       [this](const Port& port) { return !port.isInput || isSpecified(port); });
  }
  bool isDataDependent() const {
    return std::any_of(engine_.ports.begin(), engine_.ports.end(),
                       [](const Port& port) { return port.isDataDependent; });
  }

#if NV_TENSORRT_MAJOR == 1
  // True if there is a graph for these shapes and addresses.
  bool isCaptured(const Run& run) {
    std::string key = std::to_string(profile_);
    for (const auto& buffers : {run.inputs, run.outputs}) {
      for (const Run::Buffer& each : buffers) {
        key += ' ' + describe(each.shape) + std::to_string(reinterpret_cast<uintptr_t>(each.address));
      }
    }
    return !captured_.insert(std::move(key)).second;
  }
#endif

  Shapes allShapes() const {
    Shapes shapes = shapes_;
    for (const Port& port : engine_.ports) {
      if (port.isInput) shapes.emplace(port.info.name, port.info.shape);
    }
    return shapes;
  }

  Values shapeValues() const {
    Values values;
    for (const Port& port : engine_.ports) {
      if (!port.isShape) continue;
      const size_t bytes = static_cast<size_t>(volume(port.info.shape)) * elementBytes(port.info.type);
      const char* data = static_cast<const char*>(addresses_.at(port.info.name));
      if (standInMemoryAt(data, bytes) == kStandInDevice) {
        misuse("the shape tensor " + port.info.name + " is in device memory");
      }
      values[port.info.name].assign(data, data + bytes);
    }
    return values;
  }

  Shapes outputShapes() const { return engine_.outputShapes(allShapes(), shapeValues()); }

  // Collects what the run needs, and checks it.
  bool prepare(Run& run) {
    if (!isSpecified()) return fail("not all input shapes are specified");
    const Shapes shapes = allShapes();
    run.values = shapeValues();
    if (!checkValues(run.values)) return false;
    const Shapes outputs = engine_.outputShapes(shapes, run.values);
    run.computation = engine_.computation();
    for (const Port& port : engine_.ports) {
      const std::string& name = port.info.name;
      const Shape& shape = port.isInput ? shapes.at(name) : outputs.at(name);
      const size_t bytes = static_cast<size_t>(volume(shape)) * elementBytes(port.info.type);
      const auto entry = addresses_.find(name);
      void* address = entry == addresses_.end() ? nullptr : entry->second;
      if (port.isInput) {
        if (address == nullptr) return fail("no address is set for the input " + name);
        if (!port.isShape && bytes > 0 && standInMemoryAt(address, bytes) != kStandInDevice) {
          misuse("the input " + name + " is not in device memory");
        }
        run.inputs.push_back({name, port.info.type, shape, address, bytes});
        continue;
      }
      IOutputAllocator* allocator = getOutputAllocator(name.c_str());
      if (allocator == nullptr && address == nullptr) {
        return fail("neither address nor allocator is set for the output " + name);
      }
      if (port.isDataDependent) {
        if (allocator == nullptr) return fail("an output allocator is needed for the output " + name);
        run.outputs.push_back({name, port.info.type, shape, address, 0});
        continue;
      }
      if (allocator != nullptr) {
        address = allocator->reallocateOutputAsync(name.c_str(), address, bytes, 256, nullptr);
        if (address == nullptr && bytes > 0) return fail("the output allocator has no memory for " + name, 1);
        allocator->notifyShape(name.c_str(), toDims(shape));
      }
      if (bytes > 0 && standInMemoryAt(address, bytes) != kStandInDevice) {
        misuse("the output " + name + " is not in device memory");
      }
      if (!port.alias.empty() && getTensorAddress(port.alias.c_str()) != address) {
        return fail("the output " + name + " must have the address of the input " + port.alias);
      }
      run.outputs.push_back({name, port.info.type, shape, address, bytes});
    }
    run.scratch = static_cast<char*>(scratch_);
    run.scratchBytes = engine_.scratchBytes(shapes);
    if (scratch_ == nullptr || scratchBytes_ < run.scratchBytes) {
      return fail("the context's device memory has " + std::to_string(scratchBytes_) +
                  " bytes; the run needs " + std::to_string(run.scratchBytes));
    }
    return true;
  }

  bool checkValues(const Values& values) const {
    for (const auto& [name, bytes] : values) {
      const ProfileRanges& ranges = engine_.plan.profiles[static_cast<size_t>(profile_)];
      const auto entry = ranges.find(name);
      if (entry == ranges.end()) continue;
      const bool isLong = engine_.find(name.c_str())->type == DataType::kINT64;
      for (size_t i = 0; i < entry->second[0].size(); ++i) {
        int64_t value = 0;
        if (isLong) {
          std::memcpy(&value, bytes.data() + i * 8, 8);
        } else {
          int32_t narrow = 0;
          std::memcpy(&narrow, bytes.data() + i * 4, 4);
          value = narrow;
        }
        if (value < entry->second[0][i] || value > entry->second[2][i]) {
          return fail("the value " + std::to_string(value) + " of the shape tensor " + name +
                      " is outside of the profile");
        }
      }
    }
    return true;
  }

  // For outputs whose size depends on the data: waits for the stream and computes at once.
  bool runNow(const Run& run, CUstream_st* stream) {
    if (const int status = standInSynchronize(stream)) {
      return fail("Cuda Runtime (status " + std::to_string(status) + ")", 1);
    }
    for (const Result& result : run.compute()) {
      const auto output = std::find_if(run.outputs.begin(), run.outputs.end(),
                                       [&](const Run::Buffer& each) { return each.name == result.name; });
      void* address = output->address;
      if (engine_.find(result.name.c_str())->isDataDependent) {
        IOutputAllocator* allocator = getOutputAllocator(result.name.c_str());
        address = allocator->reallocateOutputAsync(result.name.c_str(), address,
                                                   std::max<size_t>(result.bytes.size(), 1), 256,
                                                   reinterpret_cast<cudaStream_t>(stream));
        if (address == nullptr) return fail("the output allocator has no memory for " + result.name, 1);
        allocator->notifyShape(result.name.c_str(), toDims(result.shape));
      }
      if (result.bytes.empty()) continue;
      const int status = ::cuMemcpyHtoDAsync_v2(reinterpret_cast<unsigned long long>(address),
                                                result.bytes.data(), result.bytes.size(), stream);
      if (status != 0) return fail("Cuda Runtime (status " + std::to_string(status) + ")", 1);
    }
    return consumed_ == nullptr || ::cuEventRecord(consumed_, stream) == 0;
  }

  Engine& engine_;
  const ExecutionContextAllocationStrategy strategy_;
#if NV_TENSORRT_MAJOR == 1
  RuntimeCache* cache_ = nullptr;
  bool capturesGraphs_ = false;
  std::set<std::string> captured_;
#endif
  std::string name_;
  bool emitsProfile_ = true;
  int32_t profile_ = 0;
  Shapes shapes_;
  std::map<std::string, void*> addresses_;
  std::map<std::string, IOutputAllocator*> allocators_;
  DeviceMemory own_;
  void* scratch_ = nullptr;
  size_t scratchBytes_ = 0;
  cudaEvent_t consumed_ = nullptr;
  mutable std::atomic<bool> inUse_{false};
};

}  // namespace

IExecutionContext* createContext(Engine& engine, ExecutionContextAllocationStrategy strategy,
                                 const RuntimeConfig* config) {
  if (standInFaultOccurs("context")) {
    logError(engine.logger, "Error Code 2: OutOfMemory (an injected failure)");
    return nullptr;
  }
  auto context = std::make_unique<Object<Context, apiv::VExecutionContext>>(engine, strategy, config);
  return context->allocate() ? context.release() : nullptr;
}

}  // namespace stand_in
