// JavaScript class FileLock: a lock on a file's name, between processes as within one. The kernel lets go of
// it when its holder ends, however that ends.
#pragma once

#include <string>

#include "node/napi_setup.h"

namespace node_tensorrt {

class FileLock : public Napi::ObjectWrap<FileLock> {
 public:
  static Napi::Function define(Napi::Env env);

  // new FileLock(path)
  explicit FileLock(const Napi::CallbackInfo& info);
  ~FileLock() override;

 private:
  // tryAcquire(): boolean. Creates the file. Blocks for no one.
  Napi::Value tryAcquire(const Napi::CallbackInfo& info);
  // release(): removes the file. Nothing where the lock is not held.
  void release(const Napi::CallbackInfo& info);

  bool acquire();
  void letGo() noexcept;

  std::string path_;
  int descriptor_ = -1;  // -1: not held
};

}  // namespace node_tensorrt
