#include "node/host_buffer.h"

#include <cstring>

#include "core/host_memory.h"
#include "node/environment.h"

namespace node_tensorrt {
namespace {

constexpr napi_type_tag kTypeTag = {0x6f1d3c6a52b94e0f, 0x9a4be2d7c80f5131};

}  // namespace

Napi::ArrayBuffer toArrayBuffer(Napi::Env env, std::shared_ptr<void> memory, size_t byteLength) {
  napi_value value = nullptr;
  if (byteLength > 0) {
    auto* owner = new std::shared_ptr<void>(memory);
    const auto release = [](napi_env, void*, void* hint) {
      delete static_cast<std::shared_ptr<void>*>(hint);
    };
    const napi_status status =
        napi_create_external_arraybuffer(env, memory.get(), byteLength, release, owner, &value);
    if (status == napi_ok) return Napi::ArrayBuffer(env, value);
    delete owner;
    if (status != napi_no_external_buffers_allowed) throw Napi::Error::New(env);
  }
  Napi::ArrayBuffer copy = Napi::ArrayBuffer::New(env, byteLength);
  if (byteLength > 0) std::memcpy(copy.Data(), memory.get(), byteLength);
  return copy;
}

Napi::Function HostBuffer::define(Napi::Env env) {
  return DefineClass(env, "HostBuffer", {InstanceAccessor<&HostBuffer::arrayBuffer>("arrayBuffer")});
}

HostBuffer::HostBuffer(const Napi::CallbackInfo& info) : ObjectWrap(info) {
  info.This().As<Napi::Object>().TypeTag(&kTypeTag);
  byteLength_ = static_cast<size_t>(info[0].As<Napi::Number>().Int64Value());
  guarded(info.Env(), [&] { memory_ = allocateHostMemory(byteLength_); });
}

HostBuffer* HostBuffer::from(Napi::Value value) {
  if (!value.IsObject() || !value.As<Napi::Object>().CheckTypeTag(&kTypeTag)) return nullptr;
  return Unwrap(value.As<Napi::Object>());
}

Napi::Value HostBuffer::arrayBuffer(const Napi::CallbackInfo& info) {
  if (arrayBuffer_.IsEmpty()) {
    Napi::ArrayBuffer shared = toArrayBuffer(info.Env(), memory_, byteLength_);
    // The host allows no external ArrayBuffers (Electron), so this is a copy, which can't be used here.
    if (byteLength_ > 0 && shared.Data() != memory_.get()) return info.Env().Undefined();
    arrayBuffer_ = Napi::Reference<Napi::ArrayBuffer>::New(shared, 1);
  }
  return arrayBuffer_.Value();
}

}  // namespace node_tensorrt
