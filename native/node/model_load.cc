#include "node/model_load.h"

#include <cstddef>
#include <utility>
#include <vector>

#include "node/native_bytes.h"
#include "runtime/onnxruntime/onnxruntime.h"
#include "runtime/tensorrt/tensorrt.h"

namespace node_tensorrt {

Napi::Array shapeToJs(Napi::Env env, const Shape& shape) {
  Napi::Array result = Napi::Array::New(env, shape.size());
  for (size_t d = 0; d < shape.size(); ++d) {
    result[d] = Napi::Number::New(env, static_cast<double>(shape[d]));
  }
  return result;
}

Napi::Object deviceStatsToJs(Napi::Env env, const DeviceStats& stats) {
  const auto toJs = [&](std::initializer_list<std::pair<const char*, uint64_t>> values) {
    Napi::Object object = Napi::Object::New(env);
    for (const auto& [name, value] : values) {
      object[name] = Napi::Number::New(env, static_cast<double>(value));
    }
    return object;
  };
  Napi::Object result = Napi::Object::New(env);
  result["memory"] = toJs({{"weights", stats.weights},
                           {"activations", stats.activations},
                           {"io", stats.io},
                           {"pinned", stats.pinned},
                           {"free", stats.free},
                           {"total", stats.total}});
  result["graphs"] = toJs({{"captured", stats.graphsCaptured},
                           {"replayed", stats.graphsReplayed},
                           {"refused", stats.graphsRefused}});
  return result;
}

namespace {

Napi::Array toJs(Napi::Env env, const std::vector<TensorInfo>& infos) {
  Napi::Array result = Napi::Array::New(env, infos.size());
  for (size_t i = 0; i < infos.size(); ++i) {
    Napi::Array shape = Napi::Array::New(env, infos[i].shape.size());
    for (size_t d = 0; d < infos[i].shape.size(); ++d) {
      const Dimension& dimension = infos[i].shape[d];
      shape[d] = dimension.size >= 0
                     ? Napi::Value(Napi::Number::New(env, static_cast<double>(dimension.size)))
                     : Napi::Value(Napi::String::New(env, dimension.symbol));
    }
    Napi::Object info = Napi::Object::New(env);
    info["name"] = Napi::String::New(env, infos[i].name);
    info["type"] = Napi::Number::New(env, static_cast<int>(infos[i].type));
    info["shape"] = shape;
    result[i] = info;
  }
  return result;
}

// Creates { [input]: { min, opt, max } } for each profile.
Napi::Array toJs(Napi::Env env, const std::vector<Profile>& profiles) {
  Napi::Array result = Napi::Array::New(env, profiles.size());
  for (size_t p = 0; p < profiles.size(); ++p) {
    Napi::Object ranges = Napi::Object::New(env);
    for (const ShapeRange& range : profiles[p]) {
      Napi::Object entry = Napi::Object::New(env);
      entry["min"] = shapeToJs(env, range.min);
      entry["opt"] = shapeToJs(env, range.opt);
      entry["max"] = shapeToJs(env, range.max);
      ranges[range.input] = entry;
    }
    result[p] = ranges;
  }
  return result;
}

}  // namespace

ModelLoad::ModelLoad(const Napi::Object& request) {
  const std::string library = request.Get("library").As<Napi::String>();
  const Napi::Value model = request.Get("model");
  const Napi::Value device = request.Get("device");
  if (device.IsNumber()) {
    if (request.Get("deviceOutputs").ToBoolean()) outputs_ = Location::kDevice;
    tensorrt::EngineOptions options;
    options.device = device.As<Napi::Number>().Int32Value();
    options.cudaGraph = request.Get("cudaGraph").ToBoolean();
    options.runtimeCache = request.Get("runtimeCache").As<Napi::String>();
    task_ = [runtime = runtime_, library, plan = NativeBytes::from(model),
             options = std::move(options)](std::stop_token stop) {
      const auto tensorrt = tensorrt::Library::open(library, stop);
      runtime->name = tensorrt->flavour() == tensorrt::Flavour::kRtx ? "tensorrt-rtx" : "tensorrt";
      runtime->version = tensorrt->version();
      // If the plan is in a file, its bytes are freed once it is on the GPU.
      const std::shared_ptr<const std::byte> bytes = plan->whole(stop);
      return tensorrt->loadEngine({reinterpret_cast<const uint8_t*>(bytes.get()), plan->size()}, options,
                                  stop);
    };
    return;
  }
  ModelSource source;
  if (model.IsString()) {
    source = model.As<Napi::String>().Utf8Value();
  } else {
    const auto bytes = model.As<Napi::Uint8Array>();
    source = std::vector<uint8_t>(bytes.Data(), bytes.Data() + bytes.ByteLength());
  }
  ModelOptions options;
  options.threads = request.Get("threads").As<Napi::Number>().Int32Value();
  if (const Napi::Value weights = request.Get("weights"); weights.IsString()) {
    options.weights = weights.As<Napi::String>();
  }
  task_ = [runtime = runtime_, library, source = std::move(source), options](std::stop_token stop) {
    const std::shared_ptr<Runtime> onnxruntime = ort::openRuntime(library);
    runtime->name = onnxruntime->name();
    runtime->version = onnxruntime->version();
    return onnxruntime->loadModel(source, options, stop);
  };
}

LoadModel ModelLoad::task() {
  return std::exchange(task_, nullptr);
}

Napi::Object ModelLoad::toJs(Napi::Env env, const Model& model) const {
  Napi::Object runtime = Napi::Object::New(env);
  runtime["name"] = runtime_->name;
  runtime["version"] = runtime_->version;
  Napi::Object result = Napi::Object::New(env);
  result["inputs"] = node_tensorrt::toJs(env, model.inputs());
  result["outputs"] = node_tensorrt::toJs(env, model.outputs());
  result["runtime"] = runtime;
  result["profiles"] = node_tensorrt::toJs(env, model.profiles());
  return result;
}

}  // namespace node_tensorrt
