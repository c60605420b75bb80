#include "node/device_tensor.h"

#include <exception>
#include <memory>
#include <utility>

#include "core/error.h"
#include "core/host_memory.h"
#include "node/environment.h"
#include "node/host_buffer.h"
#include "runtime/cuda/device.h"

namespace node_tensorrt {
namespace {

constexpr napi_type_tag kTypeTag = {0x3b1f0e7d94c24a68, 0xb7d15f20a6e9c483};

Tensor* unwrap(Napi::Value value) {
  if (!value.IsExternal()) return nullptr;
  const auto external = value.As<Napi::External<Tensor>>();
  return external.CheckTypeTag(&kTypeTag) ? external.Data() : nullptr;
}

// Copies a tensor to the host, on a thread of Node's pool.
class Download final : public Napi::AsyncWorker {
 public:
  Download(Napi::Env env, Tensor tensor)
      : AsyncWorker(env, "node-tensorrt"),
        deferred_(Napi::Promise::Deferred::New(env)),
        tensor_(std::move(tensor)) {}

  Napi::Promise promise() const { return deferred_.Promise(); }

 protected:
  void Execute() override {
    try {
      host_ = allocateHostMemory(tensor_.byteLength);
      cuda::download(cuda::Device::open(tensor_.device), host_.get(), tensor_.data.get(), tensor_.byteLength);
    } catch (...) {
      error_ = std::current_exception();
    }
    tensor_.data.reset();
  }
  void OnOK() override {
    Napi::HandleScope scope(Env());
    if (error_) {
      deferred_.Reject(Environment::of(Env()).toJs(Env(), error_));
    } else {
      deferred_.Resolve(toArrayBuffer(Env(), host_, tensor_.byteLength));
    }
  }

 private:
  const Napi::Promise::Deferred deferred_;
  Tensor tensor_;
  std::shared_ptr<void> host_;
  std::exception_ptr error_;
};

// downloadTensor(tensor): Promise<ArrayBuffer>
Napi::Value downloadTensor(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const Tensor* tensor = deviceTensorFrom(info[0]);
    if (tensor == nullptr || !tensor->data) throw Error("ERR_DISPOSED", "The tensor was disposed.");
    auto* download = new Download(info.Env(), *tensor);
    download->Queue();
    return download->promise();
  });
}

// releaseTensor(tensor): runs that are using the memory keep it until they end.
void releaseTensor(const Napi::CallbackInfo& info) {
  if (Tensor* tensor = unwrap(info[0])) tensor->data.reset();
}

}  // namespace

Napi::Value deviceTensorToJs(Napi::Env env, const Tensor& tensor) {
  auto owned = std::make_unique<Tensor>(tensor);
  const auto external =
      Napi::External<Tensor>::New(env, owned.get(), [](Napi::Env, Tensor* collected) { delete collected; });
  owned.release();
  external.TypeTag(&kTypeTag);
  return external;
}

const Tensor* deviceTensorFrom(Napi::Value value) {
  return unwrap(value);
}

void defineDeviceTensor(Napi::Env env, Napi::Object exports) {
  exports["downloadTensor"] = Napi::Function::New(env, downloadTensor);
  exports["releaseTensor"] = Napi::Function::New(env, releaseTensor);
}

}  // namespace node_tensorrt
