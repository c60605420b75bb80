// A loaded plan, and the interfaces that run it.
#pragma once

#include <NvInfer.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>

#include "../cuda/cuda.h"
#include "network.h"
#include "session.h"

namespace stand_in {

// Device memory that belongs to TensorRT, allocated in the current context.
class DeviceMemory {
 public:
  DeviceMemory() = default;
  ~DeviceMemory() { release(); }
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;

  // Returns false and logs a message if there isn't enough memory.
  bool allocate(size_t bytes, ILogger& logger);
  void release() noexcept;
  void* get() const noexcept { return reinterpret_cast<void*>(address_); }
  size_t size() const noexcept { return size_; }

 private:
  unsigned long long address_ = 0;
  size_t size_ = 0;
  // The context that it was allocated in. It is released there, whichever context is current then.
  void* context_ = nullptr;
};

// An input or output of the plan.
struct Port {
  ValueInfo info;
  DataType type = DataType::kFLOAT;
  bool isInput = false;
  bool isShape = false;          // its values are shapes, so it is in host memory
  bool isDataDependent = false;  // its shape isn't known before it is computed
  std::string alias;             // for an output: the input whose memory it shares
};

using Shapes = std::map<std::string, Shape>;
// Values of shape tensors.
using Values = std::map<std::string, std::vector<char>>;

// The model that runs compute, which they keep alive.
class Computation {
 public:
  explicit Computation(const std::string& model) : onnx(model, ""), session(onnx.translate()) {}

  const OnnxModel onnx;
  const Session session;
};

class RuntimeConfig;

class Engine : public ICudaEngine, public Slots<apiv::VCudaEngine> {
 public:
  // Throws std::runtime_error.
  Engine(Plan plan, ILogger& logger, std::shared_ptr<std::atomic<int>> runtimeUsers);
  ~Engine() override;

  ICudaEngine* getPImpl() noexcept override { return this; }
  int32_t getNbLayers() const noexcept override;
  IHostMemory* serialize() const noexcept override;
  IExecutionContext* createExecutionContext(ExecutionContextAllocationStrategy strategy) noexcept override;
  IExecutionContext* createExecutionContextWithRuntimeConfig(IRuntimeConfig* config) noexcept override;
  IRuntimeConfig* createRuntimeConfig() noexcept override;
  bool isRefittable() const noexcept override { return plan.refittable; }
  char const* getName() const noexcept override { return plan.name.c_str(); }
  int32_t getNbOptimizationProfiles() const noexcept override {
    return static_cast<int32_t>(plan.profiles.size());
  }
  IEngineInspector* createEngineInspector() const noexcept override;
  Dims getTensorShape(char const* name) const noexcept override;
  DataType getTensorDataType(char const* name) const noexcept override;
  TensorLocation getTensorLocation(char const* name) const noexcept override;
  bool isShapeInferenceIO(char const* name) const noexcept override;
  TensorIOMode getTensorIOMode(char const* name) const noexcept override;
  int32_t getTensorBytesPerComponent(char const*) const noexcept override { return -1; }
  int32_t getTensorComponentsPerElement(char const*) const noexcept override { return -1; }
  TensorFormat getTensorFormat(char const*) const noexcept override { return TensorFormat::kLINEAR; }
  TensorFormat getTensorFormatV2(char const*, int32_t) const noexcept override {
    return TensorFormat::kLINEAR;
  }
  char const* getTensorFormatDesc(char const*) const noexcept override {
    return "Row major linear format (kLINEAR)";
  }
  int32_t getTensorVectorizedDim(char const*) const noexcept override { return -1; }
  Dims getProfileShape(char const* name, int32_t profile, OptProfileSelector select) const noexcept override;
  int64_t const* getProfileTensorValuesV2(char const* name, int32_t profile,
                                          OptProfileSelector select) const noexcept override;
  int32_t getNbIOTensors() const noexcept override { return static_cast<int32_t>(ports.size()); }
  char const* getIOTensorName(int32_t index) const noexcept override;
  int32_t getNbAuxStreams() const noexcept override { return 0; }
  int64_t getDeviceMemorySizeV2() const noexcept override;
  int64_t getDeviceMemorySizeForProfileV2(int32_t profile) const noexcept override;
  int64_t getStreamableWeightsSize() const noexcept override { return 0; }
  int64_t getEngineStat(EngineStat stat) const noexcept override;
  char const* getAliasedInputTensor(char const* name) const noexcept override;
#if NV_TENSORRT_MAJOR == 1
  bool areWeightsLoaded() const noexcept override { return true; }
#endif

  const Port* find(const char* name) const noexcept;
  const std::shared_ptr<const Computation>& computation() const noexcept { return computation_; }
  // The input's range in a profile. For a static input, min, opt and max are its shape.
  Range range(const Port& input, int32_t profile) const;
  // Shapes of the outputs for these input shapes. If the declared shapes aren't enough, they are found by
  // computing once with zeros. Dimensions that depend on the data are -1.
  Shapes outputShapes(const Shapes& inputs, const Values& values) const;
  // Bytes of scratch memory for a run.
  size_t scratchBytes(const Shapes& inputs) const;

  Plan plan;
  ILogger& logger;
  std::vector<Port> ports;
  std::atomic<int> contexts{0};
  const std::shared_ptr<std::atomic<int>> users;  // counts users of the runtime

 private:
  Shapes computeShapes(const Shapes& inputs, const Values& values) const;

  mutable std::mutex mutex_;
  const std::shared_ptr<const Computation> computation_;
  mutable std::map<std::pair<Shapes, Values>, Shapes> computedShapes_;
  DeviceMemory weights_;
};

#if NV_TENSORRT_MAJOR == 1
class RuntimeCache : public IRuntimeCache, public Slots<apiv::VRuntimeCache> {
 public:
  RuntimeCache() { mImpl = this; }
  IHostMemory* serialize() const noexcept override;
  bool deserialize(void const* blob, size_t size) noexcept override;
  bool reset() noexcept override;
  // Records a kernel that was compiled during a run. Returns true if it is new.
  bool add(const std::string& kernel);

 private:
  mutable std::mutex mutex_;
  std::set<std::string> kernels_;
};
#endif

class RuntimeConfig : public IRuntimeConfig, public Slots<apiv::VRuntimeConfig> {
 public:
  RuntimeConfig() { mImpl = this; }
  IRuntimeConfig* getPImpl() noexcept override { return this; }
  void setExecutionContextAllocationStrategy(ExecutionContextAllocationStrategy value) noexcept override {
    strategy = value;
  }
  ExecutionContextAllocationStrategy getExecutionContextAllocationStrategy() const noexcept override {
    return strategy;
  }
#if NV_TENSORRT_MAJOR == 1
  IRuntimeCache* createRuntimeCache() const noexcept override {
    return new Object<RuntimeCache, apiv::VRuntimeCache>();
  }
  bool setRuntimeCache(IRuntimeCache const& value) noexcept override {
    cache = &const_cast<RuntimeCache&>(static_cast<const RuntimeCache&>(value));
    return true;
  }
  IRuntimeCache* getRuntimeCache() const noexcept override { return cache; }
  void setDynamicShapesKernelSpecializationStrategy(
      DynamicShapesKernelSpecializationStrategy value) noexcept override {
    specialization = value;
  }
  DynamicShapesKernelSpecializationStrategy getDynamicShapesKernelSpecializationStrategy()
      const noexcept override {
    return specialization;
  }
  bool setCudaGraphStrategy(CudaGraphStrategy value) noexcept override { return graphs = value, true; }
  CudaGraphStrategy getCudaGraphStrategy() const noexcept override { return graphs; }

  RuntimeCache* cache = nullptr;
  DynamicShapesKernelSpecializationStrategy specialization = DynamicShapesKernelSpecializationStrategy::kLAZY;
  CudaGraphStrategy graphs = CudaGraphStrategy::kDISABLED;
#endif

  ExecutionContextAllocationStrategy strategy = ExecutionContextAllocationStrategy::kSTATIC;
};

// Returns nullptr and logs a message if the context can't be created.
IExecutionContext* createContext(Engine& engine, ExecutionContextAllocationStrategy strategy,
                                 const RuntimeConfig* config);

void logError(ILogger& logger, const std::string& text);
std::string describe(const Shape& shape);
// Ends the process: the caller broke a rule, and the real library wouldn't notice.
[[noreturn]] void misuse(const std::string& text);

}  // namespace stand_in
