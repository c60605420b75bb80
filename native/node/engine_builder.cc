#include "node/engine_builder.h"

#include <unistd.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <stop_token>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "core/error.h"
#include "node/environment.h"
#include "node/host_buffer.h"
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
  result["plan"] = toArrayBuffer(env, built.plan, built.planBytes);
  result["warnings"] = toJs(env, built.warnings);
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
  const Napi::Value refit = object.Get("refit");
  if (refit.IsArray()) {
    const Napi::Array names = refit.As<Napi::Array>();
    for (uint32_t i = 0; i < names.Length(); ++i) {
      request.refitWeights.push_back(names.Get(i).As<Napi::String>());
    }
  } else {
    request.refit = refit.ToBoolean();
  }
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

// How long the end of an environment waits for a cancelled build, which TensorRT ends after its current step.
constexpr std::chrono::seconds kGrace{2};

// Threads that TensorRT holds beyond that.
std::atomic<int> g_held{0};

// An exit handler that comes before those of the libraries opened so far. What they destroy, a thread that is
// still held works with: the process ends here, before that.
void exitBesideHeldThreads(int status, void*) {
  if (g_held > 0) _exit(status);
}

// What a job leaves for the JavaScript thread to make its result of.
using Answer = std::function<Napi::Value(Napi::Env)>;

// A build, or another piece of work that takes long, on a thread of its own: that and, until it has ended,
// the environment own it.
class Job final : public Stoppable, public tensorrt::BuildObserver, public std::enable_shared_from_this<Job> {
 public:
  // What is done on the thread: it throws, or delivers an answer.
  using Work = std::function<void(std::stop_token stop, Job& job)>;

  Job(Napi::Env env, Napi::Value onProgress = {})
      : environment_(&Environment::of(env)),
        deferred_(Napi::Promise::Deferred::New(env)),
        reports_(onProgress.IsFunction()) {
    if (reports_) onProgress_ = Napi::Persistent(onProgress.As<Napi::Function>());
  }

  // JavaScript thread.
  Napi::Promise start(Napi::Env env, Work work) {
    environment_->add(shared_from_this());
    try {
      thread_ = std::thread([self = shared_from_this(), work = std::move(work)]() mutable {
        self->run(work);
        work = nullptr;  // what it holds of TensorRT goes while the thread counts
        if (self->held_) --g_held;
      });
    } catch (const std::system_error& error) {
      environment_->remove(shared_from_this());
      onProgress_.Reset();
      throw Error("ERR_OUT_OF_MEMORY",
                  "The system has no thread left for the build (" + error.code().message() + ").");
    }
    // What the thread has posted already waits for this one.
    environment_->expect(env);
    return deferred_.Promise();
  }

  // Any thread. TensorRT notices at the end of its current step.
  void cancel() { stop_.request_stop(); }

  // JavaScript thread: the environment ends.
  void stop() override {
    cancel();
    // A process that exits must not find a library half open: its exit handlers would run beside its opening.
    tensorrt::Library::awaitOpening();
    std::unique_lock lock(mutex_);
    const bool ended = endedCondition_.wait_for(lock, kGrace, [this] { return ended_; });
    environment_ = nullptr;
    if (!thread_.joinable()) return;
    if (ended) {
      lock.unlock();
      thread_.join();
    } else {
      // It ends by itself, unheard.
      held_ = true;
      ++g_held;
      on_exit(exitBesideHeldThreads, nullptr);
      lock.unlock();
      thread_.detach();
    }
    onProgress_.Reset();
    thrown_ = Napi::Error();
  }

  // Building threads. A slow JavaScript thread finds one event per phase, the newest, rather than a backlog.
  void progress(std::string_view phase, int step, int steps) noexcept override {
    if (!reports_) return;
    try {
      std::lock_guard lock(mutex_);
      if (environment_ == nullptr) return;
      for (Progress& waiting : progress_) {
        if (waiting.phase == phase && waiting.step <= step) {
          waiting.step = step;
          return;
        }
      }
      progress_.push_back({std::string(phase), step, steps});
      if (progress_.size() == 1) {
        environment_->notify([self = shared_from_this()](Napi::Env env) { self->report(env); });
      }
    } catch (...) {
      // Without memory for an event there is none.
    }
  }

  // The building thread.
  void built(BuildResult result) override {
    auto shared = std::make_shared<BuildResult>(std::move(result));
    deliver([shared](Napi::Env env) { return toJs(env, *shared); });
  }

  // The building thread. Settles the promise, whatever the thread still has to do.
  void deliver(Answer answer, std::exception_ptr error = nullptr) {
    std::lock_guard lock(mutex_);
    if (environment_ == nullptr) return;
    environment_->post([self = shared_from_this(), answer = std::move(answer), error](Napi::Env env) {
      self->settle(env, answer, error);
    });
  }

 private:
  struct Progress {
    std::string phase;
    int step;
    int steps;
  };

  // The building thread.
  void run(const Work& work) {
    try {
      work(stop_.get_token(), *this);
    } catch (...) {
      deliver({}, std::current_exception());
    }
    std::lock_guard lock(mutex_);
    ended_ = true;
    endedCondition_.notify_all();
    if (environment_ == nullptr) return;
    environment_->notify([self = shared_from_this()](Napi::Env) {
      self->thread_.join();
      self->environment_->remove(self);
    });
  }

  // JavaScript thread.
  void report(Napi::Env env) {
    std::vector<Progress> progress;
    {
      std::lock_guard lock(mutex_);
      progress.swap(progress_);
    }
    for (const Progress& event : progress) {
      if (!thrown_.IsEmpty() || onProgress_.IsEmpty() || stop_.stop_requested()) return;
      try {
        onProgress_.Call(
            {Napi::String::New(env, event.phase), toJs(env, event.step), toJs(env, event.steps)});
      } catch (const Napi::Error& error) {
        // What a listener throws ends the build, and is what its promise rejects with.
        thrown_ = Napi::Error(error);
        cancel();
      }
    }
  }

  // JavaScript thread.
  void settle(Napi::Env env, const Answer& answer, const std::exception_ptr& error) {
    onProgress_.Reset();
    if (!thrown_.IsEmpty()) {
      deferred_.Reject(thrown_.Value());
    } else if (isCancelled(error)) {
      deferred_.Resolve(env.Undefined());
    } else if (error) {
      deferred_.Reject(environment_->toJs(env, error));
    } else {
      deferred_.Resolve(answer(env));
    }
    thrown_ = Napi::Error();
  }

  Environment* environment_;  // null once it has ended
  const Napi::Promise::Deferred deferred_;
  Napi::FunctionReference onProgress_;  // JavaScript thread only, as is thrown_
  Napi::Error thrown_;
  const bool reports_;
  std::stop_source stop_;
  std::thread thread_;
  std::mutex mutex_;
  std::condition_variable endedCondition_;
  bool ended_ = false;
  bool held_ = false;               // by TensorRT, when the environment ended
  std::vector<Progress> progress_;  // not yet reported
};

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
        job->start(env, [library, request = readRequest(object)](std::stop_token stop, Job& build) {
          tensorrt::Library::open(library, stop)->buildPlan(request, stop, build);
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
              tensorrt::Library::open(library, stop)->parseModel(model, modelPath, device));
          job.deliver([parsed](Napi::Env env) { return toJs(env, *parsed); });
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

// probeCuda(): Promise<NativeCuda>. Where there is a GPU, CUDA takes its time to begin.
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
  exports["parseModel"] = Napi::Function::New(env, parseModel);
  exports["probeCuda"] = Napi::Function::New(env, probeCuda);
}

}  // namespace node_tensorrt
