// JavaScript class NativeSession: copies the inputs, runs the model on the session's threads and settles
// promises. lib/session/session.ts validates the arguments and documents them, so they are only asserted
// here.
#pragma once

#include <memory>
#include <unordered_map>

#include "core/session.h"
#include "node/environment.h"
#include "node/model_threads.h"
#include "node/napi_setup.h"

namespace node_tensorrt {

class InferenceSession : public Napi::ObjectWrap<InferenceSession> {
 public:
  static Napi::Function define(Napi::Env env);

  // new NativeSession({ concurrency, maxQueue })
  explicit InferenceSession(const Napi::CallbackInfo& info);
  void Finalize(Napi::BasicEnv env) override;

 private:
  // load(request: NativeLoadRequest): see ModelThreads::load()
  Napi::Value load(const Napi::CallbackInfo& info);
  void stopLoading(const Napi::CallbackInfo& info);
  // run(id, data: NativeInput[], shapes: number[][], outputIndices: number[],
  //     targets: (HostBuffer | undefined)[], targetShapes: number[][], timed: boolean, persist: boolean):
  //     Promise<NativeOutput[] | undefined>
  // If `timed` is true, the array has a property `timing`. Resolves with undefined if cancel(id) came first.
  Napi::Value run(const Napi::CallbackInfo& info);
  // Does the same on the calling thread and returns the result. It can't be cancelled.
  Napi::Value runSync(const Napi::CallbackInfo& info);
  void cancel(const Napi::CallbackInfo& info);
  // stats(): NativeSessionStats
  Napi::Value stats(const Napi::CallbackInfo& info);
  // close(): see ModelThreads::close()
  Napi::Value close(const Napi::CallbackInfo& info);

  std::shared_ptr<Run> readRun(const Napi::CallbackInfo& info);
  Tensor readTensor(Napi::Env env, Napi::Value data, Napi::Value shape, DataType type);

  std::shared_ptr<ModelThreads<Session>> threads_;
  MemoryPool pool_;  // for inputs, if the model has no memory available at once
  Location outputs_ = Location::kHost;
  std::unordered_map<uint32_t, std::shared_ptr<Run>> pending_;  // JavaScript thread only
};

}  // namespace node_tensorrt
