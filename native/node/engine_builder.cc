#include "node/engine_builder.h"

#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <utility>
#include <vector>

#include "core/error.h"
#include "node/environment.h"
#include "node/host_buffer.h"
#include "node/job.h"
#include "node/native_bytes.h"
#include "runtime/cuda/driver.h"
#include "runtime/tensorrt/tensorrt.h"

namespace node_tensorrt {
namespace {

using tensorrt::BuildRequest;
using tensorrt::BuildResult;
using tensorrt::ParseResult;

Napi::Number toJs(Napi::Env env, double value) {
  return Napi::Number::New(env, value);
}

Napi::Array toJs(Napi::Env env, const std::vector<std::string>& strings) {
  Napi::Array result = Napi::Array::New(env, strings.size());
  for (size_t i = 0; i < strings.size(); ++i) result[i] = Napi::String::New(env, strings[i]);
  return result;
}

Napi::Array toJs(Napi::Env env, const std::vector<tensorrt::TensorDescription>& tensors) {
  Napi::Array result = Napi::Array::New(env, tensors.size());
  for (size_t i = 0; i < tensors.size(); ++i) {
    Napi::HandleScope scope(env);
    const Shape& shape = tensors[i].shape;
    Napi::Array dims = Napi::Array::New(env, shape.size());
    for (size_t d = 0; d < shape.size(); ++d) dims[d] = toJs(env, static_cast<double>(shape[d]));
    Napi::Object tensor = Napi::Object::New(env);
    tensor["name"] = Napi::String::New(env, tensors[i].name);
    tensor["type"] = toJs(env, static_cast<int>(tensors[i].type));
    tensor["dims"] = dims;
    result[i] = tensor;
  }
  return result;
}

// Adds `inputs`, `outputs` and `layers` to `result`.
void describe(Napi::Env env, const tensorrt::NetworkDescription& network, Napi::Object result) {
  Napi::Array layers = Napi::Array::New(env, network.layers.size());
  for (size_t i = 0; i < network.layers.size(); ++i) {
    Napi::HandleScope scope(env);
    Napi::Object layer = Napi::Object::New(env);
    layer["name"] = Napi::String::New(env, network.layers[i].name);
    layer["type"] = Napi::String::New(env, network.layers[i].type);
    layer["inputs"] = toJs(env, network.layers[i].inputs);
    layer["outputs"] = toJs(env, network.layers[i].outputs);
    layers[i] = layer;
  }
  result["inputs"] = toJs(env, network.inputs);
  result["outputs"] = toJs(env, network.outputs);
  result["layers"] = layers;
}

Napi::Object toJs(Napi::Env env, const BuildResult& built) {
  Napi::Object result = Napi::Object::New(env);
  describe(env, built.network, result);
  result["plan"] = NativeBytes::make(env, std::make_shared<MemoryBytes>(built.plan, built.planBytes));
  result["warnings"] = toJs(env, built.warnings);
  result["sparsity"] = toJs(env, built.sparsity);
  if (built.timingCache) {
    Napi::Object timingCache = Napi::Object::New(env);
    timingCache["bytes"] = toArrayBuffer(env, built.timingCache, built.timingCacheBytes);
    timingCache["release"] = Napi::Function::New(
        env, [lock = built.timingCacheLock](const Napi::CallbackInfo&) { lock->release(); });
    result["timingCache"] = timingCache;
  }
  return result;
}

Napi::Object toJs(Napi::Env env, const ParseResult& parsed) {
  Napi::Array errors = Napi::Array::New(env, parsed.errors.size());
  for (size_t i = 0; i < parsed.errors.size(); ++i) {
    Napi::HandleScope scope(env);
    Napi::Object error = Napi::Object::New(env);
    error["node"] = toJs(env, parsed.errors[i].node);
    error["name"] = Napi::String::New(env, parsed.errors[i].name);
    error["op"] = Napi::String::New(env, parsed.errors[i].op);
    error["reason"] = Napi::String::New(env, parsed.errors[i].reason);
    errors[i] = error;
  }
  Napi::Object result = Napi::Object::New(env);
  describe(env, parsed.network, result);
  result["errors"] = errors;
  return result;
}

Shape readShape(Napi::Value value) {
  const Napi::Array sizes = value.As<Napi::Array>();
  Shape shape;
  for (uint32_t i = 0; i < sizes.Length(); ++i) {
    shape.push_back(sizes.Get(i).As<Napi::Number>().Int64Value());
  }
  return shape;
}

std::optional<int> readDevice(const Napi::Object& request) {
  const Napi::Value device = request.Get("device");
  return device.IsNumber() ? std::optional(device.As<Napi::Number>().Int32Value()) : std::nullopt;
}

BuildRequest readRequest(const Napi::Object& object) {
  BuildRequest request;
  request.model = object.Get("model").As<Napi::String>();
  request.modelPath = object.Get("modelPath").As<Napi::String>();
  const Napi::Array profiles = object.Get("profiles").As<Napi::Array>();
  for (uint32_t p = 0; p < profiles.Length(); ++p) {
    const Napi::Object ranges = profiles.Get(p).As<Napi::Object>();
    const Napi::Array inputs = ranges.GetPropertyNames();
    Profile& profile = request.profiles.emplace_back();
    for (uint32_t i = 0; i < inputs.Length(); ++i) {
      const Napi::Value input = inputs.Get(i);
      const Napi::Object range = ranges.Get(input).As<Napi::Object>();
      profile.push_back({input.As<Napi::String>(), readShape(range.Get("min")), readShape(range.Get("opt")),
                         readShape(range.Get("max"))});
    }
  }
  const Napi::Array targets = object.Get("computeCapabilities").As<Napi::Array>();
  for (uint32_t i = 0; i < targets.Length(); ++i) {
    request.computeCapabilities.push_back(targets.Get(i).As<Napi::Number>().Int32Value());
  }
  request.device = readDevice(object);
  request.sparsity = object.Get("sparsity").ToBoolean();
  request.tf32 = object.Get("tf32").ToBoolean();
  const Napi::Value refit = object.Get("refit");
  if (refit.IsArray()) {
    const Napi::Array names = refit.As<Napi::Array>();
    for (uint32_t i = 0; i < names.Length(); ++i) {
      request.refitWeights.push_back(names.Get(i).As<Napi::String>());
    }
  } else {
    request.refit = refit.ToBoolean();
  }
  request.detailed = object.Get("detailed").ToBoolean();
  const Napi::Value timingCache = object.Get("timingCache");
  if (timingCache.IsString()) request.timingCache = timingCache.As<Napi::String>();
  const Napi::Value level = object.Get("optimizationLevel");
  if (level.IsNumber()) request.optimizationLevel = level.As<Napi::Number>().Int32Value();
  const Napi::Value workspace = object.Get("workspace");
  if (workspace.IsNumber()) {
    request.workspace = static_cast<size_t>(workspace.As<Napi::Number>().Int64Value());
  }
  return request;
}

Napi::Object toJs(Napi::Env env, const tensorrt::Capabilities& capabilities) {
  Napi::Object result = Napi::Object::New(env);
  result["aheadOfTime"] = Napi::Boolean::New(env, capabilities.aheadOfTime);
  result["timingCache"] = Napi::Boolean::New(env, capabilities.timingCache);
  result["kvCache"] = Napi::Boolean::New(env, capabilities.kvCache);
  result["keyValueLengths"] = Napi::Boolean::New(env, capabilities.keyValueLengths);
  result["runtimeCache"] = Napi::Boolean::New(env, capabilities.runtimeCache);
  result["engineValidity"] = Napi::Boolean::New(env, capabilities.engineValidity);
  result["streamCapturable"] = Napi::Boolean::New(env, capabilities.streamCapturable);
  result["engineStatistics"] = Napi::Boolean::New(env, capabilities.engineStatistics);
  return result;
}

// openTensorRT(library): Promise<{ flavour, version, path, capabilities }>
Napi::Value openTensorRT(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  return guarded(env, [&]() -> Napi::Value {
    const std::string path = info[0].As<Napi::String>();
    return std::make_shared<Job>(env)->start(env, [path](const std::stop_token& stop, Job& job) {
      const auto library = tensorrt::Library::open(path, stop);
      job.deliver([library](Napi::Env env) {
        Napi::Object result = Napi::Object::New(env);
        result["flavour"] = Napi::String::New(env, toString(library->flavour()));
        result["version"] = Napi::String::New(env, library->version());
        result["path"] = Napi::String::New(env, library->path());
        result["capabilities"] = toJs(env, library->capabilities());
        return result;
      });
    });
  });
}

// Passes a build's progress and result on to its job.
class BuildTeller final : public tensorrt::BuildObserver {
 public:
  explicit BuildTeller(Job& job) : job_(job) {}

  void progress(std::string_view phase, int step, int steps) noexcept override {
    job_.progress(phase, step, steps);
  }
  void built(BuildResult result) override {
    auto shared = std::make_shared<BuildResult>(std::move(result));
    job_.deliver([shared](Napi::Env env) { return toJs(env, *shared); });
  }

 private:
  Job& job_;
};

// buildPlan(request, onProgress?): { result: Promise<NativeBuildResult | undefined>, cancel() }
Napi::Value buildPlan(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  return guarded(env, [&]() -> Napi::Value {
    const Napi::Object object = info[0].As<Napi::Object>();
    const std::string library = object.Get("library").As<Napi::String>();
    auto job = std::make_shared<Job>(env, info[1]);
    Napi::Object result = Napi::Object::New(env);
    result["cancel"] = Napi::Function::New(env, [job](const Napi::CallbackInfo&) { job->cancel(); });
    result["result"] =
        job->start(env, [library, request = readRequest(object)](std::stop_token stop, Job& running) {
          BuildTeller teller(running);
          tensorrt::Library::open(library, stop)->buildPlan(request, stop, teller);
        });
    return result;
  });
}

// parseModel({ library, model, modelPath, device? }): Promise<NativeParseResult>
Napi::Value parseModel(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  return guarded(env, [&]() -> Napi::Value {
    const Napi::Object object = info[0].As<Napi::Object>();
    const std::string library = object.Get("library").As<Napi::String>();
    const std::string model = object.Get("model").As<Napi::String>();
    const std::string modelPath = object.Get("modelPath").As<Napi::String>();
    const std::optional<int> device = readDevice(object);
    return std::make_shared<Job>(env)->start(
        env, [library, model, modelPath, device](const std::stop_token& stop, Job& job) {
          auto parsed = std::make_shared<ParseResult>(
              tensorrt::Library::open(library, stop)->parseModel(model, modelPath, device, stop));
          job.deliver([parsed](Napi::Env env) { return toJs(env, *parsed); });
        });
  });
}

// inspectPlan({ library, plan, device }): Promise<NativePlan>
Napi::Value inspectPlan(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  return guarded(env, [&]() -> Napi::Value {
    const Napi::Object object = info[0].As<Napi::Object>();
    const Napi::Uint8Array bytes = object.Get("plan").As<Napi::Uint8Array>();
    const std::vector<uint8_t> plan(bytes.Data(), bytes.Data() + bytes.ByteLength());
    tensorrt::EngineOptions options;
    options.device = readDevice(object).value();
    const std::string library = object.Get("library").As<Napi::String>();
    return std::make_shared<Job>(env)->start(
        env, [library, plan, options](const std::stop_token& stop, Job& job) {
          const tensorrt::PlanDescription found =
              tensorrt::Library::open(library, stop)->inspectPlan(plan, options);
          job.deliver([found](Napi::Env env) {
            Napi::Object aliases = Napi::Object::New(env);
            for (const auto& [output, input] : found.aliases) aliases[output] = Napi::String::New(env, input);
            Napi::Object result = Napi::Object::New(env);
            result["information"] = Napi::String::New(env, found.information);
            result["aliases"] = aliases;
            return result;
          });
        });
  });
}

Napi::Object toJs(Napi::Env env, const cuda::Report& report) {
  Napi::Array gpus = Napi::Array::New(env, report.gpus.size());
  for (size_t i = 0; i < report.gpus.size(); ++i) {
    const cuda::Gpu& found = report.gpus[i];
    Napi::Array computeCapability = Napi::Array::New(env, 2);
    computeCapability[0u] = toJs(env, found.major);
    computeCapability[1u] = toJs(env, found.minor);
    Napi::Object gpu = Napi::Object::New(env);
    gpu["name"] = Napi::String::New(env, found.name);
    gpu["computeCapability"] = computeCapability;
    gpu["memory"] = toJs(env, static_cast<double>(found.memory));
    gpu["uuid"] = Napi::String::New(env, found.uuid);
    gpu["pciBusId"] = Napi::String::New(env, found.pciBusId);
    gpus[i] = gpu;
  }
  Napi::Object result = Napi::Object::New(env);
  result["library"] = Napi::String::New(env, report.library);
  result["driver"] = Napi::String::New(env, report.driver);
  result["cudaVersion"] = Napi::String::New(env, report.cudaVersion);
  if (!report.error.empty()) result["error"] = Napi::String::New(env, report.error);
  result["gpus"] = gpus;
  return result;
}

// probeCuda(): Promise<NativeCuda>. If there is a GPU, initializing CUDA takes a while.
Napi::Value probeCuda(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  return guarded(env, [&]() -> Napi::Value {
    return std::make_shared<Job>(env)->start(env, [](const std::stop_token&, Job& job) {
      auto report = std::make_shared<cuda::Report>(cuda::probe());
      job.deliver([report](Napi::Env env) { return toJs(env, *report); });
    });
  });
}

}  // namespace

void defineEngineBuilder(Napi::Env env, Napi::Object exports) {
  exports["openTensorRT"] = Napi::Function::New(env, openTensorRT);
  exports["buildPlan"] = Napi::Function::New(env, buildPlan);
  exports["inspectPlan"] = Napi::Function::New(env, inspectPlan);
  exports["parseModel"] = Napi::Function::New(env, parseModel);
  exports["probeCuda"] = Napi::Function::New(env, probeCuda);
}

}  // namespace node_tensorrt
