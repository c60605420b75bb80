#include "node/inference_session.h"

#include <cstring>
#include <utility>

#include "core/error.h"
#include "core/host_memory.h"
#include "core/memory_pool.h"
#include "node/device_tensor.h"
#include "node/host_buffer.h"

namespace node_tensorrt {
namespace {

// How many bytes of idle input blocks a session keeps for its next runs.
constexpr size_t kIdlePoolBytes = size_t{64} << 20;

// Smaller outputs are copied into an ordinary ArrayBuffer. That is cheaper than an external one with its
// finalizer, and returns the memory to the runtime at once.
constexpr size_t kCopiedOutputBytes = 16 << 10;

// Creates [type, shape, ArrayBuffer | DeviceTensor | string[] | undefined]. The last is undefined if the
// output was written to the caller's memory.
Napi::Array toJs(Napi::Env env, const Tensor& tensor, bool inPlace) {
  Napi::Array result = Napi::Array::New(env, 3);
  result[0u] = Napi::Number::New(env, static_cast<int>(tensor.type));
  result[1u] = shapeToJs(env, tensor.shape);
  if (inPlace) {
    result[2u] = env.Undefined();
  } else if (tensor.location == Location::kDevice) {
    result[2u] = deviceTensorToJs(env, tensor);
  } else if (tensor.strings) {
    Napi::Array strings = Napi::Array::New(env, tensor.strings->size());
    for (size_t i = 0; i < tensor.strings->size(); ++i)
      strings[i] = Napi::String::New(env, (*tensor.strings)[i]);
    result[2u] = strings;
  } else if (tensor.byteLength <= kCopiedOutputBytes) {
    Napi::ArrayBuffer copy = Napi::ArrayBuffer::New(env, tensor.byteLength);
    if (tensor.byteLength > 0) std::memcpy(copy.Data(), tensor.data.get(), tensor.byteLength);
    result[2u] = copy;
  } else {
    result[2u] = toArrayBuffer(env, tensor.data, tensor.byteLength);
  }
  return result;
}

Napi::Array outputsToJs(Napi::Env env, const Run& run, const std::vector<bool>& inPlace) {
  Napi::Array result = Napi::Array::New(env, run.outputs.size());
  for (size_t i = 0; i < run.outputs.size(); ++i) result[i] = toJs(env, run.outputs[i], inPlace[i]);
  return result;
}

double milliseconds(Clock::duration duration) {
  return std::chrono::duration<double, std::milli>(duration).count();
}

// Creates a RunTiming (lib/session/session.ts).
Napi::Object timingToJs(Napi::Env env, const Run& run) {
  Napi::Object result = Napi::Object::New(env);
  const auto set = [&](const char* name, double value) { result[name] = Napi::Number::New(env, value); };
  set("queueMs", milliseconds(run.begun - run.enqueued));
  if (run.device) {
    set("enqueueMs", run.device->enqueueMs);
    set("h2dMs", run.device->h2dMs);
  }
  set("computeMs", run.device ? run.device->computeMs : milliseconds(run.ended - run.begun));
  if (run.device) set("d2hMs", run.device->d2hMs);
  set("totalMs", milliseconds(run.ended - run.enqueued));
  return result;
}

std::vector<bool> inPlaceOutputs(const Run& run) {
  std::vector<bool> inPlace;
  for (const Tensor& output : run.outputs) inPlace.push_back(output.data != nullptr);
  return inPlace;
}

}  // namespace

Napi::Function InferenceSession::define(Napi::Env env) {
  return DefineClass(
      env, "NativeSession",
      {InstanceMethod<&InferenceSession::load>("load"),
       InstanceMethod<&InferenceSession::stopLoading>("stopLoading"),
       InstanceMethod<&InferenceSession::run>("run"), InstanceMethod<&InferenceSession::runSync>("runSync"),
       InstanceMethod<&InferenceSession::cancel>("cancel"), InstanceMethod<&InferenceSession::stats>("stats"),
       InstanceMethod<&InferenceSession::close>("close")});
}

InferenceSession::InferenceSession(const Napi::CallbackInfo& info)
    : ObjectWrap(info), pool_(kIdlePoolBytes, hostMemory()) {
  const Napi::Object config = info[0].As<Napi::Object>();
  SessionConfig sessionConfig;
  sessionConfig.concurrency = config.Get("concurrency").As<Napi::Number>().Uint32Value();
  sessionConfig.maxQueue = config.Get("maxQueue").As<Napi::Number>().Uint32Value();
  threads_ = ModelThreads<Session>::create(Environment::of(info.Env()), sessionConfig);
}

void InferenceSession::Finalize(Napi::BasicEnv) {
  threads_->abandon();
}

Napi::Value InferenceSession::load(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    auto load = std::make_unique<ModelLoad>(info[0].As<Napi::Object>());
    outputs_ = load->outputs();
    return threads_->load(info.Env(), *this, std::move(load));
  });
}

void InferenceSession::stopLoading(const Napi::CallbackInfo&) {
  threads_->core().stopLoading();
}

Tensor InferenceSession::readTensor(Napi::Env env, Napi::Value data, Napi::Value shape, DataType type) {
  Tensor tensor;
  tensor.type = type;
  size_t elements = 1;
  const Napi::Array sizes = shape.As<Napi::Array>();
  for (uint32_t d = 0; d < sizes.Length(); ++d) {
    tensor.shape.push_back(sizes.Get(d).As<Napi::Number>().Int64Value());
    elements *= static_cast<size_t>(tensor.shape.back());
  }
  if (type == DataType::kString) {
    const Napi::Array strings = data.As<Napi::Array>();
    tensor.strings = std::make_shared<std::vector<std::string>>();
    for (uint32_t i = 0; i < strings.Length(); ++i) {
      tensor.strings->push_back(strings.Get(i).As<Napi::String>().Utf8Value());
    }
    if (tensor.strings->size() != elements) {
      throw Error("ERR_INVALID_ARG_VALUE", "A string tensor's data doesn't match its dimensions.");
    }
    return tensor;
  }

  tensor.byteLength = elements * byteSize(type);
  if (const Tensor* onDevice = deviceTensorFrom(data)) {
    if (!onDevice->data) throw Error("ERR_DISPOSED", "A tensor that is fed was disposed.");
    if (onDevice->byteLength != tensor.byteLength || onDevice->type != type) {
      throw Error("ERR_INVALID_ARG_VALUE", "A tensor on the GPU doesn't match its dimensions or type.");
    }
    tensor.data = onDevice->data;
    tensor.location = onDevice->location;
    tensor.device = onDevice->device;
    return tensor;
  }
  const void* source = nullptr;
  size_t byteLength = 0;
  if (data.IsTypedArray()) {
    napi_typedarray_type arrayType;
    size_t length = 0;
    void* pointer = nullptr;
    if (napi_get_typedarray_info(env, data, &arrayType, &length, &pointer, nullptr, nullptr) != napi_ok) {
      throw Napi::Error::New(env);
    }
    source = pointer;
    byteLength = data.As<Napi::TypedArray>().ByteLength();
  } else if (HostBuffer* buffer = HostBuffer::from(data)) {
    tensor.data = buffer->memory();
    source = buffer->memory().get();
    byteLength = buffer->byteLength();
  }
  if (byteLength != tensor.byteLength) {
    throw Error("ERR_INVALID_ARG_VALUE", "A tensor's data has " + std::to_string(byteLength) +
                                             " bytes where its dimensions ask for " +
                                             std::to_string(tensor.byteLength) + ".");
  }
  if (!tensor.data) {
    if (const auto pool = threads_->core().model().inputMemory()) {
      tensor.data = pool->acquireIdle(tensor.byteLength);
    }
    if (!tensor.data) tensor.data = pool_.acquire(tensor.byteLength);
    if (byteLength > 0) std::memcpy(tensor.data.get(), source, byteLength);
  }
  return tensor;
}

std::shared_ptr<Run> InferenceSession::readRun(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  const Model& model = threads_->core().model();
  auto run = std::make_shared<Run>();
  const Napi::Array data = info[1].As<Napi::Array>();
  const Napi::Array shapes = info[2].As<Napi::Array>();
  for (uint32_t i = 0; i < model.inputs().size(); ++i) {
    run->inputs.push_back(readTensor(env, data.Get(i), shapes.Get(i), model.inputs()[i].type));
  }
  const Napi::Array outputIndices = info[3].As<Napi::Array>();
  const Napi::Array targets = info[4].As<Napi::Array>();
  const Napi::Array targetShapes = info[5].As<Napi::Array>();
  for (uint32_t i = 0; i < outputIndices.Length(); ++i) {
    const size_t index = outputIndices.Get(i).As<Napi::Number>().Uint32Value();
    if (index >= model.outputs().size()) throw Error("ERR_INVALID_ARG_VALUE", "No such output.");
    run->outputIndices.push_back(index);
    const Napi::Value target = targets.Get(i);
    Tensor wanted;
    wanted.location = outputs_;
    run->outputs.push_back(target.IsUndefined()
                               ? std::move(wanted)
                               : readTensor(env, target, targetShapes.Get(i), model.outputs()[index].type));
  }
  return run;
}

Napi::Value InferenceSession::run(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  return guarded(env, [&]() -> Napi::Value {
    Environment& environment = Environment::of(env);
    const uint32_t id = info[0].As<Napi::Number>().Uint32Value();
    std::shared_ptr<Run> run = readRun(info);
    const bool timed = info[6].ToBoolean();
    run->persist = info[7].ToBoolean();
    auto deferred = Napi::Promise::Deferred::New(env);
    // `pending_` owns the run until it is settled. `done` must not hold a strong reference, because the run
    // owns `done`.
    run->done = [this, id, timed, &environment, deferred, inPlace = inPlaceOutputs(*run)] {
      environment.post([this, id, timed, deferred, inPlace](Napi::Env env) {
        const auto entry = pending_.find(id);
        const std::shared_ptr<Run> run = std::move(entry->second);
        pending_.erase(entry);
        Unref();
        if (isCancelled(run->error)) {
          deferred.Resolve(env.Undefined());
        } else if (run->error) {
          deferred.Reject(Environment::of(env).toJs(env, run->error));
        } else {
          Napi::Array outputs = outputsToJs(env, *run, inPlace);
          if (timed) outputs.Set("timing", timingToJs(env, *run));
          deferred.Resolve(outputs);
        }
      });
    };
    pending_.emplace(id, run);
    try {
      threads_->core().enqueue(run);
    } catch (...) {
      pending_.erase(id);
      throw;
    }
    environment.expect(env);
    Ref();
    return deferred.Promise();
  });
}

Napi::Value InferenceSession::runSync(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  return guarded(env, [&]() -> Napi::Value {
    const std::shared_ptr<Run> run = readRun(info);
    const std::vector<bool> inPlace = inPlaceOutputs(*run);
    threads_->core().runSync(*run);
    return outputsToJs(env, *run, inPlace);
  });
}

void InferenceSession::cancel(const Napi::CallbackInfo& info) {
  const auto entry = pending_.find(info[0].As<Napi::Number>().Uint32Value());
  if (entry != pending_.end()) threads_->core().cancel(entry->second);
}

Napi::Value InferenceSession::stats(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  const SessionStats stats = threads_->core().stats();
  Napi::Object result = Napi::Object::New(env);
  const auto set = [&](const char* name, double value) { result[name] = Napi::Number::New(env, value); };
  set("completed", static_cast<double>(stats.completed));
  set("failed", static_cast<double>(stats.failed));
  set("cancelled", static_cast<double>(stats.cancelled));
  set("queued", static_cast<double>(stats.queued));
  set("executing", static_cast<double>(stats.executing));
  if (stats.device) result["device"] = deviceStatsToJs(env, *stats.device);
  Napi::Array latencies = Napi::Array::New(env, stats.latencies.size());
  for (size_t i = 0; i < stats.latencies.size(); ++i) {
    latencies[i] = Napi::Number::New(env, stats.latencies[i]);
  }
  result["latencies"] = latencies;
  return result;
}

Napi::Value InferenceSession::close(const Napi::CallbackInfo& info) {
  return threads_->close(info.Env(), *this);
}

}  // namespace node_tensorrt
