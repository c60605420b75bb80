// What a builder works with before it compiles: networks, profiles and configurations. The ONNX parser fills
// the networks.
#pragma once

#include <NvOnnxParser.h>

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "model.h"
#include "plan.h"
#include "slots.h"

namespace stand_in {

// Wraps an implementation so that each slot is checked against the played version.
template <class Base, class... Interfaces>
struct GuardedBy {
  using Type = Base;
};
template <class Base, class First, class... Rest>
struct GuardedBy<Base, First, Rest...> {
  using Type = Guarded<First, typename GuardedBy<Base, Rest...>::Type>;
};
template <class Base, class... Interfaces>
using Object = typename GuardedBy<Base, Interfaces...>::Type;

// Converts an ONNX element type to TensorRT's. Returns false if TensorRT has none.
bool toDataType(int type, DataType& found) noexcept;
Dims toDims(const Shape& shape) noexcept;
Shape toShape(const Dims& dims);

inline constexpr bool kIsRtx = std::string_view(STAND_IN_FLAVOUR) == "rtx";

class HostMemory : public IHostMemory, public Slots<apiv::VHostMemory> {
 public:
  explicit HostMemory(std::string bytes) : bytes_(std::move(bytes)) { mImpl = this; }
  void* data() const noexcept override { return const_cast<char*>(bytes_.data()); }
  size_t size() const noexcept override { return bytes_.size(); }
  DataType type() const noexcept override { return DataType::kINT8; }

 private:
  std::string bytes_;
};

class Tensor : public ITensor, public Slots<apiv::VTensor> {
 public:
  explicit Tensor(ValueInfo value) : info(std::move(value)) { mImpl = this; }
  char const* getName() const noexcept override { return info.name.c_str(); }
  Dims getDimensions() const noexcept override { return toDims(info.shape); }
  DataType getType() const noexcept override;
  bool isNetworkInput() const noexcept override { return isInput; }
  bool isNetworkOutput() const noexcept override { return isOutput; }
  bool isShapeTensor() const noexcept override { return isShape; }
  bool isExecutionTensor() const noexcept override { return !isShape; }
  char const* getDimensionName(int32_t index) const noexcept override;
  void setAllowedFormats(TensorFormats formats) noexcept override { allowedFormats = formats; }
  TensorFormats getAllowedFormats() const noexcept override { return allowedFormats; }

  const ValueInfo info;
  bool isInput = false;
  bool isOutput = false;
  bool isShape = false;
  TensorFormats allowedFormats = ~TensorFormats{0};
};

class Attention : public IAttention, public Slots<apiv::VAttention> {
 public:
  explicit Attention(std::string nodeName) : name(std::move(nodeName)) { mImpl = this; }
  char const* getName() const noexcept override { return name.c_str(); }
  bool setDecomposable(bool decomposable) noexcept override { return isDecomposable = decomposable, true; }
  bool getDecomposable() const noexcept override { return isDecomposable; }

  const std::string name;
  bool isDecomposable = false;
};

// A layer, which is a node of the model. Callers may cast it to `Interface`.
template <class Interface>
class LayerOf : public Interface, public Slots<apiv::VLayer> {
 public:
  LayerOf(LayerType layerType, std::string layerName, std::vector<Tensor*> layerInputs,
          std::vector<Tensor*> layerOutputs)
      : type(layerType),
        name(std::move(layerName)),
        inputs(std::move(layerInputs)),
        outputs(std::move(layerOutputs)) {
    this->mLayer = this;
  }
  LayerType getType() const noexcept override { return type; }
  char const* getName() const noexcept override { return name.c_str(); }
  int32_t getNbInputs() const noexcept override { return static_cast<int32_t>(inputs.size()); }
  ITensor* getInput(int32_t index) const noexcept override {
    return index < getNbInputs() ? inputs.at(static_cast<size_t>(index)) : nullptr;
  }
  int32_t getNbOutputs() const noexcept override { return static_cast<int32_t>(outputs.size()); }
  ITensor* getOutput(int32_t index) const noexcept override { return outputs.at(static_cast<size_t>(index)); }
  void setInput(int32_t index, ITensor& tensor) noexcept override {
    inputs.at(static_cast<size_t>(index)) = static_cast<Tensor*>(&tensor);
  }

  const LayerType type;
  const std::string name;
  std::vector<Tensor*> inputs;
  const std::vector<Tensor*> outputs;
};

class PlainLayer : public LayerOf<ILayer> {
 public:
  using LayerOf::LayerOf;
};

class ElementWiseLayer : public LayerOf<IElementWiseLayer>, public Slots<apiv::VElementWiseLayer> {
 public:
  ElementWiseLayer(ElementWiseOperation computed, std::string layerName, std::vector<Tensor*> layerInputs,
                   std::vector<Tensor*> layerOutputs)
      : LayerOf(LayerType::kELEMENTWISE, std::move(layerName), std::move(layerInputs),
                std::move(layerOutputs)),
        operation(computed) {
    mImpl = this;
  }
  ElementWiseOperation getOperation() const noexcept override { return operation; }

  const ElementWiseOperation operation;
};

// A constant layer. Holds an FP32 number; the values of a Constant node are in the model.
class ConstantLayer : public LayerOf<IConstantLayer>, public Slots<apiv::VConstantLayer> {
 public:
  ConstantLayer(std::optional<float> value, std::string layerName, std::vector<Tensor*> layerOutputs)
      : LayerOf(LayerType::kCONSTANT, std::move(layerName), {}, std::move(layerOutputs)), number(value) {
    mImpl = this;
  }
  Weights getWeights() const noexcept override {
    return {DataType::kFLOAT, number ? &*number : nullptr, number ? 1 : 0};
  }

  const std::optional<float> number;
};

class AttentionInputLayer : public LayerOf<IAttentionInputLayer>,
                            public Slots<apiv::VAttentionBoundaryLayer> {
 public:
  AttentionInputLayer(const std::string& node, std::vector<Tensor*> layerInputs)
      : LayerOf(LayerType::kATTENTION_INPUT, node + "_AttentionInput", std::move(layerInputs), {}),
        attention(std::make_unique<Object<Attention, apiv::VAttention>>(node)) {
    mBoundary = this;
  }
  IAttention* getAttention() const noexcept override { return attention.get(); }

  const std::unique_ptr<Object<Attention, apiv::VAttention>> attention;
};

class Network : public INetworkDefinition, public Slots<apiv::VNetworkDefinition> {
 public:
  explicit Network(NetworkDefinitionCreationFlags creationFlags) : flags(creationFlags) { mImpl = this; }
  int32_t getNbLayers() const noexcept override { return static_cast<int32_t>(layers.size()); }
  ILayer* getLayer(int32_t index) const noexcept override {
    return layers.at(static_cast<size_t>(index)).get();
  }
  int32_t getNbInputs() const noexcept override { return static_cast<int32_t>(inputs.size()); }
  ITensor* getInput(int32_t index) const noexcept override { return inputs.at(static_cast<size_t>(index)); }
  int32_t getNbOutputs() const noexcept override { return static_cast<int32_t>(outputs.size()); }
  ITensor* getOutput(int32_t index) const noexcept override { return outputs.at(static_cast<size_t>(index)); }
  void setName(char const* text) noexcept override { name = text; }
  char const* getName() const noexcept override { return name.c_str(); }
  NetworkDefinitionCreationFlags getFlags() const noexcept override { return flags; }
  bool getFlag(NetworkDefinitionCreationFlag flag) const noexcept override {
    return (flags >> static_cast<int>(flag) & 1) != 0;
  }
  bool markWeightsRefittable(char const* weights) noexcept override;
  bool unmarkWeightsRefittable(char const* weights) noexcept override {
    return refittable.erase(weights) > 0;
  }
  bool areWeightsMarkedRefittable(char const* weights) const noexcept override {
    return refittable.count(weights) > 0;
  }

  const NetworkDefinitionCreationFlags flags;
  std::string name;
  std::optional<OnnxModel> model;
  std::map<std::string, std::unique_ptr<Tensor>> tensors;
  // shared_ptr, because the interface's destructor isn't public.
  std::vector<std::shared_ptr<ILayer>> layers;
  std::vector<Tensor*> inputs;
  std::vector<Tensor*> outputs;
  std::set<std::string> refittable;
};

class Profile : public IOptimizationProfile, public Slots<apiv::VOptimizationProfile> {
 public:
  Profile() { mImpl = this; }
  bool setDimensions(char const* input, OptProfileSelector select, Dims const& dims) noexcept override {
    return ranges[input][static_cast<size_t>(select)] = toShape(dims), true;
  }
  Dims getDimensions(char const* input, OptProfileSelector select) const noexcept override;
  bool setShapeValuesV2(char const* input, OptProfileSelector select, int64_t const* values,
                        int32_t count) noexcept override {
    return ranges[input][static_cast<size_t>(select)] = Shape(values, values + count), true;
  }
  bool isValid() const noexcept override { return true; }

  ProfileRanges ranges;
};

class TimingCache : public ITimingCache, public Slots<apiv::VTimingCache> {
 public:
  explicit TimingCache(std::set<std::string> known) : kernels(std::move(known)) { mImpl = this; }
  IHostMemory* serialize() const noexcept override;
  bool combine(ITimingCache const& other, bool) noexcept override;
  bool reset() noexcept override { return kernels.clear(), true; }

  // Returns nullptr if the bytes aren't a timing cache.
  static TimingCache* read(std::string_view bytes);

  // Names of the layers whose kernels were measured.
  std::set<std::string> kernels;
};

class Config : public IBuilderConfig, public Slots<apiv::VBuilderConfig> {
 public:
  Config() { mImpl = this; }
  void setFlags(BuilderFlags all) noexcept override { flags = all; }
  BuilderFlags getFlags() const noexcept override { return flags; }
  void setFlag(BuilderFlag flag) noexcept override { flags |= BuilderFlags{1} << static_cast<int>(flag); }
  void clearFlag(BuilderFlag flag) noexcept override {
    flags &= ~(BuilderFlags{1} << static_cast<int>(flag));
  }
  bool getFlag(BuilderFlag flag) const noexcept override {
    return (flags >> static_cast<int>(flag) & 1) != 0;
  }
  int32_t addOptimizationProfile(IOptimizationProfile const* profile) noexcept override;
  int32_t getNbOptimizationProfiles() const noexcept override {
    return static_cast<int32_t>(profiles.size());
  }
  void setMemoryPoolLimit(MemoryPoolType pool, size_t bytes) noexcept override { pools[pool] = bytes; }
  size_t getMemoryPoolLimit(MemoryPoolType pool) const noexcept override {
    return pools.count(pool) > 0 ? pools.at(pool) : SIZE_MAX;
  }
  void setBuilderOptimizationLevel(int32_t level) noexcept override { optimizationLevel = level; }
  int32_t getBuilderOptimizationLevel() const noexcept override { return optimizationLevel; }
  void setProfilingVerbosity(ProfilingVerbosity level) noexcept override { verbosity = level; }
  ProfilingVerbosity getProfilingVerbosity() const noexcept override { return verbosity; }
  void setProgressMonitor(IProgressMonitor* observer) noexcept override { monitor = observer; }
  IProgressMonitor* getProgressMonitor() const noexcept override { return monitor; }
  ITimingCache* createTimingCache(void const* blob, size_t size) const noexcept override {
    return TimingCache::read({static_cast<const char*>(blob), size});
  }
  bool setTimingCache(ITimingCache const& cache, bool) noexcept override {
    // As in the real library, the build adds to the cache it was given.
    timingCache = &const_cast<TimingCache&>(static_cast<const TimingCache&>(cache));
    return true;
  }
  ITimingCache const* getTimingCache() const noexcept override { return timingCache; }
#if NV_TENSORRT_MAJOR == 10
  void setMaxAuxStreams(int32_t count) noexcept override { auxiliaryStreams = count; }
#else
  bool setMaxAuxStreams(int32_t count) noexcept override { return auxiliaryStreams = count, true; }
#endif
  int32_t getMaxAuxStreams() const noexcept override { return auxiliaryStreams; }
#if NV_TENSORRT_MAJOR == 1
  bool setNbComputeCapabilities(int32_t count) noexcept override {
    return targets.assign(static_cast<size_t>(count), ComputeCapability::kNONE), true;
  }
  int32_t getNbComputeCapabilities() const noexcept override { return static_cast<int32_t>(targets.size()); }
  bool setComputeCapability(ComputeCapability target, int32_t index) noexcept override {
    if (index < 0 || index >= getNbComputeCapabilities()) return false;
    return targets[static_cast<size_t>(index)] = target, true;
  }
  ComputeCapability getComputeCapability(int32_t index) const noexcept override {
    return targets.at(static_cast<size_t>(index));
  }

  std::vector<ComputeCapability> targets;
#endif

  // TensorRT's default.
  BuilderFlags flags = BuilderFlags{1} << static_cast<int>(BuilderFlag::kTF32);
  std::vector<ProfileRanges> profiles;
  std::map<MemoryPoolType, size_t> pools;
  int32_t optimizationLevel = 3;
  int32_t auxiliaryStreams = -1;
  ProfilingVerbosity verbosity = ProfilingVerbosity::kLAYER_NAMES_ONLY;
  IProgressMonitor* monitor = nullptr;
  TimingCache* timingCache = nullptr;
};

}  // namespace stand_in
