// JavaScript class FileLock.
#pragma once

#include "core/file_lock.h"
#include "node/napi_setup.h"

namespace node_tensorrt {

class JsFileLock : public Napi::ObjectWrap<JsFileLock> {
 public:
  static Napi::Function define(Napi::Env env);

  // new FileLock(path)
  explicit JsFileLock(const Napi::CallbackInfo& info);

 private:
  // tryAcquire(): boolean
  Napi::Value tryAcquire(const Napi::CallbackInfo& info);
  // release()
  void release(const Napi::CallbackInfo& info);

  FileLock lock_;
};

}  // namespace node_tensorrt
