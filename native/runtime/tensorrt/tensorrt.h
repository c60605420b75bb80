// TensorRT, opened at run time: identifying a library, and compiling ONNX models and loading plans with it.
// Nothing here needs TensorRT's headers. One program may use several flavours of TensorRT.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/data_type.h"
#include "core/file_lock.h"
#include "core/tensor.h"
#include "runtime/runtime.h"

namespace node_tensorrt::tensorrt {

// What to compile, and how.
struct BuildRequest {
  std::string model;      // the ONNX file
  std::string modelPath;  // external data is read from this path's folder
  std::vector<Profile> profiles;
  std::vector<int> computeCapabilities;  // 89 for sm_89; empty: that of `device`
  // CUDA ordinal of the GPU to compile for and measure on. Nothing: compile without a GPU, ahead of time.
  std::optional<int> device;
  bool sparsity = false;
  bool tf32 = false;                      // FP32 products may round their factors to TF32
  std::optional<int> optimizationLevel;   // 0 to 5
  std::optional<size_t> workspace;        // bytes
  bool refit = false;                     // every weight can be replaced
  std::vector<std::string> refitWeights;  // only these can be replaced
  // A file with measurements from earlier builds, which need not exist. Empty: none.
  std::string timingCache;
  // The plan keeps all that inspectPlan tells about its layers, instead of their names only.
  bool detailed = false;
};

// An input or output. -1 in `shape` is a dynamic dimension. `type` is kUndefined if ONNX Runtime has no
// equivalent type.
struct TensorDescription {
  std::string name;
  DataType type = DataType::kUndefined;
  Shape shape;
};

// A layer of the network as it was passed to the compiler.
struct LayerDescription {
  std::string name;
  const char* type;  // TensorRT's own name, such as MATRIX_MULTIPLY
  std::vector<std::string> inputs;
  std::vector<TensorDescription> outputs;
};

// A whole network, for callers that don't use TensorRT's headers.
struct NetworkDescription {
  std::vector<TensorDescription> inputs;
  std::vector<TensorDescription> outputs;
  std::vector<LayerDescription> layers;
};

// A compiled plan.
struct BuildResult {
  std::shared_ptr<void> plan;  // TensorRT's own memory, not a copy
  size_t planBytes = 0;
  NetworkDescription network;
  std::vector<std::string> warnings;  // from TensorRT, in order, without duplicates
  std::vector<std::string> sparsity;  // TensorRT's lines about sparse kernels
  // Set if a timing cache was requested: the new contents of its file, including what other processes have
  // written there meanwhile, and the lock to hold until they are written.
  std::shared_ptr<void> timingCache;
  size_t timingCacheBytes = 0;
  std::shared_ptr<FileLock> timingCacheLock;
};

// A part of the model that the parser couldn't import, and why.
struct ImportError {
  int node = -1;     // index in its graph; -1: the parser gave no index
  std::string name;  // the node's name
  std::string op;
  std::string reason;  // a sentence
};

// What parsing a model found out.
struct ParseResult {
  NetworkDescription network;
  std::vector<ImportError> errors;  // empty: the model was imported
};

// How to load a plan.
struct EngineOptions {
  int device = 0;  // CUDA ordinal
  bool cudaGraph = true;
  // File of the kernels that TensorRT-RTX compiles when it first runs a plan. Empty: none.
  std::string runtimeCache;
};

// What TensorRT tells about a plan.
struct PlanDescription {
  // TensorRT's JSON. "Layers" lists their names or, for a plan that was built with `detailed`, objects that
  // say what each layer reads and writes.
  std::string information;
  std::vector<std::pair<std::string, std::string>>
      aliases;  // each output that shares an input's memory, and that input
};

// Receives the progress and the result of a build.
class BuildObserver {
 public:
  virtual ~BuildObserver() = default;
  // `step` of `steps` are done in `phase`. Called on the building thread or on TensorRT's threads.
  virtual void progress(std::string_view phase, int step, int steps) noexcept = 0;
  // Called once on the building thread, unless the build throws. What the build used is freed afterwards, so
  // that nobody has to wait for that.
  virtual void built(BuildResult result) = 0;
};

// The flavours of TensorRT: TensorRT 10, TensorRT 11 and TensorRT-RTX.
enum class Flavour { kTrt10, kTrt11, kRtx };

// Returns "trt10", "trt11" or "rtx".
const char* toString(Flavour flavour) noexcept;

// What an open library can do, according to its flavour and version. Within a flavour, interfaces only grow.
// Calling a function that an older release lacks would run past the end of its vtable, so each such call is
// made only if its capability is set. The first releases with each were taken from the headers of 10.11
// to 11.4, and of TensorRT-RTX 1.5 to 1.7.
struct Capabilities {
  bool aheadOfTime = false;  // compiles for GPUs that aren't in this machine
  // Measures kernels while it compiles, and can reuse earlier measurements.
  bool timingCache = false;
  bool kvCache = false;           // INetworkDefinition::addKVCacheUpdate
  bool keyValueLengths = false;   // IAttention::setKeyValueLengths
  bool runtimeCache = false;      // IRuntimeConfig::createRuntimeCache
  bool engineValidity = false;    // IRuntime::getEngineValidity
  bool streamCapturable = false;  // IExecutionContext::isStreamCapturable
  bool engineStatistics = false;  // ICudaEngine::getEngineStat
};

// `minor` is the second part of the version major.minor.patch.
Capabilities capabilitiesOf(Flavour flavour, int minor) noexcept;

// A core library and its ONNX parser, in a supported version. All methods are thread-safe.
class Library {
 public:
  // Opens the core library `path` (libnvinfer.so.10, libnvinfer.so.11 or libtensorrt_rtx.so.1) and the parser
  // in the same folder, once per path. Both stay loaded until the process ends. Flavour and version are what
  // the libraries report, not what the file names say. This takes as long as reading a few hundred megabytes.
  // Throws Error ERR_LIBRARY_NOT_FOUND or ERR_LIBRARY_UNSUPPORTED, or Cancelled if `stop` was requested
  // before it began to open.
  static std::shared_ptr<const Library> open(const std::string& path, const std::stop_token& stop = {});

  // Waits until no other thread is opening a library.
  static void awaitOpening();

  virtual ~Library() = default;
  virtual Flavour flavour() const noexcept = 0;
  virtual const Capabilities& capabilities() const noexcept = 0;
  virtual const std::string& version() const noexcept = 0;  // major.minor.patch
  virtual const std::string& path() const noexcept = 0;

  // Parses and compiles a model on the calling thread. Several builds may run at once. Passes the result to
  // `observer` and returns soon after. Throws Cancelled at TensorRT's next step once `stop` was requested,
  // and Error with one of ERR_MODEL_NOT_FOUND, ERR_MODEL_INVALID, ERR_MODEL_UNSUPPORTED,
  // ERR_INVALID_ARG_VALUE, ERR_LIBRARY_UNSUPPORTED, ERR_NO_GPU, ERR_OUT_OF_MEMORY, ERR_BUILD_FAILED. TensorRT
  // itself may write to stderr (about unknown types and failed fusions). A build that is running when the
  // process exits is stopped; the process ends soon in any case.
  void buildPlan(const BuildRequest& request, std::stop_token stop, BuildObserver& observer) const;

  // Parses a model on the calling thread as buildPlan does, but compiles nothing. The arguments are as in
  // BuildRequest. The parser stops early, so the model may have more errors than are returned. Throws
  // Cancelled if the model needs plugins and `stop` was requested, and Error with one of ERR_MODEL_NOT_FOUND,
  // ERR_MODEL_INVALID, ERR_NO_GPU, ERR_OUT_OF_MEMORY, ERR_BUILD_FAILED.
  ParseResult parseModel(const std::string& model, const std::string& modelPath,
                         std::optional<int> device = std::nullopt, std::stop_token stop = {}) const;

  // Loads a plan onto a GPU. The plan is never allowed to run its own code on the host. Throws Cancelled if
  // `stop` was requested before or after TensorRT's part, and Error with one of ERR_NO_GPU,
  // ERR_ENGINE_INCOMPATIBLE, ERR_ENGINE_CORRUPT, ERR_OUT_OF_MEMORY, ERR_MODEL_UNSUPPORTED.
  virtual std::unique_ptr<Model> loadEngine(std::span<const uint8_t> plan, const EngineOptions& options,
                                            std::stop_token stop) const = 0;

  // Loads a plan to find out what the compiler made of the network. Throws as loadEngine.
  virtual PlanDescription inspectPlan(std::span<const uint8_t> plan, const EngineOptions& options) const = 0;

 private:
  virtual void build(const BuildRequest& request, std::stop_token stop, BuildObserver& observer) const = 0;
  virtual ParseResult parse(const std::string& model, const std::string& modelPath, std::optional<int> device,
                            std::stop_token stop) const = 0;
};

}  // namespace node_tensorrt::tensorrt
