// The part of ONNX Runtime's C API that we call. The API is a table of function pointers that only grows at
// its end, so a slot number identifies a function in every version. The numbers come from onnxruntime_c_api.h
// (struct OrtApi), version 1.30. The library is opened at run time.
#pragma once

#include <cstddef>
#include <cstdint>

struct OrtStatus;
struct OrtEnv;
struct OrtSession;
struct OrtSessionOptions;
struct OrtRunOptions;
struct OrtValue;
struct OrtTypeInfo;
struct OrtTensorTypeAndShapeInfo;
struct OrtMemoryInfo;
struct OrtAllocator;

namespace node_tensorrt::ort {

// OrtApiBase, which the library's one exported function returns.
struct ApiBase {
  const void* const* (*getApi)(uint32_t version);
  const char* (*getVersionString)();
};

// The version of the C API that we ask for. It has every slot below.
inline constexpr uint32_t kApiVersion = 22;

enum ErrorCode : int {
  kOk = 0,
  kFail = 1,
  kInvalidArgument = 2,
  kNoSuchFile = 3,
  kNoModel = 4,
  kEngineError = 5,
  kRuntimeException = 6,
  kInvalidProtobuf = 7,
  kModelLoaded = 8,
  kNotImplemented = 9,
  kInvalidGraph = 10,
  kEpFail = 11,
};

// For models given as bytes: the folder of their external data (onnxruntime_session_options_config_keys.h).
inline constexpr const char* kExternalDataFolder = "session.model_external_initializers_file_folder_path";

inline constexpr int kOnnxTypeTensor = 1;
inline constexpr int kLogFatal = 4;
inline constexpr int kOrtArenaAllocator = 1;
inline constexpr int kOrtMemTypeDefault = 0;

// One slot of the table, and its signature.
template <int kSlot, class Signature>
struct Function {
  using Type = Signature;
  static constexpr int slot = kSlot;
};

using LogFunction = void (*)(void* param, int severity, const char* category, const char* logid,
                             const char* location, const char* message);

using GetErrorCode = Function<1, ErrorCode(const OrtStatus*)>;
using GetErrorMessage = Function<2, const char*(const OrtStatus*)>;
using CreateEnvWithCustomLogger =
    Function<4, OrtStatus*(LogFunction, void* param, int severity, const char* logid, OrtEnv**)>;
using DisableTelemetryEvents = Function<6, OrtStatus*(const OrtEnv*)>;
using CreateSession =
    Function<7, OrtStatus*(const OrtEnv*, const char* path, const OrtSessionOptions*, OrtSession**)>;
using CreateSessionFromArray = Function<8, OrtStatus*(const OrtEnv*, const void* data, size_t length,
                                                      const OrtSessionOptions*, OrtSession**)>;
using Run = Function<9, OrtStatus*(OrtSession*, const OrtRunOptions*, const char* const* inputNames,
                                   const OrtValue* const* inputs, size_t inputCount,
                                   const char* const* outputNames, size_t outputCount, OrtValue** outputs)>;
using CreateSessionOptions = Function<10, OrtStatus*(OrtSessionOptions**)>;
using SetIntraOpNumThreads = Function<24, OrtStatus*(OrtSessionOptions*, int)>;
using SessionGetInputCount = Function<30, OrtStatus*(const OrtSession*, size_t*)>;
using SessionGetOutputCount = Function<31, OrtStatus*(const OrtSession*, size_t*)>;
using SessionGetInputTypeInfo = Function<33, OrtStatus*(const OrtSession*, size_t, OrtTypeInfo**)>;
using SessionGetOutputTypeInfo = Function<34, OrtStatus*(const OrtSession*, size_t, OrtTypeInfo**)>;
using SessionGetInputName = Function<36, OrtStatus*(const OrtSession*, size_t, OrtAllocator*, char**)>;
using SessionGetOutputName = Function<37, OrtStatus*(const OrtSession*, size_t, OrtAllocator*, char**)>;
using CreateRunOptions = Function<39, OrtStatus*(OrtRunOptions**)>;
using RunOptionsSetTerminate = Function<46, OrtStatus*(OrtRunOptions*)>;
using RunOptionsUnsetTerminate = Function<47, OrtStatus*(OrtRunOptions*)>;
using CreateTensorAsOrtValue =
    Function<48, OrtStatus*(OrtAllocator*, const int64_t* shape, size_t rank, int type, OrtValue**)>;
using CreateTensorWithDataAsOrtValue =
    Function<49, OrtStatus*(const OrtMemoryInfo*, void* data, size_t bytes, const int64_t* shape, size_t rank,
                            int type, OrtValue**)>;
using GetTensorMutableData = Function<51, OrtStatus*(OrtValue*, void**)>;
using FillStringTensor = Function<52, OrtStatus*(OrtValue*, const char* const*, size_t)>;
using GetStringTensorDataLength = Function<53, OrtStatus*(const OrtValue*, size_t*)>;
using GetStringTensorContent = Function<54, OrtStatus*(const OrtValue*, void*, size_t, size_t*, size_t)>;
using CastTypeInfoToTensorInfo =
    Function<55, OrtStatus*(const OrtTypeInfo*, const OrtTensorTypeAndShapeInfo**)>;
using GetOnnxTypeFromTypeInfo = Function<56, OrtStatus*(const OrtTypeInfo*, int*)>;
using GetTensorElementType = Function<60, OrtStatus*(const OrtTensorTypeAndShapeInfo*, int*)>;
using GetDimensionsCount = Function<61, OrtStatus*(const OrtTensorTypeAndShapeInfo*, size_t*)>;
using GetDimensions = Function<62, OrtStatus*(const OrtTensorTypeAndShapeInfo*, int64_t*, size_t)>;
using GetSymbolicDimensions =
    Function<63, OrtStatus*(const OrtTensorTypeAndShapeInfo*, const char**, size_t)>;
using GetTensorTypeAndShape = Function<65, OrtStatus*(const OrtValue*, OrtTensorTypeAndShapeInfo**)>;
using CreateCpuMemoryInfo = Function<69, OrtStatus*(int allocatorType, int memType, OrtMemoryInfo**)>;
using AllocatorFree = Function<76, OrtStatus*(OrtAllocator*, void*)>;
using GetAllocatorWithDefaultOptions = Function<78, OrtStatus*(OrtAllocator**)>;
using ReleaseStatus = Function<93, void(OrtStatus*)>;
using ReleaseMemoryInfo = Function<94, void(OrtMemoryInfo*)>;
using ReleaseSession = Function<95, void(OrtSession*)>;
using ReleaseValue = Function<96, void(OrtValue*)>;
using ReleaseRunOptions = Function<97, void(OrtRunOptions*)>;
using ReleaseTypeInfo = Function<98, void(OrtTypeInfo*)>;
using ReleaseTensorTypeAndShapeInfo = Function<99, void(OrtTensorTypeAndShapeInfo*)>;
using ReleaseSessionOptions = Function<100, void(OrtSessionOptions*)>;
using AddSessionConfigEntry =
    Function<130, OrtStatus*(OrtSessionOptions*, const char* key, const char* value)>;
using SessionOptionsSetLoadCancellationFlag = Function<293, OrtStatus*(OrtSessionOptions*, bool)>;

}  // namespace node_tensorrt::ort
