// The addon's entry point: registers the JavaScript classes and functions.
#include "node/device_tensor.h"
#include "node/engine_builder.h"
#include "node/environment.h"
#include "node/file_lock.h"
#include "node/host_buffer.h"
#include "node/inference_session.h"
#include "node/language_model.h"
#include "node/napi_setup.h"
#include "node/native_bytes.h"
#include "node/sparse_mask.h"
#include "node/variant.h"
#include "runtime/onnxruntime/onnxruntime.h"

namespace {

// initialize(TensorRTError): called once by lib/system/native.ts, before anything else.
void initialize(const Napi::CallbackInfo& info) {
  node_tensorrt::Environment::of(info.Env()).setErrorClass(info[0].As<Napi::Function>());
}

// stopAll(): called once by lib/system/native.ts, when the process begins to exit. Node doesn't run cleanup
// hooks then. Our threads must have ended before the exit handlers of the libraries they use run.
void stopAll(const Napi::CallbackInfo& info) {
  node_tensorrt::Environment::of(info.Env()).end();
}

// ownDirectory(path), disownDirectory(path): temporary folders.
Napi::Value ownDirectory(const Napi::CallbackInfo& info) {
  return Napi::Boolean::New(
      info.Env(), node_tensorrt::guarded(info.Env(), [&] {
        return node_tensorrt::Environment::of(info.Env()).ownDirectory(info[0].As<Napi::String>());
      }));
}
void disownDirectory(const Napi::CallbackInfo& info) {
  node_tensorrt::Environment::of(info.Env()).disownDirectory(info[0].As<Napi::String>());
}

Napi::Object start(Napi::Env env, Napi::Object exports) {
  node_tensorrt::ort::disableTelemetry();
  node_tensorrt::Environment::create(env);
  exports["variant"] = node_tensorrt::variant(env);
  exports["initialize"] = Napi::Function::New(env, initialize);
  exports["stopAll"] = Napi::Function::New(env, stopAll);
  exports["ownDirectory"] = Napi::Function::New(env, ownDirectory);
  exports["disownDirectory"] = Napi::Function::New(env, disownDirectory);
  exports["FileLock"] = node_tensorrt::JsFileLock::define(env);
  exports["HostBuffer"] = node_tensorrt::HostBuffer::define(env);
  exports["NativeBytes"] = node_tensorrt::NativeBytes::define(env);
  exports["NativeLanguageModel"] = node_tensorrt::LanguageModel::define(env);
  exports["NativeMask"] = node_tensorrt::SparseMask::define(env);
  exports["NativeSession"] = node_tensorrt::InferenceSession::define(env);
  node_tensorrt::defineDeviceTensor(env, exports);
  node_tensorrt::defineEngineBuilder(env, exports);
  node_tensorrt::defineMaskRules(env, exports);
  return exports;
}

}  // namespace

NODE_API_MODULE(NODE_GYP_MODULE_NAME, start)
