#include "node/file_lock.h"

#include "node/environment.h"

namespace node_tensorrt {

Napi::Function JsFileLock::define(Napi::Env env) {
  return DefineClass(env, "FileLock",
                     {InstanceMethod<&JsFileLock::tryAcquire>("tryAcquire"),
                      InstanceMethod<&JsFileLock::release>("release")});
}

JsFileLock::JsFileLock(const Napi::CallbackInfo& info)
    : ObjectWrap(info), lock_(info[0].As<Napi::String>().Utf8Value()) {}

Napi::Value JsFileLock::tryAcquire(const Napi::CallbackInfo& info) {
  return Napi::Boolean::New(info.Env(), guarded(info.Env(), [&] { return lock_.tryAcquire(); }));
}

void JsFileLock::release(const Napi::CallbackInfo&) {
  lock_.release();
}

}  // namespace node_tensorrt
