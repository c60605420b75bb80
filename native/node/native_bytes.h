// JavaScript class NativeBytes (lib/system/native/bytes.ts): bytes outside the JavaScript heap, of any
// length.
#pragma once

#include <memory>

#include "core/byte_source.h"
#include "node/napi_setup.h"

namespace node_tensorrt {

class NativeBytes : public Napi::ObjectWrap<NativeBytes> {
 public:
  static Napi::Function define(Napi::Env env);

  // Creates a JavaScript object that shares `bytes`.
  static Napi::Value make(Napi::Env env, std::shared_ptr<const ByteSource> bytes);

  // new NativeBytes(bytes: Uint8Array), new NativeBytes(file, descriptor, from, byteLength)
  explicit NativeBytes(const Napi::CallbackInfo& info);

  // Returns the bytes behind `value`, or null if it is something else. Throws Error(ERR_DISPOSED).
  static std::shared_ptr<const ByteSource> from(Napi::Value value);

  void Finalize(Napi::Env env) override;

 private:
  Napi::Value byteLength(const Napi::CallbackInfo& info);
  void read(const Napi::CallbackInfo& info);
  Napi::Value sha256(const Napi::CallbackInfo& info);
  Napi::Value sha256Sync(const Napi::CallbackInfo& info);
  Napi::Value writeTo(const Napi::CallbackInfo& info);
  void markUsed(const Napi::CallbackInfo& info);
  Napi::Value share(const Napi::CallbackInfo& info);
  Napi::Value handOver(const Napi::CallbackInfo& info);
  void release(const Napi::CallbackInfo& info);

  const std::shared_ptr<const ByteSource>& live() const;
  void letGo(Napi::Env env);

  std::shared_ptr<const ByteSource> bytes_;  // null once released
};

// A duplicate of a descriptor, because the caller's may be closed and its number reused while a thread is
// writing.
class Descriptor {
 public:
  // Throws Error(ERR_IO).
  explicit Descriptor(int callers);
  Descriptor(const Descriptor&) = delete;
  ~Descriptor();
  int number() const noexcept { return number_; }

 private:
  const int number_;
};

}  // namespace node_tensorrt
