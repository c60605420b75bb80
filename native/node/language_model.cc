#include "node/language_model.h"

#include <algorithm>
#include <cstddef>
#include <exception>
#include <memory>
#include <span>
#include <stop_token>
#include <string>
#include <utility>
#include <vector>

#include "core/error.h"
#include "node/job.h"
#include "node/model_load.h"
#include "node/native_bytes.h"

namespace node_tensorrt {
namespace {

size_t toSize(Napi::Value value) {
  return static_cast<size_t>(value.As<Napi::Number>().Int64Value());
}

std::string toText(Napi::Value utf8) {
  const auto bytes = utf8.As<Napi::Uint8Array>();
  return std::string(reinterpret_cast<const char*>(bytes.Data()), bytes.ByteLength());
}

template <class Element>
std::span<const Element> elements(Napi::Value value) {
  const auto array = value.As<Napi::TypedArrayOf<Element>>();
  return {array.Data(), array.ElementLength()};
}

DecoderInputRole toRole(const std::string& name) {
  if (name == "input_ids") return DecoderInputRole::kInputIds;
  if (name == "position_ids") return DecoderInputRole::kPositionIds;
  if (name == "attention_mask") return DecoderInputRole::kAttentionMask;
  if (name == "past_lengths") return DecoderInputRole::kPastLengths;
  if (name == "total_lengths") return DecoderInputRole::kTotalLengths;
  if (name == "last_indices") return DecoderInputRole::kLastIndices;
  if (name == "longest") return DecoderInputRole::kLongest;
  if (name == "logits_index") return DecoderInputRole::kLogitsIndex;
  throw Error("ERR_INVALID_ARG_VALUE", "There is no role '" + name + "' of a decoder's input.");
}

DecoderGraph toGraph(const Napi::Object& graph) {
  DecoderGraph result;
  result.inPlace = graph.Get("mode").As<Napi::String>().Utf8Value() == "in-place";
  const auto inputs = graph.Get("inputs").As<Napi::Object>();
  const Napi::Array names = inputs.GetPropertyNames();
  for (uint32_t i = 0; i < names.Length(); ++i) {
    const std::string name = names.Get(i).As<Napi::String>();
    result.inputs.push_back({name, toRole(inputs.Get(name).As<Napi::String>())});
  }
  const auto caches = graph.Get("caches").As<Napi::Array>();
  for (uint32_t i = 0; i < caches.Length(); ++i) {
    const auto cache = caches.Get(i).As<Napi::Object>();
    result.caches.push_back({cache.Get("input").As<Napi::String>(), cache.Get("output").As<Napi::String>(),
                             toSize(cache.Get("kvHeads")), toSize(cache.Get("headDim"))});
  }
  result.logits = graph.Get("logits").As<Napi::String>();
  if (const Napi::Value value = graph.Get("top"); value.IsObject()) {
    const auto top = value.As<Napi::Object>();
    result.top = {.logits = top.Get("logits").As<Napi::String>(),
                  .tokens = top.Get("tokens").As<Napi::String>(),
                  .logSumExp = top.Get("logSumExp").As<Napi::String>()};
  }
  return result;
}

DecodeLoopConfig toConfig(const Napi::Object& config) {
  const auto pieces = config.Get("pieces").As<Napi::Object>();
  const std::span bytes = elements<uint8_t>(pieces.Get("bytes"));
  const std::span offsets = elements<uint32_t>(pieces.Get("offsets"));
  DecodeLoopConfig result;
  result.graph = toGraph(config.Get("graph").As<Napi::Object>());
  result.rows = toSize(config.Get("rows"));
  result.maxLength = toSize(config.Get("maxLength"));
  result.chunkSize = toSize(config.Get("chunkSize"));
  result.maxQueue = toSize(config.Get("maxQueue"));
  result.prefixReuse = config.Get("prefixReuse").ToBoolean();
  result.pieces = std::make_shared<TokenPieces>(std::vector<char>(bytes.begin(), bytes.end()),
                                                std::vector<uint32_t>(offsets.begin(), offsets.end()),
                                                config.Get("stripLeadingSpace").ToBoolean());
  result.fingerprint = config.Get("fingerprint").As<Napi::String>();
  return result;
}

GenerateOptions toOptions(const Napi::Object& options) {
  const auto number = [&](const char* name) { return options.Get(name).As<Napi::Number>(); };
  GenerateOptions result;
  result.maxTokens = toSize(number("maxTokens"));
  result.minTokens = toSize(number("minTokens"));
  SamplingOptions& sampling = result.sampling;
  sampling.temperature = number("temperature");
  sampling.topK = number("topK");
  sampling.topP = number("topP");
  sampling.minP = number("minP");
  sampling.repetitionPenalty = number("repetitionPenalty");
  sampling.presencePenalty = number("presencePenalty");
  sampling.frequencyPenalty = number("frequencyPenalty");
  bool lossless = false;
  sampling.seed = options.Get("seed").As<Napi::BigInt>().Uint64Value(&lossless);
  const std::span biased = elements<int32_t>(options.Get("biasTokens"));
  const std::span biases = elements<float>(options.Get("biases"));
  for (size_t i = 0; i < biased.size(); ++i) sampling.logitBias.emplace_back(biased[i], biases[i]);
  sampling.logprobs = number("logprobs");
  const auto stop = options.Get("stop").As<Napi::Array>();
  for (uint32_t i = 0; i < stop.Length(); ++i) result.stop.push_back(toText(stop.Get(i)));
  const std::span stopTokens = elements<int32_t>(options.Get("stopTokens"));
  result.stopTokens.assign(stopTokens.begin(), stopTokens.end());
  result.cacheSalt = options.Get("cacheSalt").As<Napi::String>();
  result.priority = number("priority");
  result.stream = options.Get("stream").ToBoolean();
  return result;
}

void setLogprob(Napi::Object& token, const SampledToken& sampled) {
  const Napi::Env env = token.Env();
  token["logprob"] = Napi::Number::New(env, sampled.logprob);
  Napi::Array top = Napi::Array::New(env, sampled.top.size());
  for (uint32_t i = 0; i < sampled.top.size(); ++i) {
    Napi::Object entry = Napi::Object::New(env);
    entry["token"] = Napi::Number::New(env, sampled.top[i].token);
    entry["logprob"] = Napi::Number::New(env, sampled.top[i].logprob);
    top[i] = entry;
  }
  token["top"] = top;
}

// Creates the tokens of a stream, each with its text.
Napi::Array chunksToJs(Napi::Env env, std::span<const GeneratedToken> tokens, bool withLogprobs) {
  Napi::Array result = Napi::Array::New(env, tokens.size());
  for (uint32_t i = 0; i < tokens.size(); ++i) {
    Napi::Object chunk = Napi::Object::New(env);
    chunk["token"] = Napi::Number::New(env, tokens[i].sampled.token);
    chunk["text"] = Napi::String::New(env, tokens[i].text);
    if (withLogprobs) setLogprob(chunk, tokens[i].sampled);
    result[i] = chunk;
  }
  return result;
}

// Sets the answer of a request that doesn't stream. Its text comes with the end.
void setAnswer(Napi::Object& event, std::span<const GeneratedToken> tokens, bool withLogprobs) {
  const Napi::Env env = event.Env();
  Napi::Int32Array numbers = Napi::Int32Array::New(env, tokens.size());
  std::transform(tokens.begin(), tokens.end(), numbers.Data(),
                 [](const GeneratedToken& token) { return token.sampled.token; });
  event["tokens"] = numbers;
  if (!withLogprobs) return;
  Napi::Array logprobs = Napi::Array::New(env, tokens.size());
  for (uint32_t i = 0; i < tokens.size(); ++i) {
    Napi::Object chosen = Napi::Object::New(env);
    chosen["token"] = Napi::Number::New(env, tokens[i].sampled.token);
    setLogprob(chosen, tokens[i].sampled);
    logprobs[i] = chosen;
  }
  event["logprobs"] = logprobs;
}

const char* toText(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kCancelled:
      return "cancelled";
    case FinishReason::kFailed:
      return "failed";
  }
  return "";
}

}  // namespace

Napi::Function LanguageModel::define(Napi::Env env) {
  return DefineClass(
      env, "NativeLanguageModel",
      {InstanceMethod<&LanguageModel::load>("load"),
       InstanceMethod<&LanguageModel::stopLoading>("stopLoading"),
       InstanceMethod<&LanguageModel::generate>("generate"), InstanceMethod<&LanguageModel::cancel>("cancel"),
       InstanceMethod<&LanguageModel::createSequence>("createSequence"),
       InstanceMethod<&LanguageModel::fork>("fork"), InstanceMethod<&LanguageModel::truncate>("truncate"),
       InstanceMethod<&LanguageModel::sequenceTokens>("sequenceTokens"),
       InstanceMethod<&LanguageModel::sequenceLength>("sequenceLength"),
       InstanceMethod<&LanguageModel::saveSequence>("saveSequence"),
       InstanceMethod<&LanguageModel::restoreSequence>("restoreSequence"),
       InstanceMethod<&LanguageModel::disposeSequence>("disposeSequence"),
       InstanceMethod<&LanguageModel::clear>("clear"), InstanceMethod<&LanguageModel::stats>("stats"),
       InstanceMethod<&LanguageModel::deviceStats>("deviceStats"),
       InstanceMethod<&LanguageModel::close>("close")});
}

LanguageModel::LanguageModel(const Napi::CallbackInfo& info) : ObjectWrap(info) {
  guarded(info.Env(), [&] {
    DecodeLoopConfig config = toConfig(info[0].As<Napi::Object>());
    rows_ = config.rows;
    thread_ = ModelThreads<DecodeLoop>::create(Environment::of(info.Env()), std::move(config),
                                               [this](std::list<GenerationEvent>& events) { post(events); });
    // Stored as a property: a strong reference would keep alive whatever the function refers to, including
    // this object.
    info.This().As<Napi::Object>()["onEvents"] = info[1];
  });
}

void LanguageModel::Finalize(Napi::BasicEnv) {
  thread_->abandon();
}

Napi::Value LanguageModel::load(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    auto load = std::make_unique<ModelLoad>(info[0].As<Napi::Object>());
    return thread_->load(info.Env(), *this, std::move(load));
  });
}

void LanguageModel::stopLoading(const Napi::CallbackInfo&) {
  thread_->core().stopLoading();
}

void LanguageModel::generate(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  guarded(env, [&] {
    const uint32_t id = info[0].As<Napi::Number>();
    GenerateOptions options = toOptions(info[3].As<Napi::Object>());
    const Pending pending{.stream = options.stream, .withLogprobs = options.sampling.logprobs >= 0};
    thread_->core().generate(id, info[1].As<Napi::Number>(), elements<int32_t>(info[2]), std::move(options));
    pending_.emplace(id, pending);
    Environment::of(env).expect(env);
    Ref();
  });
}

void LanguageModel::cancel(const Napi::CallbackInfo& info) {
  thread_->core().cancel(info[0].As<Napi::Number>());
}

void LanguageModel::post(std::list<GenerationEvent>& events) {
  std::lock_guard lock(mutex_);
  // Done first, because if it throws, the events have not been taken.
  if (events_.empty()) thread_->environment().notify([this](Napi::Env env) { deliver(env); });
  events_.splice(events_.end(), events);
}

void LanguageModel::deliver(Napi::Env env) {
  std::list<GenerationEvent> events;
  {
    std::lock_guard lock(mutex_);
    events.swap(events_);
  }
  const Napi::Object self = Value();
  Napi::Array array = Napi::Array::New(env, events.size());
  uint32_t i = 0;
  for (const GenerationEvent& event : events) {
    array[i++] = toJs(env, event);
    if (!event.end) continue;
    pending_.erase(event.id);
    Unref();
    Environment::of(env).answer(env);
  }
  self.Get("onEvents").As<Napi::Function>().Call(self, {array});
}

Napi::Object LanguageModel::toJs(Napi::Env env, const GenerationEvent& event) {
  Napi::Object result = Napi::Object::New(env);
  result["id"] = Napi::Number::New(env, event.id);
  const auto [stream, withLogprobs] = pending_.at(event.id);
  std::string text;
  if (stream) {
    result["chunks"] = chunksToJs(env, event.tokens, withLogprobs);
  } else {
    setAnswer(result, event.tokens, withLogprobs);
    for (const GeneratedToken& token : event.tokens) text += token.text;
  }
  if (!event.end) return result;
  const GenerationEnd& end = *event.end;
  text += end.text;
  const auto numbers = [&](std::initializer_list<std::pair<const char*, double>> values) {
    Napi::Object object = Napi::Object::New(env);
    for (const auto& [name, value] : values) object[name] = Napi::Number::New(env, value);
    return object;
  };
  result["finished"] = Napi::String::New(env, toText(end.reason));
  result["text"] = Napi::String::New(env, text);
  if (end.error) result["error"] = Environment::of(env).toJs(env, end.error);
  result["usage"] = numbers({{"promptTokens", static_cast<double>(end.promptTokens)},
                             {"cachedTokens", static_cast<double>(end.cachedTokens)},
                             {"completionTokens", static_cast<double>(end.completionTokens)}});
  result["timing"] =
      numbers({{"queueMs", end.queueMs}, {"firstTokenMs", end.firstTokenMs}, {"totalMs", end.totalMs}});
  return result;
}

Napi::Value LanguageModel::createSequence(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] { return Napi::Number::New(info.Env(), thread_->core().createSequence()); });
}

Napi::Value LanguageModel::promise(Napi::Env env, const std::function<void(Settle)>& begin) {
  auto deferred = Napi::Promise::Deferred::New(env);
  Environment& environment = Environment::of(env);
  try {
    begin([this, deferred, &environment](std::exception_ptr error, Result result) {
      environment.post([this, deferred, error, result = std::move(result)](Napi::Env env) {
        Unref();
        if (error) {
          deferred.Reject(Environment::of(env).toJs(env, error));
        } else {
          deferred.Resolve(result(env));
        }
      });
    });
  } catch (const Napi::Error&) {
    throw;
  } catch (...) {
    deferred.Reject(environment.toJs(env, std::current_exception()));
    return deferred.Promise();
  }
  environment.expect(env);
  Ref();
  return deferred.Promise();
}

Napi::Value LanguageModel::fork(const Napi::CallbackInfo& info) {
  return promise(info.Env(), [&](Settle settle) {
    const auto id = std::make_shared<uint32_t>();
    *id = thread_->core().fork(info[0].As<Napi::Number>(), [settle, id](std::exception_ptr error) {
      settle(error, [id](Napi::Env env) { return Napi::Number::New(env, *id); });
    });
  });
}

void LanguageModel::truncate(const Napi::CallbackInfo& info) {
  guarded(info.Env(), [&] { thread_->core().truncate(info[0].As<Napi::Number>(), toSize(info[1])); });
}

Napi::Value LanguageModel::sequenceTokens(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    const std::vector<int32_t> tokens = thread_->core().sequenceTokens(info[0].As<Napi::Number>());
    Napi::Int32Array result = Napi::Int32Array::New(info.Env(), tokens.size());
    std::copy(tokens.begin(), tokens.end(), result.Data());
    return result;
  });
}

Napi::Value LanguageModel::sequenceLength(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    const size_t length = thread_->core().sequenceLength(info[0].As<Napi::Number>());
    return Napi::Number::New(info.Env(), static_cast<double>(length));
  });
}

Napi::Value LanguageModel::saveSequence(const Napi::CallbackInfo& info) {
  return promise(info.Env(), [&](Settle settle) {
    thread_->core().save(info[0].As<Napi::Number>(), [settle](EncodedState state, std::exception_ptr error) {
      settle(error, [state](Napi::Env env) {
        return NativeBytes::make(env, std::make_shared<MemoryBytes>(state.data, state.byteLength));
      });
    });
  });
}

Napi::Value LanguageModel::restore(Napi::Env env, std::vector<std::byte> state) {
  return promise(env, [&](Settle settle) {
    const auto id = std::make_shared<uint32_t>();
    *id = thread_->core().restore(std::move(state), [settle, id](std::exception_ptr error) {
      settle(error, [id](Napi::Env env) { return Napi::Number::New(env, *id); });
    });
  });
}

Napi::Value LanguageModel::restoreSequence(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const std::shared_ptr<const ByteSource> bytes = NativeBytes::from(info[0]);
    if (!bytes) {
      const auto given = std::as_bytes(elements<uint8_t>(info[0]));
      return restore(info.Env(), {given.begin(), given.end()});
    }
    // The state is read on a thread of its own, because the model's thread has other answers to generate
    // meanwhile.
    const Napi::Value read = std::make_shared<Job>(info.Env())
                                 ->start(info.Env(), [this, bytes](const std::stop_token& stop, Job& job) {
                                   auto state = std::make_shared<std::vector<std::byte>>();
                                   std::exception_ptr error;
                                   try {
                                     state->reserve(bytes->size());
                                     bytes->forEachPiece(stop, [&state](std::span<const std::byte> piece) {
                                       state->insert(state->end(), piece.begin(), piece.end());
                                     });
                                   } catch (...) {
                                     error = std::current_exception();
                                   }
                                   job.deliver([this, state, error](Napi::Env env) {
                                     Unref();
                                     return guarded(env, [&] {
                                       if (error) std::rethrow_exception(error);
                                       return restore(env, std::move(*state));
                                     });
                                   });
                                 });
    Ref();
    return read;
  });
}

void LanguageModel::disposeSequence(const Napi::CallbackInfo& info) {
  guarded(info.Env(), [&] { thread_->core().disposeSequence(info[0].As<Napi::Number>()); });
}

void LanguageModel::clear(const Napi::CallbackInfo& info) {
  guarded(info.Env(), [&] { thread_->core().clear(); });
}

Napi::Value LanguageModel::stats(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  const DecodeLoopStats stats = thread_->core().stats();
  Napi::Object result = Napi::Object::New(env);
  const auto set = [&](const char* name, auto value) {
    result[name] = Napi::Number::New(env, static_cast<double>(value));
  };
  set("rows", rows_);
  set("rowsUsed", stats.rowsUsed);
  set("bytesReserved", stats.bytesReserved);
  set("bytesUsed", stats.bytesUsed);
  set("hits", stats.hits);
  set("cachedTokens", stats.cachedTokens);
  set("waiting", stats.waiting);
  set("active", stats.active);
  set("completed", stats.completed);
  set("failed", stats.failed);
  set("cancelled", stats.cancelled);
  set("decodeSteps", stats.decodeSteps);
  set("decodedRows", stats.decodedRows);
  set("prefillSteps", stats.prefillSteps);
  set("prefilledTokens", stats.prefilledTokens);
  return result;
}

Napi::Value LanguageModel::deviceStats(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  return guarded(env, [&]() -> Napi::Value {
    const std::optional<DeviceStats> stats = thread_->core().deviceStats();
    return stats ? deviceStatsToJs(env, *stats) : env.Undefined();
  });
}

Napi::Value LanguageModel::close(const Napi::CallbackInfo& info) {
  return thread_->close(info.Env(), *this);
}

}  // namespace node_tensorrt
