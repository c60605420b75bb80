#include "runtime/onnxruntime/onnxruntime.h"

#include <sys/stat.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <stop_token>
#include <utility>

#include "core/error.h"
#include "core/host_memory.h"
#include "core/mapped_file.h"
#include "runtime/onnxruntime/ort_api.h"
#include "runtime/shared_library.h"

namespace node_tensorrt::ort {
namespace {

// The function table. It turns ORT's statuses into errors.
class Api {
 public:
  explicit Api(const void* const* table) : table_(table) {}

  // Calls a function that returns nothing or a plain value.
  template <class F, class... Args>
  auto call(Args... args) const {
    return reinterpret_cast<typename F::Type*>(const_cast<void*>(table_[F::slot]))(args...);
  }

  // Calls a function that returns a status. A failure becomes an Error with `code`, or with a more exact one
  // if ORT's code allows it.
  template <class F, class... Args>
  void check(const char* code, Args... args) const {
    OrtStatus* status = call<F>(args...);
    if (status == nullptr) return;
    const ErrorCode ortCode = call<GetErrorCode>(static_cast<const OrtStatus*>(status));
    const std::string message = call<GetErrorMessage>(static_cast<const OrtStatus*>(status));
    call<ReleaseStatus>(status);
    switch (ortCode) {
      case kNoSuchFile:
        throw Error("ERR_MODEL_NOT_FOUND", message);
      case kInvalidProtobuf:
      case kNoModel:
      case kInvalidGraph:
        throw Error("ERR_MODEL_INVALID", message);
      case kNotImplemented:
        throw Error("ERR_MODEL_UNSUPPORTED", message);
      default:
        for (const char* words : {"bad_alloc", "Failed to allocate memory", "pthread_create failed"}) {
          if (message.find(words) != std::string::npos) throw Error("ERR_OUT_OF_MEMORY", message);
        }
        // Happens with outputs that are written in place: their shapes are unknown before they are computed.
        if (message.find("The output OrtValue provided for output") != std::string::npos) {
          throw Error("ERR_SHAPE_MISMATCH", message);
        }
        throw Error(code, message);
    }
  }

 private:
  const void* const* table_;
};

// Owns an ORT object and releases it.
template <class T, class Release>
class Handle {
 public:
  explicit Handle(const Api& api, T* object = nullptr) : api_(&api), object_(object) {}
  Handle(Handle&& other) noexcept : api_(other.api_), object_(std::exchange(other.object_, nullptr)) {}
  Handle& operator=(Handle&& other) noexcept {
    std::swap(object_, other.object_);
    return *this;
  }
  ~Handle() {
    if (object_ != nullptr) api_->call<Release>(object_);
  }

  T* get() const noexcept { return object_; }
  T** out() noexcept { return &object_; }

 private:
  const Api* api_;
  T* object_;
};

using Value = Handle<OrtValue, ReleaseValue>;
using Options = Handle<OrtSessionOptions, ReleaseSessionOptions>;

// The library, its function table and its environment. There is one per process. It is never destroyed,
// because sessions on any thread may be using it when the process exits.
struct Library {
  SharedLibrary library;
  Api api;
  std::string version;
  OrtEnv* env = nullptr;
  OrtMemoryInfo* cpu = nullptr;
  OrtAllocator* allocator = nullptr;
};

class OrtModel;

class OrtContext final : public ExecutionContext {
 public:
  OrtContext(std::shared_ptr<const OrtModel> model, const Library& library);

  void execute(std::span<const Tensor> inputs, std::span<const size_t> outputIndices,
               std::span<Tensor> outputs) override;
  void cancel() noexcept override;
  void reset() override;

 private:
  Value toValue(const Tensor& tensor) const;
  void fromValue(Value value, std::span<const Tensor> inputs, std::span<const Tensor> earlier,
                 Tensor& output) const;

  std::shared_ptr<const OrtModel> model_;
  const Library& library_;
  Handle<OrtRunOptions, ReleaseRunOptions> runOptions_;
  std::atomic<bool> cancelled_ = false;
};

// A session and the names of its inputs and outputs. Its contexts share it.
class OrtModel {
 public:
  OrtModel(const Library& library, OrtSession* session)
      : session_(library.api, session),
        inputs_(
            readInfos<SessionGetInputCount, SessionGetInputName, SessionGetInputTypeInfo>(library, "input")),
        outputs_(readInfos<SessionGetOutputCount, SessionGetOutputName, SessionGetOutputTypeInfo>(library,
                                                                                                  "output")) {
    for (const TensorInfo& info : inputs_) {
      if (info.type == DataType::kUndefined) {
        throw Error("ERR_MODEL_UNSUPPORTED", "The model's input '" + info.name +
                                                 "' is not a tensor (a sequence, map or optional): only "
                                                 "tensors can be fed.");
      }
      inputNames_.push_back(info.name.c_str());
    }
  }

  OrtSession* session() const noexcept { return session_.get(); }
  const std::vector<TensorInfo>& inputs() const noexcept { return inputs_; }
  const std::vector<TensorInfo>& outputs() const noexcept { return outputs_; }
  const std::vector<const char*>& inputNames() const noexcept { return inputNames_; }

 private:
  template <class GetCount, class GetName, class GetTypeInfo>
  std::vector<TensorInfo> readInfos(const Library& library, const char* kind) const {
    const Api& api = library.api;
    constexpr const char* kCode = "ERR_MODEL_INVALID";
    size_t count = 0;
    api.check<GetCount>(kCode, static_cast<const OrtSession*>(session()), &count);
    std::vector<TensorInfo> infos(count);
    for (size_t i = 0; i < count; ++i) {
      TensorInfo& info = infos[i];
      char* name = nullptr;
      api.check<GetName>(kCode, static_cast<const OrtSession*>(session()), i, library.allocator, &name);
      info.name = name;
      api.check<AllocatorFree>(kCode, library.allocator, static_cast<void*>(name));

      Handle<OrtTypeInfo, ReleaseTypeInfo> type(api);
      api.check<GetTypeInfo>(kCode, static_cast<const OrtSession*>(session()), i, type.out());
      int onnxType = 0;
      api.check<GetOnnxTypeFromTypeInfo>(kCode, static_cast<const OrtTypeInfo*>(type.get()), &onnxType);
      const OrtTensorTypeAndShapeInfo* tensor = nullptr;
      if (onnxType == kOnnxTypeTensor) {
        api.check<CastTypeInfoToTensorInfo>(kCode, static_cast<const OrtTypeInfo*>(type.get()), &tensor);
      }
      if (tensor == nullptr) continue;
      int elementType = 0;
      api.check<GetTensorElementType>(kCode, tensor, &elementType);
      info.type = static_cast<DataType>(elementType);
      if (byteSize(info.type) == 0 && info.type != DataType::kString) {
        throw Error("ERR_MODEL_UNSUPPORTED",
                    "The model's " + std::string(kind) + " '" + info.name + "' has ONNX element type " +
                        std::to_string(elementType) +
                        ", which can't be fed or fetched (complex, float8 and 4-bit types can't).");
      }
      size_t rank = 0;
      api.check<GetDimensionsCount>(kCode, tensor, &rank);
      std::vector<int64_t> sizes(rank);
      std::vector<const char*> symbols(rank);
      api.check<GetDimensions>(kCode, tensor, sizes.data(), rank);
      api.check<GetSymbolicDimensions>(kCode, tensor, symbols.data(), rank);
      for (size_t d = 0; d < rank; ++d) {
        info.shape.push_back({sizes[d], sizes[d] < 0 && symbols[d] != nullptr ? symbols[d] : ""});
      }
    }
    return infos;
  }

  Handle<OrtSession, ReleaseSession> session_;
  std::vector<TensorInfo> inputs_;
  std::vector<TensorInfo> outputs_;
  std::vector<const char*> inputNames_;
};

OrtContext::OrtContext(std::shared_ptr<const OrtModel> model, const Library& library)
    : model_(std::move(model)), library_(library), runOptions_(library.api) {
  library_.api.check<CreateRunOptions>("ERR_EXECUTION_FAILED", runOptions_.out());
}

void OrtContext::cancel() noexcept {
  cancelled_ = true;
  // This call fails only if an argument is null.
  library_.api.call<RunOptionsSetTerminate>(runOptions_.get());
}

void OrtContext::reset() {
  if (!cancelled_.exchange(false)) return;
  library_.api.check<RunOptionsUnsetTerminate>("ERR_EXECUTION_FAILED", runOptions_.get());
}

Value OrtContext::toValue(const Tensor& tensor) const {
  const Api& api = library_.api;
  Value value(api);
  const int type = static_cast<int>(tensor.type);
  if (tensor.type == DataType::kString) {
    api.check<CreateTensorAsOrtValue>("ERR_EXECUTION_FAILED", library_.allocator, tensor.shape.data(),
                                      tensor.shape.size(), type, value.out());
    std::vector<const char*> elements;
    elements.reserve(tensor.strings->size());
    for (const std::string& element : *tensor.strings) elements.push_back(element.c_str());
    api.check<FillStringTensor>("ERR_EXECUTION_FAILED", value.get(), elements.data(), elements.size());
    return value;
  }
  // ORT refuses a null pointer even for a tensor without elements.
  static std::byte empty[kHostAlignment];
  void* data = tensor.byteLength == 0 ? empty : tensor.data.get();
  api.check<CreateTensorWithDataAsOrtValue>(
      "ERR_EXECUTION_FAILED", static_cast<const OrtMemoryInfo*>(library_.cpu), data, tensor.byteLength,
      tensor.shape.data(), tensor.shape.size(), type, value.out());
  return value;
}

// True if `tensor` owns the memory at `data`. This happens when a model passes an input through, or returns
// one value twice.
bool holds(const Tensor& tensor, const void* data) {
  const auto* begin = static_cast<const std::byte*>(tensor.data.get());
  return begin != nullptr && data >= begin && data < begin + tensor.byteLength;
}

void OrtContext::fromValue(Value value, std::span<const Tensor> inputs, std::span<const Tensor> earlier,
                           Tensor& output) const {
  const Api& api = library_.api;
  constexpr const char* kCode = "ERR_EXECUTION_FAILED";
  if (value.get() == nullptr) throw Error(kCode, "ONNX Runtime left an output empty.");
  Handle<OrtTensorTypeAndShapeInfo, ReleaseTensorTypeAndShapeInfo> info(api);
  api.check<GetTensorTypeAndShape>(kCode, static_cast<const OrtValue*>(value.get()), info.out());
  const auto* constInfo = static_cast<const OrtTensorTypeAndShapeInfo*>(info.get());
  int type = 0;
  size_t rank = 0;
  api.check<GetTensorElementType>(kCode, constInfo, &type);
  api.check<GetDimensionsCount>(kCode, constInfo, &rank);
  output.type = static_cast<DataType>(type);
  output.shape.resize(rank);
  api.check<GetDimensions>(kCode, constInfo, output.shape.data(), rank);
  size_t elements = 1;
  for (const int64_t size : output.shape) elements *= static_cast<size_t>(size);

  if (output.type == DataType::kString) {
    output.strings = std::make_shared<std::vector<std::string>>(elements);
    if (elements == 0) return;
    size_t bytes = 0;
    api.check<GetStringTensorDataLength>(kCode, static_cast<const OrtValue*>(value.get()), &bytes);
    std::string content(bytes, '\0');
    std::vector<size_t> offsets(elements);
    api.check<GetStringTensorContent>(kCode, static_cast<const OrtValue*>(value.get()),
                                      static_cast<void*>(content.data()), bytes, offsets.data(), elements);
    for (size_t i = 0; i < elements; ++i) {
      const size_t end = i + 1 < elements ? offsets[i + 1] : bytes;
      (*output.strings)[i] = content.substr(offsets[i], end - offsets[i]);
    }
    return;
  }

  output.byteLength = elements * byteSize(output.type);
  if (output.byteLength == 0) return;
  void* data = nullptr;
  api.check<GetTensorMutableData>(kCode, value.get(), &data);
  bool shared = false;
  for (const Tensor& input : inputs) shared = shared || holds(input, data);
  for (const Tensor& other : earlier) shared = shared || holds(other, data);
  if (shared) {
    output.data = allocateHostMemory(output.byteLength);
    std::memcpy(output.data.get(), data, output.byteLength);
  } else {
    output.data = std::shared_ptr<void>(data, [owner = std::make_shared<Value>(std::move(value))](void*) {});
  }
}

void OrtContext::execute(std::span<const Tensor> inputs, std::span<const size_t> outputIndices,
                         std::span<Tensor> outputs) {
  const Api& api = library_.api;
  std::vector<Value> inputValues;
  std::vector<const OrtValue*> inputPointers;
  inputValues.reserve(inputs.size());
  for (const Tensor& input : inputs) {
    inputValues.push_back(toValue(input));
    inputPointers.push_back(inputValues.back().get());
  }
  std::vector<Value> outputValues;
  std::vector<OrtValue*> outputPointers;
  std::vector<const char*> outputNames;
  for (size_t i = 0; i < outputIndices.size(); ++i) {
    outputNames.push_back(model_->outputs()[outputIndices[i]].name.c_str());
    outputValues.push_back(outputs[i].data ? toValue(outputs[i]) : Value(api));
    outputPointers.push_back(outputValues.back().get());
  }

  try {
    api.check<Run>("ERR_EXECUTION_FAILED", model_->session(),
                   static_cast<const OrtRunOptions*>(runOptions_.get()), model_->inputNames().data(),
                   static_cast<const OrtValue* const*>(inputPointers.data()), inputPointers.size(),
                   static_cast<const char* const*>(outputNames.data()), outputNames.size(),
                   outputPointers.data());
  } catch (const Error&) {
    if (cancelled_) throw Cancelled();
    throw;
  }
  for (size_t i = 0; i < outputs.size(); ++i) {
    if (outputValues[i].get() == nullptr) *outputValues[i].out() = outputPointers[i];
  }
  for (size_t i = 0; i < outputs.size(); ++i) {
    if (outputs[i].data) continue;  // written in place
    fromValue(std::move(outputValues[i]), inputs, outputs.first(i), outputs[i]);
  }
}

class OrtModelHandle final : public Model {
 public:
  OrtModelHandle(std::shared_ptr<const OrtModel> model, const Library& library)
      : model_(std::move(model)), library_(library) {}
  const std::vector<TensorInfo>& inputs() const noexcept override { return model_->inputs(); }
  const std::vector<TensorInfo>& outputs() const noexcept override { return model_->outputs(); }
  std::unique_ptr<ExecutionContext> createContext() override {
    return std::make_unique<OrtContext>(model_, library_);
  }
  std::shared_ptr<TensorMemory> tensorMemory() const override { return hostTensorMemory(); }

 private:
  std::shared_ptr<const OrtModel> model_;
  const Library& library_;
};

class OrtRuntime final : public Runtime {
 public:
  explicit OrtRuntime(const Library& library) : library_(library) {}

  std::string name() const override { return "onnxruntime"; }
  std::string version() const override { return library_.version; }

  std::unique_ptr<Model> loadModel(const ModelSource& source, const ModelOptions& options,
                                   std::stop_token stop) override {
    const Api& api = library_.api;
    Options sessionOptions(api);
    api.check<CreateSessionOptions>("ERR_EXECUTION_FAILED", sessionOptions.out());
    if (options.threads > 0) {
      api.check<SetIntraOpNumThreads>("ERR_INVALID_ARG_VALUE", sessionOptions.get(), options.threads);
    }
    // The session copies the options but shares this flag with them. This call fails only if an argument is
    // null.
    const std::stop_callback cancel(
        stop, [&] { api.call<SessionOptionsSetLoadCancellationFlag>(sessionOptions.get(), true); });
    if (!options.weights.empty()) {
      api.check<AddSessionConfigEntry>("ERR_EXECUTION_FAILED", sessionOptions.get(), kExternalDataFolder,
                                       options.weights.c_str());
    }
    try {
      OrtSession* session = createSession(source, !options.weights.empty(), sessionOptions.get());
      return std::make_unique<OrtModelHandle>(std::make_shared<const OrtModel>(library_, session), library_);
    } catch (const Error&) {
      throwIfStopped(stop);
      throw;
    }
  }

 private:
  // `elsewhere` is true if a file's external data is in another folder.
  OrtSession* createSession(const ModelSource& source, bool elsewhere,
                            const OrtSessionOptions* options) const {
    const Api& api = library_.api;
    const auto* env = static_cast<const OrtEnv*>(library_.env);
    OrtSession* session = nullptr;
    const auto fromBytes = [&](const void* bytes, size_t size) {
      api.check<CreateSessionFromArray>("ERR_MODEL_INVALID", env, bytes, size, options, &session);
    };
    if (const auto* path = std::get_if<std::string>(&source)) {
      struct stat status = {};
      if (stat(path->c_str(), &status) != 0) {
        throw Error("ERR_MODEL_NOT_FOUND",
                    "There is no model at " + *path + ": " + std::strerror(errno) + ".");
      }
      if (!S_ISREG(status.st_mode)) throw Error("ERR_MODEL_NOT_FOUND", *path + " is not a file.");
      if (status.st_size == 0) throw Error("ERR_MODEL_INVALID", *path + " is empty.");
      if (elsewhere) {
        const MappedFile file(*path);
        fromBytes(file.data(), file.size());
      } else {
        api.check<CreateSession>("ERR_MODEL_INVALID", env, path->c_str(), options, &session);
      }
    } else {
      const auto& bytes = std::get<std::vector<uint8_t>>(source);
      if (bytes.empty()) throw Error("ERR_MODEL_INVALID", "The model's bytes are empty.");
      fromBytes(bytes.data(), bytes.size());
    }
    return session;
  }

  const Library& library_;
};

// Drops ORT's log, because errors are reported in a status.
void dropLog(void*, int, const char*, const char*, const char*, const char*) {}

const Library* openLibrary(const std::string& path) {
  SharedLibrary shared = SharedLibrary::open(path);
  const auto* base = shared.symbol<const ApiBase*()>("OrtGetApiBase")();
  const void* const* table = base->getApi(kApiVersion);
  if (table == nullptr) {
    throw Error("ERR_LIBRARY_UNSUPPORTED", "ONNX Runtime " + std::string(base->getVersionString()) + " at " +
                                               path + " is too old: version 1.22 or newer is needed.");
  }
  auto library = std::make_unique<Library>(
      Library{.library = std::move(shared), .api = Api(table), .version = base->getVersionString()});
  const Api& api = library->api;
  constexpr const char* kCode = "ERR_LIBRARY_UNSUPPORTED";
  api.check<CreateEnvWithCustomLogger>(kCode, &dropLog, static_cast<void*>(nullptr), kLogFatal,
                                       "node-tensorrt", &library->env);
  api.check<DisableTelemetryEvents>(kCode, static_cast<const OrtEnv*>(library->env));
  api.check<CreateCpuMemoryInfo>(kCode, kOrtArenaAllocator, kOrtMemTypeDefault, &library->cpu);
  api.check<GetAllocatorWithDefaultOptions>(kCode, &library->allocator);
  return library.release();
}

}  // namespace

void disableTelemetry() {
  ::setenv("ORT_DISABLE_TELEMETRY", "1", /*overwrite*/ 0);
}

std::shared_ptr<Runtime> openRuntime(const std::string& libraryPath) {
  static std::mutex mutex;
  static const Library* library = nullptr;  // never freed: see Library
  std::lock_guard lock(mutex);
  if (library == nullptr) library = openLibrary(libraryPath);
  return std::make_shared<OrtRuntime>(*library);
}

}  // namespace node_tensorrt::ort
