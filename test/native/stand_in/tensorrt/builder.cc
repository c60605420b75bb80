// IBuilder: compiles a network into a plan.
#include <dlfcn.h>
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <set>
#include <thread>

#include "../cuda/cuda.h"
#include "network.h"

extern "C" int cuInit(unsigned);

namespace stand_in {
namespace {

void logError(ILogger* logger, const std::string& text) {
  logger->log(ILogger::Severity::kERROR, text.c_str());
}

bool isDynamic(const Shape& shape) {
  return std::find(shape.begin(), shape.end(), -1) != shape.end();
}

// A plan followed by zeros, which take up no memory until they are touched.
class PaddedMemory : public IHostMemory, public Slots<apiv::VHostMemory> {
 public:
  PaddedMemory(const std::string& bytes, size_t size)
      : size_(size),
        data_(::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                     /*file*/ -1, 0)) {
    mImpl = this;
    if (data_ == MAP_FAILED || size < bytes.size()) trap("a plan of STAND_IN_PLAN_MIB");
    std::memcpy(data_, bytes.data(), bytes.size());
  }
  ~PaddedMemory() override { ::munmap(data_, size_); }
  void* data() const noexcept override { return data_; }
  size_t size() const noexcept override { return size_; }
  DataType type() const noexcept override { return DataType::kINT8; }

 private:
  const size_t size_;
  void* const data_;
};

std::string& internalLibraryPath() {
  static std::string path;
  return path;
}

// Opens the library that TensorRT compiles with, by its bare name. TensorRT 10 has a run path to its own
// folder (readelf, 10.15.1). TensorRT 11 is assumed to have none, and to look where setInternalLibraryPath
// says.
bool openBuilderResource([[maybe_unused]] ILogger* logger) {
#if NV_TENSORRT_MAJOR != 1
  std::string path = "libnvinfer_builder_resource_ptx.so." + std::to_string(NV_TENSORRT_MAJOR);
  std::string folder = internalLibraryPath();
  if (Dl_info self;
      NV_TENSORRT_MAJOR == 10 && ::dladdr(__extension__(void*) openBuilderResource, &self) != 0) {
    folder = std::filesystem::path(self.dli_fname).parent_path();
  }
  if (!folder.empty()) path = folder + "/" + path;
  if (::dlopen(path.c_str(), RTLD_LAZY | RTLD_LOCAL) == nullptr) {
    logError(logger,
             std::string("Error Code 6: API Usage Error (Unable to load library: ") + ::dlerror() + ")");
    return false;
  }
#endif
  return true;
}

class Builder : public IBuilder, public Slots<apiv::VBuilder> {
 public:
  explicit Builder(ILogger* logger) : logger_(logger) { mImpl = this; }

  IBuilderConfig* createBuilderConfig() noexcept override {
    return new Object<Config, apiv::VBuilderConfig>();
  }
  INetworkDefinition* createNetworkV2(NetworkDefinitionCreationFlags flags) noexcept override {
    auto* network = new Object<Network, apiv::VNetworkDefinition>(flags);
    // TensorRT 11 and TensorRT-RTX always work this way.
    if (NV_TENSORRT_MAJOR == 10 && !network->getFlag(NetworkDefinitionCreationFlag::kSTRONGLY_TYPED)) {
      trap("VBuilder::createNetworkV2, without kSTRONGLY_TYPED,");
    }
    return network;
  }
  IOptimizationProfile* createOptimizationProfile() noexcept override {
    profiles_.push_back(std::make_unique<Object<Profile, apiv::VOptimizationProfile>>());
    return profiles_.back().get();
  }
  ILogger* getLogger() const noexcept override { return logger_; }
  bool setMaxThreads(int32_t count) noexcept override { return threads_ = count, true; }
  int32_t getMaxThreads() const noexcept override { return threads_; }

  IHostMemory* buildSerializedNetwork(INetworkDefinition& definition,
                                      IBuilderConfig& options) noexcept override {
    const Network& network = static_cast<const Network&>(definition);
    Config& config = static_cast<Config&>(options);
    if (!network.model) {
      logError(logger_, "Error Code 4: Internal Error (Network must have at least one output)");
      return nullptr;
    }
    Plan plan;
    if (!openBuilderResource(logger_) || !fitProfiles(network, config) || !fitTargets(config, plan.targets) ||
        !fitAttention(network) || !fitAllocation(network, config) || !fitCaches(*network.model)) {
      return nullptr;
    }
    if (!compile(network, config)) return nullptr;
    plan.version = playedVersion();
    plan.refittable = isRefittable(config);
    plan.settings = settingsOf(network, config);
    plan.profiles = config.profiles;
    if (plan.profiles.empty()) plan.profiles.emplace_back();
    plan.name = network.name;
    plan.model = network.model->write();
    const char* megabytes = std::getenv("STAND_IN_PLAN_MIB");
    if (megabytes == nullptr) return new Object<HostMemory, apiv::VHostMemory>(plan.write());
    plan.size = std::strtoull(megabytes, nullptr, 10) << 20;
    return new Object<PaddedMemory, apiv::VHostMemory>(plan.write(), plan.size);
  }

 private:
  static bool isRefittable(const Config& config) {
    return config.getFlag(BuilderFlag::kREFIT) || config.getFlag(BuilderFlag::kREFIT_IDENTICAL) ||
           config.getFlag(BuilderFlag::kREFIT_INDIVIDUAL) || config.getFlag(BuilderFlag::kSTRIP_PLAN);
  }

  // Returns the caches that a plan copies in every run: those that attention reads through a multiplication.
  static std::vector<std::string> movedCaches(const Network& network) {
    std::map<const Tensor*, const PlainLayer*> updates;
    std::map<const Tensor*, const ElementWiseLayer*> products;
    for (const auto& layer : network.layers) {
      if (const auto* plain = dynamic_cast<const PlainLayer*>(layer.get());
          plain != nullptr && plain->type == LayerType::kKVCACHE_UPDATE) {
        updates.emplace(plain->outputs.at(0), plain);
      }
      if (const auto* product = dynamic_cast<const ElementWiseLayer*>(layer.get())) {
        products.emplace(product->outputs.at(0), product);
      }
    }
    std::vector<std::string> moved;
    for (const auto& layer : network.layers) {
      const auto* attention = dynamic_cast<const AttentionInputLayer*>(layer.get());
      if (attention == nullptr) continue;
      for (const Tensor* input : attention->inputs) {
        const auto product = products.find(input);
        if (product == products.end()) continue;
        const auto update = updates.find(product->second->inputs.at(0));
        if (update != updates.end()) moved.push_back(update->first->info.name);
      }
    }
    return moved;
  }

  // Returns "level 3, workspace 1024, refit w;", followed by these, if they apply: TF32, contexts that bring
  // their memory, the caches that are copied, and the attention without a fused kernel.
  static std::string settingsOf(const Network& network, const Config& config) {
    std::string text = "level " + std::to_string(config.optimizationLevel) + ", workspace ";
    text += std::to_string(config.getMemoryPoolLimit(MemoryPoolType::kWORKSPACE)) + ", refit";
    if (config.getFlag(BuilderFlag::kREFIT)) text += " all";
    if (config.getFlag(BuilderFlag::kREFIT_INDIVIDUAL)) {
      for (const std::string& name : network.refittable) text.append(" ").append(name);
    }
    if (config.getFlag(BuilderFlag::kTF32)) text += ", TF32";
#if NV_TENSORRT_MAJOR == 1
    if (config.getFlag(BuilderFlag::kREQUIRE_USER_ALLOCATION)) text += ", user allocation";
#endif
    const auto list = [&text](const char* title, const std::vector<std::string>& names) {
      if (!names.empty()) text.append(", ").append(title);
      for (const std::string& name : names) text.append(" ").append(name);
    };
    list("moves", movedCaches(network));
    list("decomposes", unfusedAttention(network));
    if (config.verbosity == ProfilingVerbosity::kDETAILED) text += kDetailed;
    return text + ";";
  }

  bool fitProfiles(const Network& network, const Config& config) const {
    for (const Tensor* input : network.inputs) {
      if (!isDynamic(input->info.shape) && !input->isShape) continue;
      if (config.profiles.empty()) {
        logError(logger_,
                 "Error Code 4: Internal Error (Network has dynamic or shape inputs, but no optimization "
                 "profile has "
                 "been defined.)");
        return false;
      }
      for (const ProfileRanges& profile : config.profiles) {
        if (profile.count(input->info.name) > 0) continue;
        logError(logger_, "Error Code 4: API Usage Error (" + input->info.name +
                              ": optimization profile is missing values for " +
                              (input->isShape ? "shape input)" : "an input)"));
        return false;
      }
    }
    return true;
  }

  bool fitTargets([[maybe_unused]] const Config& config, std::vector<int>& targets) const {
#if NV_TENSORRT_MAJOR == 1
    for (const ComputeCapability target : config.targets) {
      if (target == ComputeCapability::kCURRENT) {
        if (::cuInit(0) != 0) {
          logError(logger_, "Error Code 35: CUDA driver version is insufficient for CUDA runtime version");
          return false;
        }
        targets.push_back(standInComputeCapability(standInCurrentDevice()));
      } else {
        targets.push_back(static_cast<int>(target));
      }
    }
    // TensorRT-RTX's default targets: Ampere and later.
    if (targets.empty()) targets = {80, 86, 89, 120, 121};
    // It needs the GPU to find out which weights it can refit.
    if (isRefittable(config) && ::cuInit(0) != 0) {
      logError(logger_, "Error Code 9: Internal Error (graph_jit.cpp:278 CHECK(status == CUDA_SUCCESS))");
      return false;
    }
#else
    targets.push_back(standInComputeCapability(standInCurrentDevice()));
#endif
    return true;
  }

  // Returns FP32 attention, and attention to a cache with many positions, as in TensorRT-RTX 1.7 with 32
  // heads over 8 of 128 elements.
  static std::vector<std::string> unfusedAttention(const Network& network) {
    constexpr int64_t kFirstUnfused = 32768;
    std::vector<std::string> names;
    for (const auto& layer : network.layers) {
      const auto* attention = dynamic_cast<const AttentionInputLayer*>(layer.get());
      if (attention == nullptr) continue;
      const Shape& key = attention->inputs.at(1)->info.shape;
      const bool isLong = key.size() == 4 && key[2] >= kFirstUnfused;
      if (isLong || attention->inputs.at(0)->getType() == DataType::kFLOAT)
        names.push_back(attention->attention->name);
    }
    return names;
  }

  bool fitAllocation([[maybe_unused]] const Network& network, [[maybe_unused]] const Config& config) const {
#if NV_TENSORRT_MAJOR == 1
    if (!config.getFlag(BuilderFlag::kREQUIRE_USER_ALLOCATION)) return true;
    for (const auto& layer : network.layers) {
      if (layer->getType() != LayerType::kNON_ZERO) continue;
      logError(logger_, "Error Code 4: API Usage Error (kREQUIRE_USER_ALLOCATION: " +
                            std::string(layer->getName()) + " requires runtime allocation)");
      return false;
    }
#endif
    return true;
  }

  bool fitAttention(const Network& network) const {
    const std::vector<std::string> unfused = unfusedAttention(network);
    for (const auto& layer : network.layers) {
      const auto* attention = dynamic_cast<const AttentionInputLayer*>(layer.get());
      if (attention == nullptr || attention->attention->isDecomposable ||
          std::find(unfused.begin(), unfused.end(), attention->attention->name) == unfused.end()) {
        continue;
      }
      logError(logger_,
               "IBuilder::buildSerializedNetwork: Error Code 1: Myelin ([myelin_graph.h:1295: "
               "attachExceptionMsgToGraph] MyelinCheckException: decompose_composite_ops.cpp:59: "
               "CHECK(composite_op->is_decomposable()) failed. Attention operation was not supported by a "
               "dedicated kernel.)");
      return false;
    }
    return true;
  }

  // Checks that each KV cache is an input and an output of the network, and that nothing else updates it.
  bool fitCaches(const OnnxModel& model) const {
    const auto isAmong = [](const std::vector<ValueInfo>& values, const std::string& name) {
      return std::any_of(values.begin(), values.end(),
                         [&](const ValueInfo& value) { return value.name == name; });
    };
    const auto refuse = [this](const std::string& problem) {
      logError(logger_, "IBuilder::buildSerializedNetwork: Error Code " + problem);
      return false;
    };
    std::set<std::string> caches;
    for (const Node& node : model.nodes()) {
      if (!node.isCacheUpdate()) continue;
      const std::string usage = "3: API Usage Error (" + node.name;
      if (!isAmong(model.inputs(), node.inputs[0]))
        return refuse(usage + ": The cache tensor must be a network input.)");
      if (!isAmong(model.outputs(), node.outputs[0]))
        return refuse(usage + ": The output tensor must be a network output.)");
      if (!caches.insert(node.inputs[0]).second)
        return refuse("1: Myelin (Input index already mapped to an output_index)");
    }
    return true;
  }

  // Compiles layer by layer, and reports to the progress monitor.
  bool compile(const Network& network, Config& config) const {
    if (standInFaultOccurs("build")) {
      logError(logger_,
               "Error Code 10: Internal Error (Could not find any implementation for node {ForeignNode[" +
                   std::string(network.layers.front()->getName()) + "]}.)");
      return false;
    }
    constexpr char kPhase[] = "Building engine";
    constexpr char kInner[] = "Compiling kernels";
    IProgressMonitor* monitor = config.monitor;
    const int32_t steps = network.getNbLayers();
    if (monitor != nullptr) {
      monitor->phaseStart(kPhase, nullptr, 2);
      monitor->phaseStart(kInner, kPhase, steps);
    }
    bool going = true;
    takeLonger("stuck");
    for (int32_t i = 0; i < steps && going; ++i) {
      if (config.timingCache != nullptr)
        config.timingCache->kernels.insert(network.layers[static_cast<size_t>(i)]->getName());
      if (monitor != nullptr) going = monitor->stepComplete(kInner, i);
    }
    if (monitor != nullptr) {
      monitor->phaseFinish(kInner);
      going = going && monitor->stepComplete(kPhase, 0) && monitor->stepComplete(kPhase, 1);
      monitor->phaseFinish(kPhase);
    }
    return going;
  }

  ILogger* const logger_;
  int32_t threads_ = 1;
  std::vector<std::unique_ptr<Profile>> profiles_;
};

}  // namespace
}  // namespace stand_in

#if NV_TENSORRT_MAJOR != 10
extern "C" STAND_IN_EXPORT bool setInternalLibraryPath(char const* path) noexcept {
  if (path == nullptr || (*path != '\0' && !std::filesystem::is_directory(path))) return false;
  return stand_in::internalLibraryPath() = path, true;
}
#endif

extern "C" STAND_IN_EXPORT void* createInferBuilder_INTERNAL(void* logger, int32_t) noexcept {
  using namespace stand_in;
  auto* log = static_cast<ILogger*>(logger);
  // TensorRT, unlike TensorRT-RTX, needs a GPU to compile.
  if (!kIsRtx && ::cuInit(0) != 0) {
    logError(log, "CUDA initialization failure with error: 35");
    return nullptr;
  }
  return static_cast<IBuilder*>(new Object<Builder, apiv::VBuilder>(log));
}
