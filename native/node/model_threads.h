// The native threads of a JavaScript object that runs a model: loading the model starts them, and closing it
// ends them.
#pragma once

#include <exception>
#include <memory>
#include <utility>

#include "core/error.h"
#include "node/environment.h"
#include "node/model_load.h"
#include "node/napi_setup.h"

namespace node_tensorrt {

// Owns `Core`, which is Session (core/session.h) or DecodeLoop (core/decode_loop.h). It outlives the
// JavaScript object, which may be collected while the threads are still freeing the model. JavaScript thread
// only.
template <class Core>
class ModelThreads final : public Stoppable, public std::enable_shared_from_this<ModelThreads<Core>> {
 public:
  // Creates the object and registers it with the environment until the threads have ended.
  template <class... Arguments>
  static std::shared_ptr<ModelThreads> create(Environment& environment, Arguments&&... arguments) {
    const auto threads = std::make_shared<ModelThreads>(environment, std::forward<Arguments>(arguments)...);
    environment.add(threads);
    return threads;
  }

  template <class... Arguments>
  explicit ModelThreads(Environment& environment, Arguments&&... arguments)
      : environment_(environment), core_(std::forward<Arguments>(arguments)...) {}

  Core& core() noexcept { return core_; }
  Environment& environment() noexcept { return environment_; }
  void stop() override { core_.stop(); }

  // load(): Promise<NativeLoadedModel | undefined>. Resolves with undefined if stopLoading() came first.
  // Keeps `object` alive until then.
  Napi::Value load(Napi::Env env, Napi::Reference<Napi::Object>& object, std::unique_ptr<ModelLoad> load) {
    auto deferred = Napi::Promise::Deferred::New(env);
    LoadModel task = load->task();
    load_ = std::move(load);
    core_.start(std::move(task), [this, &object, deferred](std::exception_ptr error) {
      environment_.post([this, &object, deferred, error](Napi::Env env) {
        object.Unref();
        const std::unique_ptr<ModelLoad> load = std::move(load_);
        if (!error) return deferred.Resolve(load->toJs(env, core_.model()));
        closing_ = true;
        end();
        if (isCancelled(error)) {
          deferred.Resolve(env.Undefined());
        } else {
          deferred.Reject(environment_.toJs(env, error));
        }
      });
    });
    // It isn't too late: whatever the threads have posted waits until this thread is free.
    started_ = true;
    environment_.expect(env);
    object.Ref();
    return deferred.Promise();
  }

  // close(): Promise<void>. Resolves when the accepted work is done and the model is freed.
  Napi::Value close(Napi::Env env, Napi::Reference<Napi::Object>& object) {
    auto deferred = Napi::Promise::Deferred::New(env);
    environment_.expect(env);
    object.Ref();
    closing_ = true;
    core_.close([this, &object, deferred](std::exception_ptr) {
      environment_.post([this, &object, deferred](Napi::Env env) {
        object.Unref();
        end();
        deferred.Resolve(env.Undefined());
      });
    });
    return deferred.Promise();
  }

  // Call this when the object was collected. Nothing is pending then, because pending work refers to the
  // object. Freeing the model takes long, so a thread of its own does it, and is joined once it says that it
  // is done.
  void abandon() {
    if (!started_) environment_.remove(this->shared_from_this());
    if (!started_ || closing_) return;
    core_.close([this](std::exception_ptr) {
      environment_.notify([threads = this->shared_from_this()](Napi::Env) { threads->end(); });
    });
  }

 private:
  // Joins the threads, which have ended.
  void end() {
    core_.stop();
    environment_.remove(this->shared_from_this());
  }

  Environment& environment_;
  std::unique_ptr<ModelLoad> load_;  // set while loading
  bool started_ = false;
  bool closing_ = false;
  Core core_;  // destroyed first
};

}  // namespace node_tensorrt
