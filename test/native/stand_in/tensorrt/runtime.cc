// IRuntime: turns a plan into an engine, if the plan is for this flavour, version and GPU.
#include <algorithm>
#include <cstring>

#include "engine.h"

extern "C" {
int cuInit(unsigned);
int cuDriverGetVersion(int* version);
}

namespace stand_in {
namespace {

std::string toString(const Version& version) {
  return std::to_string(version.major) + '.' + std::to_string(version.minor) + '.' +
         std::to_string(version.patch);
}

std::string toString(int capability) {
  return std::to_string(capability / 10) + '.' + std::to_string(capability % 10);
}

class Runtime : public IRuntime, public Slots<apiv::VRuntime> {
 public:
  explicit Runtime(ILogger* logger) : logger_(*logger) { mImpl = this; }
  ~Runtime() override {
    if (*engines_ > 0) misuse("a runtime was destroyed before its engines");
  }

  IRuntime* getPImpl() noexcept override { return this; }
  ILogger* getLogger() const noexcept override { return &logger_; }
  bool setMaxThreads(int32_t count) noexcept override { return threads_ = count, true; }
  int32_t getMaxThreads() const noexcept override { return threads_; }
  bool getEngineHostCodeAllowed() const noexcept override { return false; }

  ICudaEngine* deserializeCudaEngine(void const* blob, size_t size) noexcept override {
    return load({static_cast<const char*>(blob), size});
  }

  ICudaEngine* deserializeCudaEngineV2(IStreamReaderV2& reader) noexcept override {
    std::string bytes;
    constexpr size_t kPiece = 1 << 16;
    for (bool reading = true; reading;) {
      const size_t end = bytes.size();
      bytes.resize(end + kPiece);
      int64_t read = reader.read(bytes.data() + end, kPiece, nullptr);
      if (standInFaultOccurs("read")) read = std::min<int64_t>(read, 1);
      if (read < 0) {
        logError(logger_, "IRuntime::deserializeCudaEngine: Error Code 1: Serialization (the reader failed)");
        return nullptr;
      }
      bytes.resize(end + static_cast<size_t>(read));
      reading = static_cast<size_t>(read) == kPiece;
    }
    return load(bytes);
  }

#if NV_TENSORRT_MAJOR == 1
  int64_t getEngineHeaderSize() const noexcept override { return sizeof(PlanHeader); }

  EngineValidity getEngineValidity(void const* blob, int64_t size,
                                   uint64_t* diagnostics) const noexcept override {
    const auto bit = [](EngineInvalidityDiagnostics diagnostic) { return static_cast<uint64_t>(diagnostic); };
    *diagnostics = 0;
    if (::cuInit(0) != 0) *diagnostics |= bit(EngineInvalidityDiagnostics::kCUDA_ERROR);
    const std::optional<PlanHeader> header =
        readPlanHeader({static_cast<const char*>(blob), static_cast<size_t>(size)});
    if (!header) {
      *diagnostics |= bit(EngineInvalidityDiagnostics::kMALFORMED_ENGINE);
    } else {
      if (versionOf(*header) != playedVersion())
        *diagnostics |= bit(EngineInvalidityDiagnostics::kVERSION_MISMATCH);
      const int capability = standInComputeCapability(standInCurrentDevice());
      if (std::find(std::begin(header->targets), std::end(header->targets), capability) ==
          std::end(header->targets)) {
        *diagnostics |= bit(EngineInvalidityDiagnostics::kUNSUPPORTED_CC);
      }
      int driver = 0;
      ::cuDriverGetVersion(&driver);
      constexpr int kOldest = 12090;
      if (driver < kOldest) *diagnostics |= bit(EngineInvalidityDiagnostics::kOLD_CUDA_DRIVER);
    }
    return *diagnostics == 0 ? EngineValidity::kVALID : EngineValidity::kINVALID;
  }
#endif

 private:
  static Version versionOf(const PlanHeader& header) {
    return {header.version[0], header.version[1], header.version[2]};
  }

  ICudaEngine* fail(const std::string& text) const {
    if (!text.empty()) logError(logger_, "IRuntime::deserializeCudaEngine: Error Code 1: " + text);
    return nullptr;
  }

  ICudaEngine* load(std::string_view bytes) const {
    if (standInFaultOccurs("deserialize")) return fail("Internal Error (an injected failure)");
    if (standInFaultNumber("truncated") >= 0) bytes = bytes.substr(0, bytes.size() / 2);
    std::string problem;
    std::optional<Plan> plan = Plan::read(bytes, problem);
    if (!plan) return fail(problem);
    const OnnxModel model(plan->model, "");
    const bool usesPlugins = std::any_of(model.nodes().begin(), model.nodes().end(),
                                         [](const Node& node) { return node.isPlugin(); });
    if (usesPlugins && !hasPlugins()) {
      return fail(
          "Serialization (Serialization assertion creator failed.Cannot deserialize plugin since "
          "corresponding "
          "IPluginCreator not found in Plugin Registry)");
    }
    if (plan->version != playedVersion()) {
      return fail(
          "Serialization (The engine plan file is not compatible with this version of TensorRT, expecting "
          "library "
          "version " +
          toString(playedVersion()) + " got " + toString(plan->version) + ", please rebuild.)");
    }
    const int capability = standInComputeCapability(standInCurrentDevice());
    const std::vector<int>& targets = plan->targets;
    if (std::find(targets.begin(), targets.end(), capability) == targets.end()) {
      std::string expected;
      for (const int target : targets) expected.append(expected.empty() ? "" : ", ").append(toString(target));
      return fail(
          "Internal Error (The engine plan file is generated on an incompatible device, expecting compute " +
          toString(capability) + " got compute " + expected + ", please rebuild.)");
    }
    try {
      return new Object<Engine, apiv::VCudaEngine>(std::move(*plan), logger_, engines_);
    } catch (const std::exception& error) {
      return fail(error.what());
    }
  }

  ILogger& logger_;
  int32_t threads_ = 1;
  const std::shared_ptr<std::atomic<int>> engines_ = std::make_shared<std::atomic<int>>(0);
};

}  // namespace
}  // namespace stand_in

extern "C" {
using stand_in::playedVersion;

STAND_IN_EXPORT void* createInferRuntime_INTERNAL(void* logger, int32_t) noexcept {
  using namespace stand_in;
  auto* log = static_cast<ILogger*>(logger);
  if (::cuInit(0) != 0) {
    logError(*log, "CUDA initialization failure with error: 35");
    return nullptr;
  }
  return static_cast<IRuntime*>(new Object<Runtime, apiv::VRuntime>(log));
}

STAND_IN_EXPORT int32_t getInferLibMajorVersion() noexcept {
  return playedVersion().major;
}
STAND_IN_EXPORT int32_t getInferLibMinorVersion() noexcept {
  return playedVersion().minor;
}
STAND_IN_EXPORT int32_t getInferLibPatchVersion() noexcept {
  return playedVersion().patch;
}
// A build number that no real library has.
STAND_IN_EXPORT int32_t getInferLibBuildVersion() noexcept {
  return 0;
}
// Marks the library as a stand-in: no real library exports this.
STAND_IN_EXPORT const char* standInTensorRT() noexcept {
  return STAND_IN_FLAVOUR;
}
}
