// TensorRT, opened at run time: what one of its libraries is, and compiling ONNX models with it. Nothing here
// needs a TensorRT header, and one program may hold several flavours of TensorRT.
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

struct BuildRequest {
  std::string model;      // the ONNX file
  std::string modelPath;  // external data is read from beside this path
  std::vector<Profile> profiles;
  std::vector<int> computeCapabilities;  // 89 for sm_89; empty: that of `device`
  // CUDA's ordinal of the GPU to compile for and measure on; none: ahead of time.
  std::optional<int> device;
  bool sparsity = false;
  bool tf32 = false;                      // FP32 products may round their factors to TF32
  std::optional<int> optimizationLevel;   // 0 to 5
  std::optional<size_t> workspace;        // bytes
  bool refit = false;                     // every weight can be replaced
  std::vector<std::string> refitWeights;  // these alone can
  std::string timingCache;  // a file of what earlier builds measured, which need not exist; empty: none
  bool detailed = false;    // the plan keeps what inspectPlan says of its layers beside their names
};

// -1 in `shape` is a dynamic dimension; `type` is kUndefined where ONNX Runtime's types have no equal.
struct TensorDescription {
  std::string name;
  DataType type = DataType::kUndefined;
  Shape shape;
};

// A layer of the network as it went to the compiler.
struct LayerDescription {
  std::string name;
  const char* type;  // TensorRT's own term, e.g. MATRIX_MULTIPLY
  std::vector<std::string> inputs;
  std::vector<TensorDescription> outputs;
};

struct NetworkDescription {
  std::vector<TensorDescription> inputs;
  std::vector<TensorDescription> outputs;
  std::vector<LayerDescription> layers;
};

struct BuildResult {
  std::shared_ptr<void> plan;  // TensorRT's own memory, not a copy
  size_t planBytes = 0;
  NetworkDescription network;
  std::vector<std::string> warnings;  // TensorRT's, in order, without repetitions
  // If a timing cache was asked for: the new content of its file, with what others wrote there meanwhile, and
  // its lock, to be held until that is written.
  std::shared_ptr<void> timingCache;
  size_t timingCacheBytes = 0;
  std::shared_ptr<FileLock> timingCacheLock;
};

// The nodes that the parser couldn't import, and why.
struct ImportError {
  int node = -1;     // index in its graph; -1: the parser names no node, or only by its name
  std::string name;  // of the node
  std::string op;
  std::string reason;  // a sentence
};

struct ParseResult {
  NetworkDescription network;
  std::vector<ImportError> errors;  // empty: the model was imported
};

struct EngineOptions {
  int device = 0;  // CUDA's ordinal
  bool cudaGraph = true;
  // TensorRT-RTX compiles kernels when it first runs a plan: the file that keeps them; empty: none.
  std::string runtimeCache;
};

struct PlanDescription {
  // TensorRT's own JSON. "Layers" are names; of a plan that was built `detailed`, objects that say what each
  // layer reads and writes.
  std::string information;
  std::vector<std::pair<std::string, std::string>> aliases;  // an output, and the input whose memory it is
};

class BuildObserver {
 public:
  virtual ~BuildObserver() = default;
  // `step` of `steps` are done in `phase`. Called on the building thread or on threads of TensorRT's.
  virtual void progress(std::string_view phase, int step, int steps) noexcept = 0;
  // Called on the building thread, once, unless the build throws: before what it took is freed, which nobody
  // has to wait for.
  virtual void built(BuildResult result) = 0;
};

enum class Flavour { kTrt10, kTrt11, kRtx };

// "trt10", "trt11" or "rtx".
const char* toString(Flavour flavour) noexcept;

// The abilities of an open library, from its flavour and version. Interfaces only grow within a flavour, and
// a call of a function that an older release lacks runs past the end of its vtable, so each such call is made
// only if its capability says so. First releases: the headers of 10.11 to 11.4 and of TensorRT-RTX 1.5
// to 1.7.
struct Capabilities {
  bool aheadOfTime = false;  // compiles for GPUs that are not here
  bool timingCache = false;  // measures kernels while it compiles, and can be given what it measured before
  bool kvCache = false;      // INetworkDefinition::addKVCacheUpdate
  bool keyValueLengths = false;   // IAttention::setKeyValueLengths
  bool runtimeCache = false;      // IRuntimeConfig::createRuntimeCache
  bool engineValidity = false;    // IRuntime::getEngineValidity
  bool streamCapturable = false;  // IExecutionContext::isStreamCapturable
  bool engineStatistics = false;  // ICudaEngine::getEngineStat
};

// `minor`: of the version's number, major.minor.patch.
Capabilities capabilitiesOf(Flavour flavour, int minor) noexcept;

// A core library and its ONNX parser, of a version that is supported. All methods are thread-safe.
class Library {
 public:
  // Opens the core library `path` (libnvinfer.so.10, libnvinfer.so.11 or libtensorrt_rtx.so.1) and its parser
  // from the same folder, once per path; both stay loaded for the life of the process. What they are is what
  // they say of themselves. Takes as long as reading some hundred megabytes. Throws Error
  // ERR_LIBRARY_NOT_FOUND or ERR_LIBRARY_UNSUPPORTED; Cancelled once `stop` was requested, unless it has
  // begun to open.
  static std::shared_ptr<const Library> open(const std::string& path, const std::stop_token& stop = {});

  // Waits for the library that another thread is opening.
  static void awaitOpening();

  virtual ~Library() = default;
  virtual Flavour flavour() const noexcept = 0;
  virtual const Capabilities& capabilities() const noexcept = 0;
  virtual const std::string& version() const noexcept = 0;  // major.minor.patch
  virtual const std::string& path() const noexcept = 0;

  // Parses and compiles, on the calling thread; builds may run beside each other. `observer` gets the result:
  // soon after, this returns. Throws Cancelled once
  // `stop` was requested, at TensorRT's next step, and Error with one of ERR_MODEL_NOT_FOUND,
  // ERR_MODEL_INVALID, ERR_MODEL_UNSUPPORTED, ERR_INVALID_ARG_VALUE, ERR_LIBRARY_UNSUPPORTED, ERR_NO_GPU,
  // ERR_OUT_OF_MEMORY, ERR_BUILD_FAILED. What TensorRT writes to stderr itself (of unknown types, of failed
  // fusions) is its own. A build that is still running when the process exits is stopped; the process ends
  // soon in any case.
  void buildPlan(const BuildRequest& request, std::stop_token stop, BuildObserver& observer) const;

  // Parses, on the calling thread, as buildPlan does, and compiles nothing. Arguments as in BuildRequest.
  // The parser stops early: there may be more errors than it names. Throws Cancelled where the model needs
  // plugins once `stop` was requested, and Error with one of ERR_MODEL_NOT_FOUND, ERR_MODEL_INVALID,
  // ERR_NO_GPU, ERR_OUT_OF_MEMORY, ERR_BUILD_FAILED.
  ParseResult parseModel(const std::string& model, const std::string& modelPath,
                         std::optional<int> device = std::nullopt, std::stop_token stop = {}) const;

  // Loads a plan onto a GPU. It is never allowed to run code of its own on the host. Throws Cancelled once
  // `stop` was requested, before or after TensorRT's part, and Error with one of ERR_NO_GPU,
  // ERR_ENGINE_INCOMPATIBLE, ERR_ENGINE_CORRUPT, ERR_OUT_OF_MEMORY, ERR_MODEL_UNSUPPORTED.
  virtual std::unique_ptr<Model> loadEngine(std::span<const uint8_t> plan, const EngineOptions& options,
                                            std::stop_token stop) const = 0;

  // Loads a plan to see what the compiler made of the network. Throws as loadEngine.
  virtual PlanDescription inspectPlan(std::span<const uint8_t> plan, const EngineOptions& options) const = 0;

 private:
  virtual void build(const BuildRequest& request, std::stop_token stop, BuildObserver& observer) const = 0;
  virtual ParseResult parse(const std::string& model, const std::string& modelPath, std::optional<int> device,
                            std::stop_token stop) const = 0;
};

}  // namespace node_tensorrt::tensorrt
