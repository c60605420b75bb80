#include "session.h"

#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>

#include "runtime/onnxruntime/ort_api.h"

namespace stand_in {
namespace {

namespace ort = node_tensorrt::ort;

// There is one per process. It is never destroyed, because sessions may still be running when the process
// exits.
class Library {
 public:
  static const Library& instance() {
    static const Library& library = *new Library;
    return library;
  }

  template <class F, class... Args>
  auto call(Args... args) const {
    return reinterpret_cast<typename F::Type*>(const_cast<void*>(table_[F::slot]))(args...);
  }

  template <class F, class... Args>
  void check(Args... args) const {
    OrtStatus* status = call<F>(args...);
    if (status == nullptr) return;
    const std::string message = call<ort::GetErrorMessage>(static_cast<const OrtStatus*>(status));
    call<ort::ReleaseStatus>(status);
    throw std::runtime_error(message);
  }

  OrtEnv* env = nullptr;
  OrtMemoryInfo* cpu = nullptr;
  OrtAllocator* allocator = nullptr;

 private:
  Library() {
    const char* path = std::getenv("NODE_TENSORRT_ONNXRUNTIME");
    if (path == nullptr || *path == '\0') path = STAND_IN_ONNXRUNTIME;
    void* library = ::dlopen(path, RTLD_NOW | RTLD_LOCAL);
    void* base = library == nullptr ? nullptr : ::dlsym(library, "OrtGetApiBase");
    if (base == nullptr) {
      std::fprintf(stderr, "stand-in TensorRT: ONNX Runtime can't be opened: %s\n", ::dlerror());
      std::abort();
    }
    table_ = reinterpret_cast<const ort::ApiBase* (*)()>(base)()->getApi(ort::kApiVersion);
    const auto silent = [](void*, int, const char*, const char*, const char*, const char*) {};
    check<ort::CreateEnvWithCustomLogger>(static_cast<ort::LogFunction>(silent), static_cast<void*>(nullptr),
                                          ort::kLogFatal, "stand-in", &env);
    check<ort::CreateCpuMemoryInfo>(ort::kOrtArenaAllocator, ort::kOrtMemTypeDefault, &cpu);
    check<ort::GetAllocatorWithDefaultOptions>(&allocator);
  }

  const void* const* table_ = nullptr;
};

ValueInfo readInfo(const Library& library, const OrtTypeInfo* info, std::string name) {
  ValueInfo value;
  value.name = std::move(name);
  int kind = 0;
  library.check<ort::GetOnnxTypeFromTypeInfo>(info, &kind);
  if (kind != ort::kOnnxTypeTensor) return value;
  const OrtTensorTypeAndShapeInfo* tensor = nullptr;
  library.check<ort::CastTypeInfoToTensorInfo>(info, &tensor);
  size_t rank = 0;
  library.check<ort::GetTensorElementType>(tensor, &value.type);
  library.check<ort::GetDimensionsCount>(tensor, &rank);
  value.shape.resize(rank);
  std::vector<const char*> symbols(rank);
  library.check<ort::GetDimensions>(tensor, value.shape.data(), rank);
  library.check<ort::GetSymbolicDimensions>(tensor, symbols.data(), rank);
  for (const char* symbol : symbols) value.symbols.emplace_back(symbol == nullptr ? "" : symbol);
  return value;
}

}  // namespace

struct Session::Handle {
  OrtSession* session = nullptr;
  ~Handle() {
    if (session != nullptr) Library::instance().call<ort::ReleaseSession>(session);
  }
};

size_t elementBytes(int type) noexcept {
  switch (type) {
    case 2:  // uint8
    case 3:  // int8
    case 9:  // bool
      return 1;
    case 10:  // float16
    case 16:  // bfloat16
      return 2;
    case 1:  // float
    case 6:  // int32
      return 4;
    case 7:  // int64
      return 8;
    default:
      return 0;
  }
}

int64_t volume(const Shape& shape) noexcept {
  int64_t product = 1;
  for (const int64_t size : shape) product *= size;
  return product;
}

Session::Session(const std::string& model) : handle_(std::make_unique<Handle>()) {
  const Library& library = Library::instance();
  OrtSessionOptions* options = nullptr;
  library.check<ort::CreateSessionOptions>(&options);
  const std::shared_ptr<OrtSessionOptions> owned(
      options, [&library](OrtSessionOptions* each) { library.call<ort::ReleaseSessionOptions>(each); });
  library.check<ort::SetIntraOpNumThreads>(options, 1);
  library.check<ort::CreateSessionFromArray>(
      static_cast<const OrtEnv*>(library.env), static_cast<const void*>(model.data()), model.size(),
      static_cast<const OrtSessionOptions*>(options), &handle_->session);
  const OrtSession* session = handle_->session;
  const auto read = [&]<class Count, class Name, class Type>(std::vector<ValueInfo>& values) {
    size_t count = 0;
    library.check<Count>(session, &count);
    for (size_t i = 0; i < count; ++i) {
      char* text = nullptr;
      library.check<Name>(session, i, library.allocator, &text);
      std::string name = text;
      library.check<ort::AllocatorFree>(library.allocator, static_cast<void*>(text));
      OrtTypeInfo* info = nullptr;
      library.check<Type>(session, i, &info);
      const std::shared_ptr<OrtTypeInfo> type(
          info, [&library](OrtTypeInfo* each) { library.call<ort::ReleaseTypeInfo>(each); });
      values.push_back(readInfo(library, info, std::move(name)));
    }
  };
  read.operator()<ort::SessionGetInputCount, ort::SessionGetInputName, ort::SessionGetInputTypeInfo>(inputs_);
  read.operator()<ort::SessionGetOutputCount, ort::SessionGetOutputName, ort::SessionGetOutputTypeInfo>(
      outputs_);
}

Session::~Session() = default;

std::vector<Result> Session::run(std::span<const Feed> feeds) const {
  const Library& library = Library::instance();
  const auto release = [&library](OrtValue* value) {
    if (value != nullptr) library.call<ort::ReleaseValue>(value);
  };
  static char empty[64];
  std::vector<std::shared_ptr<OrtValue>> values;
  std::vector<const OrtValue*> inputs;
  std::vector<const char*> inputNames;
  for (const Feed& feed : feeds) {
    OrtValue* value = nullptr;
    const size_t bytes = static_cast<size_t>(volume(feed.shape)) * elementBytes(feed.type);
    library.check<ort::CreateTensorWithDataAsOrtValue>(
        static_cast<const OrtMemoryInfo*>(library.cpu), bytes == 0 ? empty : const_cast<void*>(feed.data),
        bytes, feed.shape.data(), feed.shape.size(), feed.type, &value);
    values.emplace_back(value, release);
    inputs.push_back(value);
    inputNames.push_back(feed.name.c_str());
  }
  std::vector<const char*> outputNames;
  for (const ValueInfo& output : outputs_) outputNames.push_back(output.name.c_str());
  std::vector<OrtValue*> outputs(outputs_.size());
  library.check<ort::Run>(
      handle_->session, static_cast<const OrtRunOptions*>(nullptr),
      static_cast<const char* const*>(inputNames.data()), static_cast<const OrtValue* const*>(inputs.data()),
      inputs.size(), static_cast<const char* const*>(outputNames.data()), outputNames.size(), outputs.data());
  for (OrtValue* output : outputs) values.emplace_back(output, release);

  std::vector<Result> results;
  for (size_t i = 0; i < outputs.size(); ++i) {
    Result result;
    result.name = outputs_[i].name;
    OrtTensorTypeAndShapeInfo* info = nullptr;
    library.check<ort::GetTensorTypeAndShape>(static_cast<const OrtValue*>(outputs[i]), &info);
    const std::shared_ptr<OrtTensorTypeAndShapeInfo> owned(info, [&library](OrtTensorTypeAndShapeInfo* each) {
      library.call<ort::ReleaseTensorTypeAndShapeInfo>(each);
    });
    size_t rank = 0;
    library.check<ort::GetTensorElementType>(static_cast<const OrtTensorTypeAndShapeInfo*>(info),
                                             &result.type);
    library.check<ort::GetDimensionsCount>(static_cast<const OrtTensorTypeAndShapeInfo*>(info), &rank);
    result.shape.resize(rank);
    library.check<ort::GetDimensions>(static_cast<const OrtTensorTypeAndShapeInfo*>(info),
                                      result.shape.data(), rank);
    void* data = nullptr;
    library.check<ort::GetTensorMutableData>(outputs[i], &data);
    const size_t bytes = static_cast<size_t>(volume(result.shape)) * elementBytes(result.type);
    const char* begin = static_cast<const char*>(data);
    if (bytes > 0) result.bytes.assign(begin, begin + bytes);
    results.push_back(std::move(result));
  }
  return results;
}

}  // namespace stand_in
