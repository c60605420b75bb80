#include "runtime/tensorrt/plan_builder.h"

#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/error.h"
#include "runtime/cuda/driver.h"
#include "runtime/tensorrt/api.h"
#include "runtime/tensorrt/build_error.h"
#include "runtime/tensorrt/build_target.h"
#include "runtime/tensorrt/messages.h"
#include "runtime/tensorrt/network_description.h"
#include "runtime/tensorrt/network_passes.h"
#include "runtime/tensorrt/optimization_profiles.h"
#include "runtime/tensorrt/parser_errors.h"
#include "runtime/tensorrt/timing_cache.h"

namespace node_tensorrt::tensorrt::NODE_TENSORRT_FLAVOUR {
namespace {

class ProgressMonitor final : public nvinfer1::IProgressMonitor {
 public:
  ProgressMonitor(BuildObserver& observer, std::stop_token stop)
      : observer_(observer), stop_(std::move(stop)) {}

  void phaseStart(const char* phase, const char*, int32_t steps) noexcept override {
    try {
      std::lock_guard lock(mutex_);
      steps_[phase] = steps;
    } catch (...) {
      return;
    }
    observer_.progress(phase, 0, steps);
  }

  bool stepComplete(const char* phase, int32_t step) noexcept override {
    const int steps = stepsOf(phase);
    // The last step of a phase is reported once, when the phase ends.
    if (step + 1 < steps) observer_.progress(phase, step + 1, steps);
    return !stop_.stop_requested();
  }

  void phaseFinish(const char* phase) noexcept override {
    const int steps = stepsOf(phase);
    if (steps > 0 && !stop_.stop_requested()) observer_.progress(phase, steps, steps);
  }

 private:
  int stepsOf(const char* phase) noexcept {
    std::lock_guard lock(mutex_);
    const auto entry = steps_.find(phase);
    return entry == steps_.end() ? 0 : entry->second;
  }

  BuildObserver& observer_;
  const std::stop_token stop_;
  std::mutex mutex_;
  std::map<std::string, int, std::less<>> steps_;
};

void setRefit(nvinfer1::IBuilderConfig& config, nvinfer1::INetworkDefinition& network,
              const BuildRequest& request) {
  if (!request.refit && request.refitWeights.empty()) return;
  if (kFlavour == Flavour::kRtx && cuda::probe().gpus.empty()) {
    throw Error(
        "ERR_NO_GPU",
        "options.refit needs a GPU here: TensorRT-RTX compiles an engine whose weights can be replaced only "
        "where there is one. Leave options.refit out, or build on a machine with a GPU.");
  }
  if (request.refit) {
    config.setFlag(nvinfer1::BuilderFlag::kREFIT);
    return;
  }
  for (const std::string& name : request.refitWeights) {
    if (network.markWeightsRefittable(name.c_str())) continue;
    throw Error("ERR_INVALID_ARG_VALUE", "options.refit names " + quoted(name) +
                                             ", which is no weight of the network that can be replaced.");
  }
  config.setFlag(nvinfer1::BuilderFlag::kREFIT_INDIVIDUAL);
}

void setOptions(nvinfer1::IBuilderConfig& config, nvinfer1::INetworkDefinition& network,
                const BuildRequest& request) {
  if (request.sparsity) config.setFlag(nvinfer1::BuilderFlag::kSPARSE_WEIGHTS);
#if NODE_TENSORRT_RTX
  // The caller provides all memory of contexts (kUSER_MANAGED), and this flag keeps TensorRT-RTX from
  // allocating any in a run, which would prevent capturing the run. The flag doesn't allow networks whose
  // shapes depend on data (NvInfer.h).
  if (!dataDecidesShapes(network)) config.setFlag(nvinfer1::BuilderFlag::kREQUIRE_USER_ALLOCATION);
#endif
  // TensorRT uses TF32 by default.
  if (!request.tf32) config.clearFlag(nvinfer1::BuilderFlag::kTF32);
  if (request.optimizationLevel) config.setBuilderOptimizationLevel(*request.optimizationLevel);
  if (request.workspace) {
    config.setMemoryPoolLimit(nvinfer1::MemoryPoolType::kWORKSPACE, *request.workspace);
  }
  if (request.detailed) config.setProfilingVerbosity(nvinfer1::ProfilingVerbosity::kDETAILED);
  setRefit(config, network, request);
}

// Shares TensorRT's memory. The library frees it, which is safe because it is never unloaded.
std::shared_ptr<void> shared(nvinfer1::IHostMemory* memory) {
  return std::shared_ptr<void>(memory->data(), [memory](void*) { delete memory; });
}

}  // namespace

void buildPlan(const ModelImporter& importer, const BuildRequest& request, std::stop_token stop,
               BuildObserver& observer) {
  throwIfStopped(stop);
  Messages messages;
  const Logger::Scope scope(messages);
  const UsedDevice used(request.device);
  ModelImport import = importer.begin(messages);
  const auto& [builder, network, parser] = import;
  const std::unique_ptr<nvinfer1::IBuilderConfig> config(builder->createBuilderConfig());
  if (!config) throw buildFailed("create a configuration", messages);
  setTargets(*config, request.computeCapabilities, used.device());

  observer.progress("Parsing", 0, 1);
  const std::vector<ImportError> errors =
      importer.importModel(import, request.model, request.modelPath, messages, stop);
  if (!errors.empty()) {
    throwIfStopped(stop);
    throw Error("ERR_MODEL_UNSUPPORTED",
                "TensorRT does not support the model " + request.modelPath + ". " + describe(errors));
  }
  observer.progress("Parsing", 1, 1);
  throwIfStopped(stop);

  const Attentions attentions = attentionsOf(*network);
  skipProductsWithOne(*network, attentions);
  const Attentions fused = demandFusion(attentions);
  BuildResult result;
  result.network = describe(*network);

  setProfiles(*builder, *config, *network, request.profiles);
  setOptions(*config, *network, request);
  std::optional<TimingCache> timingCache;
  if (!request.timingCache.empty()) timingCache.emplace(*config, request.timingCache);
  ProgressMonitor monitor(observer, stop);
  config->setProgressMonitor(&monitor);
  throwIfStopped(stop);
  nvinfer1::IHostMemory* plan = builder->buildSerializedNetwork(*network, *config);
  const bool lacksKernel = plan == nullptr && !fused.empty() && messages.hasError({kNoFusedKernel});
  if (lacksKernel) {
    // TensorRT notices this early in a build, but doesn't say which layer it is.
    throwIfStopped(stop);
    messages.forgetErrors();
    allowDecomposition(fused);
    plan = builder->buildSerializedNetwork(*network, *config);
  }
  if (plan != nullptr) {
    result.planBytes = plan->size();
    result.plan = shared(plan);
  }
  throwIfStopped(stop);
  if (plan == nullptr) throw buildFailed("compile the model " + request.modelPath, messages);
  result.warnings = messages.warnings();
  result.sparsity = messages.sparsity();
  if (lacksKernel) result.warnings.push_back(fusionWarning(fused));
  if (timingCache) {
    if (timingCache->wasReplaced()) {
      result.warnings.push_back(
          "The timing cache " + request.timingCache +
          " is damaged, or of another TensorRT or GPU: it was ignored, and is replaced.");
    }
    result.timingCacheLock = timingCache->lockFile(stop);
    if (nvinfer1::IHostMemory* bytes = timingCache->serialize(); bytes != nullptr) {
      result.timingCacheBytes = bytes->size();
      result.timingCache = shared(bytes);
    }
  }
  observer.built(std::move(result));
}

}  // namespace node_tensorrt::tensorrt::NODE_TENSORRT_FLAVOUR
