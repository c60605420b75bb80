// JavaScript class HostBuffer: native memory behind an ArrayBuffer, which runs read and write without
// copying.
#pragma once

#include <memory>

#include "node/napi_setup.h"

namespace node_tensorrt {

class HostBuffer : public Napi::ObjectWrap<HostBuffer> {
 public:
  static Napi::Function define(Napi::Env env);

  // new HostBuffer(byteLength)
  explicit HostBuffer(const Napi::CallbackInfo& info);

  // Returns `value` as a HostBuffer, or null if it is something else.
  static HostBuffer* from(Napi::Value value);

  const std::shared_ptr<void>& memory() const noexcept { return memory_; }
  size_t byteLength() const noexcept { return byteLength_; }

 private:
  Napi::Value arrayBuffer(const Napi::CallbackInfo& info);

  std::shared_ptr<void> memory_;
  size_t byteLength_ = 0;
  Napi::Reference<Napi::ArrayBuffer> arrayBuffer_;
};

// Creates an ArrayBuffer over `memory`. It copies only if the host doesn't allow external memory (Electron).
Napi::ArrayBuffer toArrayBuffer(Napi::Env env, std::shared_ptr<void> memory, size_t byteLength);

}  // namespace node_tensorrt
