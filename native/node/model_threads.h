// The native threads of a JavaScript object that runs a model: how they begin, with loading it, and end.
#pragma once

#include <exception>
#include <memory>
#include <utility>

#include "core/error.h"
#include "node/environment.h"
#include "node/model_load.h"
#include "node/napi_setup.h"

namespace node_tensorrt {

// `Core` is core/session.h's Session or core/decode_loop.h's DecodeLoop. Outlives the JavaScript object,
// which may be collected while the threads still free the model. JavaScript thread only.
template <class Core>
class ModelThreads final : public Stoppable, public std::enable_shared_from_this<ModelThreads<Core>> {
 public:
  // Known to the environment, until they have ended.
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

  // load(): Promise<NativeLoadedModel | undefined>, undefined where stopLoading() came first. `object` stays
  // alive until it is settled.
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
    // This waits until everything is handled that the threads have posted already.
    started_ = true;
    environment_.expect(env);
    object.Ref();
    return deferred.Promise();
  }

  // close(): Promise<void>, resolved when what was accepted is done and the model is freed.
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

  // The object was collected: nothing is pending, as pending work holds a reference to it. Collecting garbage
  // should not wait for the model to be freed, on a thread of its own; that is joined when it says that it is
  // done.
  void abandon() {
    if (!started_) environment_.remove(this->shared_from_this());
    if (!started_ || closing_) return;
    core_.close([this](std::exception_ptr) {
      environment_.notify([threads = this->shared_from_this()](Napi::Env) { threads->end(); });
    });
  }

 private:
  // Joins threads that have ended.
  void end() {
    core_.stop();
    environment_.remove(this->shared_from_this());
  }

  Environment& environment_;
  std::unique_ptr<ModelLoad> load_;  // in progress
  bool started_ = false;
  bool closing_ = false;
  Core core_;  // the first to go
};

}  // namespace node_tensorrt
