#include "node/native_bytes.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <span>
#include <stop_token>
#include <string>
#include <utility>
#include <vector>

#include "core/error.h"
#include "core/sha256.h"
#include "node/environment.h"
#include "node/host_buffer.h"
#include "node/job.h"

namespace node_tensorrt {
namespace {

constexpr napi_type_tag kTypeTag = {0x5d0c92f7b8e14a63, 0x86f1a3d9e27b4c05};

using Bytes = std::shared_ptr<const ByteSource>;
using Digest = std::array<std::byte, 32>;

std::span<const std::byte> elements(Napi::Value value) {
  const auto array = value.As<Napi::Uint8Array>();
  return std::as_bytes(std::span(array.Data(), array.ByteLength()));
}

Digest digestOf(std::span<const std::byte> before, const ByteSource& bytes, const std::stop_token& stop) {
  Sha256 hash;
  hash.update(before);
  bytes.forEachPiece(stop, [&hash](std::span<const std::byte> piece) { hash.update(piece); });
  return hash.digest();
}

Napi::Value toJs(Napi::Env env, const Digest& digest) {
  Napi::Uint8Array result = Napi::Uint8Array::New(env, digest.size());
  std::memcpy(result.Data(), digest.data(), digest.size());
  return result;
}

Bytes bytesOf(const Napi::CallbackInfo& info) {
  if (info[0].IsExternal()) return *info[0].As<Napi::External<Bytes>>().Data();
  if (info[0].IsTypedArray()) return std::make_shared<MemoryBytes>(elements(info[0]));
  return std::make_shared<FileBytes>(info[0].As<Napi::String>(), info[1].As<Napi::Number>(),
                                     info[2].As<Napi::Number>().Int64Value(),
                                     static_cast<size_t>(info[3].As<Napi::Number>().Int64Value()));
}

}  // namespace

Descriptor::Descriptor(int callers) : number_(::fcntl(callers, F_DUPFD_CLOEXEC, 0)) {
  if (number_ < 0) throw Error("ERR_IO", std::strerror(errno));
}

Descriptor::~Descriptor() {
  ::close(number_);
}

Napi::Function NativeBytes::define(Napi::Env env) {
  Napi::Function result = DefineClass(
      env, "NativeBytes",
      {InstanceAccessor<&NativeBytes::byteLength>("byteLength"), InstanceMethod<&NativeBytes::read>("read"),
       InstanceMethod<&NativeBytes::sha256>("sha256"), InstanceMethod<&NativeBytes::sha256Sync>("sha256Sync"),
       InstanceMethod<&NativeBytes::writeTo>("writeTo"), InstanceMethod<&NativeBytes::markUsed>("markUsed"),
       InstanceMethod<&NativeBytes::share>("share"), InstanceMethod<&NativeBytes::handOver>("handOver"),
       InstanceMethod<&NativeBytes::release>("release")});
  Environment::of(env).setBytesClass(result);
  return result;
}

Napi::Value NativeBytes::make(Napi::Env env, Bytes bytes) {
  return Environment::of(env).bytesClass().New({Napi::External<Bytes>::New(env, &bytes)});
}

NativeBytes::NativeBytes(const Napi::CallbackInfo& info) : ObjectWrap(info) {
  info.This().As<Napi::Object>().TypeTag(&kTypeTag);
  guarded(info.Env(), [&] { bytes_ = bytesOf(info); });
  // Tells V8 about the memory, so that it collects such objects before the process runs out of memory.
  if (bytes_->inMemory()) {
    Napi::MemoryManagement::AdjustExternalMemory(info.Env(), static_cast<int64_t>(bytes_->size()));
  }
}

std::shared_ptr<const ByteSource> NativeBytes::from(Napi::Value value) {
  if (!value.IsObject() || !value.As<Napi::Object>().CheckTypeTag(&kTypeTag)) return nullptr;
  return Unwrap(value.As<Napi::Object>())->live();
}

const Bytes& NativeBytes::live() const {
  if (!bytes_) throw Error("ERR_DISPOSED", "The bytes were released.");
  return bytes_;
}

Napi::Value NativeBytes::byteLength(const Napi::CallbackInfo& info) {
  return guarded(info.Env(),
                 [&] { return Napi::Number::New(info.Env(), static_cast<double>(live()->size())); });
}

// read(from, into): void
void NativeBytes::read(const Napi::CallbackInfo& info) {
  guarded(info.Env(), [&] {
    auto into = info[1].As<Napi::Uint8Array>();
    live()->read(static_cast<size_t>(info[0].As<Napi::Number>().Int64Value()),
                 std::as_writable_bytes(std::span(into.Data(), into.ByteLength())));
  });
}

// sha256(before): Promise<Uint8Array>
Napi::Value NativeBytes::sha256(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    const auto before = elements(info[0]);
    std::vector<std::byte> copy(before.begin(), before.end());
    return std::make_shared<Job>(info.Env())
        ->start(info.Env(), [bytes = live(), copy = std::move(copy)](const std::stop_token& stop, Job& job) {
          const Digest digest = digestOf(copy, *bytes, stop);
          job.deliver([digest](Napi::Env env) { return toJs(env, digest); });
        });
  });
}

// sha256Sync(before): Uint8Array
Napi::Value NativeBytes::sha256Sync(const Napi::CallbackInfo& info) {
  return guarded(info.Env(),
                 [&] { return toJs(info.Env(), digestOf(elements(info[0]), *live(), std::stop_token())); });
}

// writeTo(descriptor): Promise<void>
Napi::Value NativeBytes::writeTo(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    const auto descriptor = std::make_shared<Descriptor>(info[0].As<Napi::Number>());
    return std::make_shared<Job>(info.Env())
        ->start(info.Env(), [bytes = live(), descriptor](const std::stop_token& stop, Job& job) {
          writeBytes(*bytes, descriptor->number(), stop);
          job.deliver([](Napi::Env env) { return env.Undefined(); });
        });
  });
}

void NativeBytes::markUsed(const Napi::CallbackInfo& info) {
  guarded(info.Env(), [&] { live()->markUsed(); });
}

// share(): NativeBytes
Napi::Value NativeBytes::share(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] { return make(info.Env(), live()); });
}

// handOver(): ArrayBuffer
Napi::Value NativeBytes::handOver(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    const auto memory = std::const_pointer_cast<std::byte>(live()->whole(std::stop_token()));
    const Napi::ArrayBuffer result = toArrayBuffer(info.Env(), memory, live()->size());
    letGo(info.Env());
    return result;
  });
}

void NativeBytes::release(const Napi::CallbackInfo& info) {
  letGo(info.Env());
}

void NativeBytes::Finalize(Napi::Env env) {
  letGo(env);
}

// Releases the bytes. Threads that are working with them keep them until they are done.
void NativeBytes::letGo(Napi::Env env) {
  if (!bytes_) return;
  if (bytes_->inMemory()) {
    Napi::MemoryManagement::AdjustExternalMemory(env, -static_cast<int64_t>(bytes_->size()));
  }
  bytes_.reset();
}

}  // namespace node_tensorrt
