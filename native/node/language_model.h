// JavaScript class NativeLanguageModel: passes requests to the model's decode loop, and the loop's events to
// JavaScript. lib/generation/language-model.ts validates the arguments and documents them, so they are only
// asserted here.
#pragma once

#include <cstdint>
#include <exception>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "core/decode_loop.h"
#include "node/environment.h"
#include "node/model_threads.h"
#include "node/napi_setup.h"

namespace node_tensorrt {

class LanguageModel : public Napi::ObjectWrap<LanguageModel> {
 public:
  static Napi::Function define(Napi::Env env);

  // new NativeLanguageModel(config: NativeLanguageModelConfig, onEvents: (events) => void)
  explicit LanguageModel(const Napi::CallbackInfo& info);
  void Finalize(Napi::BasicEnv env) override;

 private:
  // What a request wants to receive.
  struct Pending {
    bool stream;
    bool withLogprobs;
  };
  // The methods of NativeLanguageModel in lib/system/native/language-model.ts.
  Napi::Value load(const Napi::CallbackInfo& info);
  void stopLoading(const Napi::CallbackInfo& info);
  void generate(const Napi::CallbackInfo& info);
  void cancel(const Napi::CallbackInfo& info);
  Napi::Value createSequence(const Napi::CallbackInfo& info);
  Napi::Value fork(const Napi::CallbackInfo& info);
  void truncate(const Napi::CallbackInfo& info);
  Napi::Value sequenceTokens(const Napi::CallbackInfo& info);
  Napi::Value sequenceLength(const Napi::CallbackInfo& info);
  Napi::Value saveSequence(const Napi::CallbackInfo& info);
  Napi::Value restoreSequence(const Napi::CallbackInfo& info);
  Napi::Value restore(Napi::Env env, std::vector<std::byte> state);
  void disposeSequence(const Napi::CallbackInfo& info);
  void clear(const Napi::CallbackInfo& info);
  Napi::Value stats(const Napi::CallbackInfo& info);
  Napi::Value deviceStats(const Napi::CallbackInfo& info);
  Napi::Value close(const Napi::CallbackInfo& info);

  // The loop's thread. Wakes JavaScript, unless it was already woken for earlier events.
  void post(std::list<GenerationEvent>& events);
  void deliver(Napi::Env env);
  Napi::Object toJs(Napi::Env env, const GenerationEvent& event);

  // Returns a promise. `begin` starts the work and passes the result to its argument, on any thread.
  using Result = std::function<Napi::Value(Napi::Env)>;
  using Settle = std::function<void(std::exception_ptr error, Result result)>;
  Napi::Value promise(Napi::Env env, const std::function<void(Settle)>& begin);

  std::shared_ptr<ModelThreads<DecodeLoop>> thread_;
  std::mutex mutex_;
  std::list<GenerationEvent> events_;  // to be delivered to JavaScript; guarded by mutex_
  size_t rows_;
  std::unordered_map<uint32_t, Pending> pending_;  // requests that haven't ended
};

}  // namespace node_tensorrt
