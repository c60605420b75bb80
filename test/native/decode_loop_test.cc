// Tests DecodeLoop with the real ONNX Runtime and graphs from exporters. NODE_TENSORRT_ONNXRUNTIME names its
// library; without it, the tests are skipped. The expected tokens are PyTorch's, in test/fixtures/decoders.
#include "core/decode_loop.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <future>
#include <list>
#include <map>
#include <new>
#include <random>
#include <sstream>

#include "core/error.h"
#include "runtime/onnxruntime/onnxruntime.h"

namespace {

// How many more allocations of this thread succeed before one fails, while failureWanted is true. Negative:
// none fails.
thread_local int untilFailure = -1;
std::atomic<bool> failureWanted = false;
// If failuresLast is true, all later allocations fail too, until the loop has reported the failure to
// someone.
thread_local bool memoryIsOut = false;
std::atomic<bool> failuresLast = false;

bool fails() {
  if (memoryIsOut) return true;
  if (untilFailure < 0 || untilFailure-- > 0 || !failureWanted.exchange(false)) return false;
  memoryIsOut = failuresLast;
  return true;
}

}  // namespace

// Not inlined: compilers that see into these functions warn that each doesn't match the other.
[[gnu::noinline]] void* operator new(size_t bytes) {
  if (fails()) throw std::bad_alloc();
  void* block = std::malloc(bytes > 0 ? bytes : 1);
  if (block == nullptr) throw std::bad_alloc();
  return block;
}
[[gnu::noinline]] void* operator new(size_t bytes, const std::nothrow_t&) noexcept {
  return std::malloc(bytes > 0 ? bytes : 1);
}
[[gnu::noinline]] void operator delete(void* block) noexcept {
  std::free(block);
}
[[gnu::noinline]] void operator delete(void* block, size_t) noexcept {
  std::free(block);
}

namespace node_tensorrt {
namespace {

// While this object lives, no allocation fails.
class Spared {
 public:
  Spared() : left_(std::exchange(untilFailure, -1)), out_(std::exchange(memoryIsOut, false)) {}
  ~Spared() {
    untilFailure = left_;
    memoryIsOut = out_;
  }

 private:
  const int left_;
  const bool out_;
};

// How many allocations succeed after the model's next run.
std::atomic<int> afterNextRun = -1;

// How many more runs of the model give valid logits before one gives NaN. Negative: none does.
std::atomic<int> untilNaN = -1;

// Called once, during the run that gives NaN or, if none does, during the next run.
std::function<void()> meanwhile;

class FailingContext final : public ExecutionContext {
 public:
  explicit FailingContext(std::unique_ptr<ExecutionContext> context) : context_(std::move(context)) {}
  void execute(std::span<const Tensor> inputs, std::span<const size_t> outputIndices,
               std::span<Tensor> outputs) override {
    {
      const Spared spared;
      std::vector<Tensor> before(outputs.begin(), outputs.end());
      context_->execute(inputs, outputIndices, outputs);
      const bool isNaN = untilNaN >= 0 && untilNaN-- == 0;
      if (meanwhile && untilNaN < 0) std::exchange(meanwhile, nullptr)();
      if (isNaN) {
        // The last output is the logits; the others are the caches.
        std::fill_n(static_cast<float*>(outputs.back().data.get()), outputs.back().byteLength / sizeof(float),
                    NAN);
      }
      for (size_t i = 0; i < outputs.size(); ++i) {
        if (before[i].data) continue;
        // ONNX Runtime allocates in order to free an output, and crashes if that fails.
        void* data = outputs[i].data.get();
        outputs[i].data = {data, [kept = outputs[i].data](void*) mutable {
                             const Spared spared;
                             kept.reset();
                           }};
      }
    }
    if (const int next = afterNextRun.exchange(-1); next >= 0) untilFailure = next;
  }
  void cancel() noexcept override { context_->cancel(); }
  void reset() override { context_->reset(); }

 private:
  const std::unique_ptr<ExecutionContext> context_;
};

class FailingModel final : public Model {
 public:
  FailingModel(std::unique_ptr<Model> model, bool preparesShapes)
      : model_(std::move(model)), preparesShapes_(preparesShapes) {}
  const std::vector<TensorInfo>& inputs() const noexcept override { return model_->inputs(); }
  const std::vector<TensorInfo>& outputs() const noexcept override { return model_->outputs(); }
  std::unique_ptr<ExecutionContext> createContext() override {
    return std::make_unique<FailingContext>(model_->createContext());
  }
  bool preparesShapes() const override { return preparesShapes_; }
  std::shared_ptr<MemoryPool> inputMemory() const override { return model_->inputMemory(); }
  std::shared_ptr<TensorMemory> tensorMemory() const override { return model_->tensorMemory(); }

 private:
  const std::unique_ptr<Model> model_;
  const bool preparesShapes_;
};

using Tokens = std::vector<int32_t>;

struct Case {
  Tokens prompt;
  Tokens greedy;
};

// Reads the prompts and answers of an expected.json.
std::vector<Case> cases(const std::string& weights) {
  std::ifstream file(std::string(NODE_TENSORRT_FIXTURES) + "/decoders/" + weights + "/expected.json");
  std::stringstream content;
  content << file.rdbuf();
  const std::string text = content.str();
  const auto numbers = [&](size_t at) {
    Tokens result;
    for (std::istringstream list(text.substr(at, text.find(']', at) - at)); list;) {
      int32_t number = 0;
      if (list >> number) result.push_back(number);
      list.ignore();
    }
    return result;
  };
  std::vector<Case> result;
  for (size_t at = 0; (at = text.find("\"prompt\":[", at)) != std::string::npos; ++at) {
    const size_t greedy = text.find("\"greedy\":[", at);
    result.push_back({numbers(at + 10), numbers(greedy + 10)});
  }
  return result;
}

// The caches of two layers, which all fixtures have.
DecoderGraph twoLayers(bool inPlace, size_t kvHeads, size_t headDim,
                       std::vector<DecoderGraph::Input> inputs) {
  DecoderGraph graph = {
      .inPlace = inPlace, .inputs = std::move(inputs), .caches = {}, .logits = "logits", .top = {}};
  for (const char* layer : {"0", "1"}) {
    for (const char* kind : {".key", ".value"}) {
      graph.caches.push_back({std::string("past_key_values.").append(layer).append(kind),
                              std::string("present.").append(layer).append(kind), kvHeads, headDim});
    }
  }
  return graph;
}

struct Fixture {
  const char* name;
  const char* weights;
  const char* model;
  DecoderGraph graph;
  bool preparesShapes = false;
};

const DecoderGraph::Input kIds = {"input_ids", DecoderInputRole::kInputIds};
const DecoderGraph::Input kMask = {"attention_mask", DecoderInputRole::kAttentionMask};
const DecoderGraph::Input kPositions = {"position_ids", DecoderInputRole::kPositionIds};

const Fixture kInPlace = {"LlamaInPlace", "llama", "llama/genai", twoLayers(true, 2, 16, {kIds, kMask})};
// Steps as on a GPU, except for the lengths of prompts, because this graph has no input for their end.
const Fixture kFewShapes = {"LlamaFewShapes", "llama", "llama/genai", twoLayers(true, 2, 16, {kIds, kMask}),
                            true};
const Fixture kCopying = {"LlamaCopying", "llama", "llama/optimum",
                          twoLayers(false, 2, 16, {kIds, kMask, kPositions})};

struct Answer {
  Tokens tokens;
  std::vector<float> gaps;  // each with two log-probabilities
  std::string text;
  GenerationEnd end;
  size_t events = 0;
};

// Runs a loop and collects the results of its requests.
class Generator {
 public:
  Generator(const Fixture& fixture, DecodeLoopConfig config = {}) {
    config.graph = fixture.graph;
    if (config.maxLength == DecodeLoopConfig().maxLength) config.maxLength = 512;
    config.fingerprint = fixture.weights;
    // Token i is one letter, or nothing.
    std::vector<char> letters;
    std::vector<uint32_t> offsets = {0};
    for (int i = 0; i < 320; ++i) {
      letters.push_back(static_cast<char>('a' + i % 26));
      offsets.push_back(static_cast<uint32_t>(letters.size()));
    }
    config.pieces = std::make_shared<TokenPieces>(letters, offsets, false);
    loop_ = std::make_unique<DecodeLoop>(std::move(config),
                                         [this](std::list<GenerationEvent>& events) { hear(events); });
    std::promise<void> loaded;
    const std::string model =
        std::string(NODE_TENSORRT_FIXTURES) + "/decoders/" + fixture.model + "/model.onnx";
    loop_->start(
        [model, preparesShapes = fixture.preparesShapes](std::stop_token stop) {
          return std::make_unique<FailingModel>(ort::openRuntime(std::getenv("NODE_TENSORRT_ONNXRUNTIME"))
                                                    ->loadModel(model, {.threads = 1}, stop),
                                                preparesShapes);
        },
        [&](std::exception_ptr error) { error ? loaded.set_exception(error) : loaded.set_value(); });
    loaded.get_future().get();
  }

  DecodeLoop* operator->() { return loop_.get(); }

  // Called on the loop's thread for each step with news, while the loop waits. Set this before the first
  // start().
  std::function<void()> onStep = [] {};
  std::function<void()> afterStep = [] {};

  // Returns the request's id and a future of its answer.
  std::pair<uint32_t, std::future<Answer>> start(const Tokens& tokens, GenerateOptions options,
                                                 uint32_t sequence = 0) {
    std::future<Answer> future;
    uint32_t id = 0;
    {
      std::lock_guard lock(mutex_);
      id = ++lastId_;
      future = pending_[id].promise.get_future();
    }
    // No token ends an answer, because PyTorch's answers were computed without the end-of-sequence token.
    options.sampling.logitBias.emplace_back(2, -INFINITY);
    try {
      loop_->generate(id, sequence, tokens, std::move(options));
    } catch (...) {
      std::lock_guard lock(mutex_);
      pending_.erase(id);
      throw;
    }
    return {id, std::move(future)};
  }

  Answer generate(const Tokens& tokens, size_t maxTokens, uint32_t sequence = 0) {
    return start(tokens, {.maxTokens = maxTokens}, sequence).second.get();
  }

  uint32_t fork(uint32_t sequence) {
    std::promise<void> done;
    const uint32_t id = loop_->fork(sequence, settle(done));
    done.get_future().get();
    return id;
  }

  std::vector<std::byte> save(uint32_t sequence) {
    std::promise<std::vector<std::byte>> saved;
    loop_->save(sequence, [&](EncodedState state, std::exception_ptr error) {
      if (error) return saved.set_exception(error);
      const auto* begin = static_cast<const std::byte*>(state.data.get());
      saved.set_value({begin, begin + state.byteLength});
    });
    return saved.get_future().get();
  }

  uint32_t restore(std::vector<std::byte> state) {
    std::promise<void> done;
    const uint32_t id = loop_->restore(std::move(state), settle(done));
    done.get_future().get();
    return id;
  }

 private:
  struct Pending {
    Answer answer;
    std::promise<Answer> promise;
  };

  static DecodeLoop::Completion settle(std::promise<void>& done) {
    return [&done](std::exception_ptr error) { error ? done.set_exception(error) : done.set_value(); };
  }

  void hear(std::list<GenerationEvent>& events) {
    memoryIsOut = false;
    {
      const Spared spared;
      tell(events);
    }
    afterStep();
  }

  void tell(std::list<GenerationEvent>& events) {
    onStep();
    std::lock_guard lock(mutex_);
    for (GenerationEvent& event : events) {
      const auto pending = pending_.find(event.id);
      Answer& answer = pending->second.answer;
      ++answer.events;
      for (const GeneratedToken& token : event.tokens) {
        answer.tokens.push_back(token.sampled.token);
        answer.text += token.text;
        const auto& top = token.sampled.top;
        if (top.size() == 2) answer.gaps.push_back(top[0].logprob - top[1].logprob);
      }
      if (!event.end) continue;
      answer.text += event.end->text;
      answer.end = std::move(*event.end);
      pending->second.promise.set_value(std::move(answer));
      pending_.erase(pending);
    }
  }

  std::mutex mutex_;
  uint32_t lastId_ = 0;
  std::map<uint32_t, Pending> pending_;
  std::unique_ptr<DecodeLoop> loop_;  // destroyed first
};

// Returns the code of the error that `body` throws, or '' if it throws nothing.
template <class Body>
std::string refusal(Body body) {
  try {
    body();
    return "";
  } catch (const Error& error) {
    return error.code();
  }
}

Tokens joined(Tokens a, std::span<const int32_t> b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

class DecodeLoopTest : public testing::TestWithParam<Fixture> {
 protected:
  void SetUp() override {
    if (std::getenv("NODE_TENSORRT_ONNXRUNTIME") == nullptr) {
      GTEST_SKIP() << "NODE_TENSORRT_ONNXRUNTIME names no library";
    }
  }
  const std::vector<Case> cases_ = cases("llama");
};

TEST_P(DecodeLoopTest, GivesPyTorchsTokensAloneAndTogether) {
  for (const size_t chunk : {size_t{512}, size_t{16}}) {
    Generator model(GetParam(), {.rows = 4, .chunkSize = chunk});
    ASSERT_EQ(cases_.size(), 5u);
    for (const Case& each : cases_) {
      const Answer answer = model.generate(each.prompt, 40);
      EXPECT_EQ(answer.tokens, each.greedy);
      EXPECT_EQ(answer.end.reason, FinishReason::kLength);
      EXPECT_EQ(answer.end.promptTokens, each.prompt.size());
      EXPECT_EQ(answer.end.completionTokens, 40u);
    }
    model->clear();
    std::vector<std::pair<const Case*, std::future<Answer>>> answers;
    for (int i = 0; i < 3; ++i) {
      for (const Case& each : cases_) {
        answers.emplace_back(&each, model.start(each.prompt, {.maxTokens = 40, .stream = i == 1}).second);
      }
    }
    for (auto& [each, future] : answers) EXPECT_EQ(future.get().tokens, each->greedy);
    const DecodeLoopStats stats = model->stats();
    EXPECT_EQ(stats.completed, 20u);
    EXPECT_EQ(stats.rowsUsed, 0u);
    EXPECT_EQ(stats.active + stats.waiting, 0u);
  }
}

TEST_P(DecodeLoopTest, ReusesWhatPromptsHaveInCommon) {
  Generator model(GetParam(), {.rows = 4});
  const Case& each = cases_[4];
  EXPECT_EQ(model.generate(each.prompt, 40).end.cachedTokens, 0u);
  // All but the prompt's last token are cached.
  Answer again = model.generate(each.prompt, 40);
  EXPECT_EQ(again.tokens, each.greedy);
  EXPECT_EQ(again.end.cachedTokens, each.prompt.size() - 1);
  // In the next turn, all of the answer but its last token is cached too.
  const Tokens next = joined(joined(each.prompt, each.greedy), cases_[1].prompt);
  const Answer turn = model.generate(next, 10);
  EXPECT_EQ(turn.end.cachedTokens, each.prompt.size() + 39);
  const Answer salted = model.start(next, {.maxTokens = 10, .cacheSalt = "another"}).second.get();
  EXPECT_EQ(salted.end.cachedTokens, 0u);
  EXPECT_EQ(salted.tokens, turn.tokens);
  model->clear();
  EXPECT_EQ(model.generate(next, 10).end.cachedTokens, 0u);

  Generator forgetful(GetParam(), {.rows = 4, .prefixReuse = false});
  forgetful.generate(each.prompt, 5);
  EXPECT_EQ(forgetful.generate(each.prompt, 5).end.cachedTokens, 0u);
}

TEST_P(DecodeLoopTest, SequencesGoOnForkAndAreCutAnywhere) {
  Generator model(GetParam(), {.rows = 4});
  const Case& each = cases_[2];
  const uint32_t sequence = model->createSequence();
  const Answer appended = model.generate(each.prompt, 0, sequence);
  EXPECT_EQ(appended.tokens, Tokens());
  const uint32_t fork = model.fork(sequence);
  EXPECT_EQ(model.generate({}, 40, sequence).tokens, each.greedy);
  EXPECT_EQ(model->sequenceTokens(sequence), joined(each.prompt, each.greedy));
  EXPECT_EQ(model.generate({}, 15, fork).tokens, Tokens(each.greedy.begin(), each.greedy.begin() + 15));
  EXPECT_EQ(model.generate({}, 25, fork).tokens, Tokens(each.greedy.begin() + 15, each.greedy.end()));
  model->truncate(sequence, each.prompt.size() + 20);
  const Answer rest = model.generate({}, 20, sequence);
  EXPECT_EQ(rest.tokens, Tokens(each.greedy.begin() + 20, each.greedy.end()));
  EXPECT_EQ(rest.end.cachedTokens, each.prompt.size() + 19);
  EXPECT_EQ(refusal([&] { model->truncate(sequence, 1000); }), "ERR_INVALID_ARG_VALUE");
  model->truncate(sequence, 0);
  EXPECT_EQ(refusal([&] { model.generate({}, 1, sequence); }), "ERR_INVALID_ARG_VALUE");
  const Answer anew = model.generate(each.prompt, 40, sequence);
  EXPECT_EQ(anew.tokens, each.greedy);
  EXPECT_EQ(anew.end.cachedTokens, each.prompt.size() - 1) << "which the fork has";
}

TEST_P(DecodeLoopTest, SequencesAreSavedAndRestoredElsewhere) {
  Generator model(GetParam(), {.rows = 2});
  const Case& each = cases_[3];
  const uint32_t sequence = model->createSequence();
  model.generate(each.prompt, 10, sequence);
  const std::vector<std::byte> state = model.save(sequence);
  const Tokens rest(each.greedy.begin() + 10, each.greedy.end());
  for (const Fixture& fixture : {kInPlace, kCopying}) {
    Generator other(fixture, {.rows = 1});
    const uint32_t restored = other.restore(state);
    EXPECT_EQ(refusal([&] { other.restore(state); }), "ERR_CACHE_FULL");
    EXPECT_EQ(other->sequenceTokens(restored).size(), each.prompt.size() + 10);
    EXPECT_EQ(other.generate({}, 30, restored).tokens, rest);
  }
  std::vector<std::byte> damaged = state;
  damaged[damaged.size() / 2] ^= std::byte{1};
  EXPECT_EQ(refusal([&] { model.restore(damaged); }), "ERR_STATE_MISMATCH");
  EXPECT_EQ(model->stats().rowsUsed, 1u);
  const uint32_t again = model.restore(state);
  EXPECT_EQ(model.generate({}, 30, again).tokens, rest);
}

// The full sequence's row may be one that only fills a step up.
TEST_P(DecodeLoopTest, AFullSequenceLastsWhileOthersAreAnswered) {
  Generator model(GetParam(), {.rows = 4, .maxLength = 60, .prefixReuse = false});
  const Case& each = cases_[2];
  const Tokens whole = joined(each.prompt, each.greedy);
  const uint32_t sequence = model->createSequence();
  model.generate(Tokens(whole.begin(), whole.begin() + 60), 0, sequence);
  std::vector<std::future<Answer>> others;
  for (int i = 0; i < 3; ++i) others.push_back(model.start(cases_[1].prompt, {.maxTokens = 40}).second);
  for (auto& other : others) EXPECT_EQ(other.get().tokens, cases_[1].greedy);
  // With a longer row, the run below reads all 60 tokens.
  Generator longer(GetParam(), {.rows = 1});
  const uint32_t restored = longer.restore(model.save(sequence));
  const Tokens next(whole.begin() + 61, whole.end());
  EXPECT_EQ(longer.generate({whole[60]}, next.size(), restored).tokens, next);
}

TEST_P(DecodeLoopTest, RefusesToRestoreWhatNoModelHasComputed) {
  Generator model(GetParam(), {.rows = 2});
  const Case& each = cases_[1];
  const uint32_t sequence = model->createSequence();
  model.generate(each.prompt, 0, sequence);
  const std::vector<std::byte> state = model.save(sequence);
  // A token takes 2 layers x 2 (key, value) x 2 heads x 16 floats.
  const StateFormat format = {"llama", 512};
  const DecodedState decoded = decodeState(format, state);
  const auto refusalOf = [&](const Tokens& tokens, size_t number, float value) {
    const EncodedState changed = encodeState(format, tokens, decoded.cached, [&](std::byte* to) {
      std::memcpy(to, decoded.cache, decoded.cached * format.bytesPerToken);
      std::memcpy(to + number * sizeof value, &value, sizeof value);
    });
    const auto* begin = static_cast<const std::byte*>(changed.data.get());
    return refusal([&] { model->disposeSequence(model.restore({begin, begin + changed.byteLength})); });
  };
  const size_t last = decoded.cached * format.bytesPerToken / sizeof(float) - 1;
  EXPECT_EQ(refusalOf(decoded.tokens, last, 0.5f), "");
  for (const float value : {NAN, INFINITY, -INFINITY}) {
    EXPECT_EQ(refusalOf(decoded.tokens, 0, value), "ERR_STATE_MISMATCH");
    EXPECT_EQ(refusalOf(decoded.tokens, last, value), "ERR_STATE_MISMATCH");
  }
  for (const int32_t token : {-1, 320, INT32_MAX}) {
    Tokens tokens = decoded.tokens;
    tokens[0] = token;
    EXPECT_EQ(refusalOf(tokens, last, 0.5f), "ERR_STATE_MISMATCH");
  }
  EXPECT_EQ(model->stats().rowsUsed, 1u);
  EXPECT_EQ(model.generate({}, 40, sequence).tokens, each.greedy);
}

TEST_P(DecodeLoopTest, LogitsThatAreNoNumbersFailTheirRequestAndNothingElse) {
  Generator model(GetParam(), {.rows = 3});
  const Case& each = cases_[2];
  const auto failureOf = [&](int runs, const Tokens& tokens, size_t maxTokens, uint32_t sequence = 0) {
    untilNaN = runs;
    const Answer answer = model.generate(tokens, maxTokens, sequence);
    EXPECT_EQ(untilNaN, -1);
    EXPECT_EQ(answer.end.reason, FinishReason::kFailed);
    return refusal([&] { std::rethrow_exception(answer.end.error); });
  };
  EXPECT_EQ(failureOf(0, each.prompt, 40), "ERR_EXECUTION_FAILED");
  EXPECT_EQ(failureOf(3, each.prompt, 40), "ERR_EXECUTION_FAILED");
  const Answer next = model.generate(each.prompt, 40);
  EXPECT_EQ(next.tokens, each.greedy);
  EXPECT_EQ(next.end.cachedTokens, 0u) << "of those that failed nothing is left";

  // After a failure the sequence is as it was before: after a failed append, first token or later token.
  const uint32_t sequence = model->createSequence();
  EXPECT_EQ(failureOf(0, each.prompt, 0, sequence), "ERR_EXECUTION_FAILED");
  EXPECT_EQ(model->sequenceTokens(sequence), Tokens());
  EXPECT_EQ(model.generate(each.prompt, 0, sequence).end.reason, FinishReason::kLength);
  EXPECT_EQ(failureOf(0, cases_[1].prompt, 0, sequence), "ERR_EXECUTION_FAILED");
  EXPECT_EQ(failureOf(0, {}, 40, sequence), "ERR_EXECUTION_FAILED");
  EXPECT_EQ(failureOf(5, {}, 40, sequence), "ERR_EXECUTION_FAILED");
  EXPECT_EQ(model->sequenceTokens(sequence), each.prompt);
  const Answer whole = model.generate({}, 40, sequence);
  EXPECT_EQ(whole.tokens, each.greedy);
  EXPECT_EQ(whole.end.cachedTokens, each.prompt.size() - 1) << "what it had is not computed again";
}

// What is requested during a step happens after it. If the step fails, nothing of its row is used.
TEST_P(DecodeLoopTest, WhatFailsIsNeitherForkedNorSaved) {
  Generator model(GetParam(), {.rows = 3, .chunkSize = 16, .prefixReuse = false});
  const Case& each = cases_[2];
  const uint32_t sequence = model->createSequence();
  std::promise<void> forked;
  std::promise<std::vector<std::byte>> saved;
  uint32_t fork = 0;
  meanwhile = [&] {
    fork = model->fork(sequence, [&](std::exception_ptr error) {
      forked.set_value();
      EXPECT_FALSE(error);
    });
    model->save(sequence, [&](EncodedState state, std::exception_ptr) {
      const auto* begin = static_cast<const std::byte*>(state.data.get());
      saved.set_value({begin, begin + state.byteLength});
    });
  };
  untilNaN = 2;  // fails in the third of three chunks
  EXPECT_EQ(model.generate(each.prompt, 0, sequence).end.reason, FinishReason::kFailed);
  forked.get_future().get();
  const uint32_t restored = model.restore(saved.get_future().get());
  EXPECT_EQ(model->sequenceTokens(sequence), Tokens());
  for (const uint32_t copy : {fork, restored}) {
    const Answer answer = model.generate({}, 40, copy);
    EXPECT_EQ(answer.end.cachedTokens, 0u);
    EXPECT_EQ(answer.tokens, each.greedy);
  }
}

// The sequence is truncated while the fork and the save are still waiting for a step, after which its row
// moves.
TEST_P(DecodeLoopTest, AForkAndASaveAreOfTheSequenceAsItWasThen) {
  const Case& each = cases_[2];
  const Case& other = cases_[3];
  for (const size_t left : {size_t{10}, size_t{0}}) {
    for (const bool forks : {true, false}) {
      Generator model(GetParam(), {.rows = forks ? 3u : 2u, .prefixReuse = false});
      const uint32_t sequence = model->createSequence();
      model.generate(each.prompt, 0, sequence);
      std::promise<void> forked;
      std::promise<std::vector<std::byte>> saved;
      uint32_t copy = 0;
      meanwhile = [&] {
        if (forks) {
          copy = model->fork(sequence, [&](std::exception_ptr) { forked.set_value(); });
        } else {
          model->save(sequence, [&](EncodedState state, std::exception_ptr) {
            const auto* begin = static_cast<const std::byte*>(state.data.get());
            saved.set_value({begin, begin + state.byteLength});
          });
        }
        model->truncate(sequence, left);
      };
      EXPECT_EQ(model.generate(other.prompt, 40).tokens, other.greedy);
      if (forks) {
        forked.get_future().get();
      } else {
        copy = model.restore(saved.get_future().get());
      }
      const Answer answer = model.generate({}, 40, copy);
      EXPECT_EQ(answer.tokens, each.greedy) << left << (forks ? " forked" : " saved");
      EXPECT_EQ(answer.end.cachedTokens, each.prompt.size() - 1);
      EXPECT_EQ(model->sequenceLength(sequence), left);
    }
  }
}

TEST_P(DecodeLoopTest, EndsAtStopTokensStopStringsAndLimits) {
  Generator model(GetParam(), {.rows = 2, .maxLength = 60});
  const Case& each = cases_[2];  // 33 tokens
  const auto end = [&](GenerateOptions options) {
    return model.start(each.prompt, std::move(options)).second.get();
  };
  const auto firstOf = [&](size_t index) {  // position at which this token first occurs in the answer
    return static_cast<size_t>(std::find(each.greedy.begin(), each.greedy.end(), each.greedy[index]) -
                               each.greedy.begin());
  };

  const size_t stopAt = firstOf(12);
  const Answer token = end({.stopTokens = {each.greedy[12]}});
  EXPECT_EQ(token.end.reason, FinishReason::kStop);
  EXPECT_EQ(token.tokens, Tokens(each.greedy.begin(), each.greedy.begin() + stopAt));
  const Answer later = end({.maxTokens = 20, .minTokens = stopAt + 1, .stopTokens = {each.greedy[12]}});
  EXPECT_GT(later.tokens.size(), stopAt);
  EXPECT_NE(later.tokens[stopAt], each.greedy[12]);

  std::string text;
  for (const int32_t each : each.greedy) text += static_cast<char>('a' + each % 26);
  const std::string stop = text.substr(9, 3);
  const Answer string = end({.stop = {stop}});
  EXPECT_EQ(string.end.reason, FinishReason::kStop);
  EXPECT_EQ(string.text, text.substr(0, text.find(stop)));
  EXPECT_EQ(string.tokens.size(), text.find(stop) + 3);

  const Answer full = end({.maxTokens = 1000});
  EXPECT_EQ(full.end.reason, FinishReason::kLength);
  EXPECT_EQ(full.tokens, Tokens(each.greedy.begin(), each.greedy.begin() + 27));
  EXPECT_EQ(refusal([&] { model.generate(cases_[4].prompt, 1); }), "ERR_INVALID_ARG_VALUE");
  const Answer none = model.generate(Tokens(cases_[4].prompt.begin(), cases_[4].prompt.begin() + 60), 5);
  EXPECT_EQ(none.end.reason, FinishReason::kLength);
  EXPECT_EQ(none.tokens, Tokens());
  EXPECT_EQ(refusal([&] { model.generate({320}, 1); }), "ERR_INVALID_ARG_VALUE");
  EXPECT_EQ(refusal([&] { model.generate({-1}, 1); }), "ERR_INVALID_ARG_VALUE");
  EXPECT_EQ(refusal([&] { model.generate({}, 1); }), "ERR_INVALID_ARG_VALUE");
}

TEST_P(DecodeLoopTest, RefusesWhatHasNoRow) {
  Generator model(GetParam(), {.rows = 2, .maxQueue = 1});
  const uint32_t sequence = model->createSequence();
  auto running = model.start(cases_[0].prompt, {.maxTokens = 300});
  EXPECT_EQ(refusal([&] { model->createSequence(); }), "ERR_CACHE_FULL");
  EXPECT_EQ(refusal([&] { model.fork(sequence); }), "ERR_CACHE_FULL");
  auto waiting = model.start(cases_[1].prompt, {.maxTokens = 40});
  EXPECT_EQ(refusal([&] { model.generate(cases_[1].prompt, 1); }), "ERR_QUEUE_FULL");
  // The sequence already has its row.
  EXPECT_EQ(model.generate(cases_[2].prompt, 40, sequence).tokens, cases_[2].greedy);
  model->cancel(running.first);
  const Answer cancelled = running.second.get();
  EXPECT_EQ(cancelled.end.reason, FinishReason::kCancelled);
  EXPECT_EQ(waiting.second.get().tokens, cases_[1].greedy);
  const uint32_t other = model->createSequence();
  EXPECT_EQ(refusal([&] { model.generate(cases_[0].prompt, 1); }), "ERR_CACHE_FULL");
  model->disposeSequence(other);
  model->disposeSequence(sequence);
  EXPECT_EQ(model.generate(cases_[0].prompt, 40).tokens, cases_[0].greedy);
  EXPECT_EQ(refusal([&] { model->truncate(sequence, 0); }), "ERR_DISPOSED");
}

TEST_P(DecodeLoopTest, AnAbandonedAppendLeavesASequenceAsItWas) {
  Generator model(GetParam(), {.rows = 3, .chunkSize = 16});
  const uint32_t sequence = model->createSequence();
  model.generate(cases_[2].prompt, 0, sequence);
  auto appending = model.start(cases_[4].prompt, {.maxTokens = 0}, sequence);
  model->cancel(appending.first);
  if (appending.second.get().end.reason == FinishReason::kCancelled) {
    EXPECT_EQ(model->sequenceTokens(sequence), cases_[2].prompt);
  } else {
    model->truncate(sequence, cases_[2].prompt.size());
  }
  EXPECT_EQ(model.generate({}, 40, sequence).tokens, cases_[2].greedy);
}

TEST_P(DecodeLoopTest, MemoryComesBack) {
  Generator model(GetParam(), {.rows = 4});
  const uint32_t sequence = model->createSequence();
  model.generate(cases_[4].prompt, 40, sequence);
  model.generate(cases_[3].prompt, 40);
  model->disposeSequence(sequence);
  model->clear();
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (model->stats().bytesUsed > 0 && std::chrono::steady_clock::now() < deadline)
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_EQ(model->stats().bytesUsed, 0u);
}

TEST_P(DecodeLoopTest, CloseFinishesWhatWasAccepted) {
  Generator model(GetParam(), {.rows = 2});
  std::vector<std::future<Answer>> answers;
  for (int i = 0; i < 5; ++i) answers.push_back(model.start(cases_[1].prompt, {.maxTokens = 40}).second);
  std::promise<void> closed;
  model->close([&](std::exception_ptr) { closed.set_value(); });
  EXPECT_EQ(refusal([&] { model.generate({1}, 1); }), "ERR_DISPOSED");
  closed.get_future().get();
  for (auto& answer : answers) EXPECT_EQ(answer.get().tokens, cases_[1].greedy);
}

// Requests, cancellations, forks, truncations and more in random order. Each answer must be what the same
// tokens give alone. Steps whose two best logits differ by less than 1e-3 are excused, because which one wins
// depends on how a matrix product is split.
TEST_P(DecodeLoopTest, AnyOrderGivesTheAnswersOfRunningAlone) {
  const bool isFull =
      std::getenv("NODE_TENSORRT_TEST_FULL") != nullptr && *std::getenv("NODE_TENSORRT_TEST_FULL");
  const int operations = isFull ? 10'000 : 800;
  std::mt19937 random(11);
  const auto below = [&](size_t limit) { return static_cast<size_t>(random() % limit); };

  Generator alone(GetParam(), {.rows = 1, .prefixReuse = false});
  std::map<Tokens, Answer> reference;
  const auto expected = [&](const Tokens& tokens) -> const Answer& {
    const auto entry = reference.find(tokens);
    if (entry != reference.end()) return entry->second;
    SamplingOptions sampling;
    sampling.logprobs = 2;
    return reference[tokens] = alone.start(tokens, {.maxTokens = 16, .sampling = sampling}).second.get();
  };

  struct Running {
    uint32_t id;
    uint32_t sequence;  // 0: none
    Tokens tokens;      // the tokens before the answer
    std::future<Answer> answer;
    bool cancelled;
  };
  Generator model(GetParam(), {.rows = 5, .chunkSize = 24, .maxQueue = 40});
  std::vector<Running> running;
  std::map<uint32_t, Tokens> sequences;
  size_t compared = 0;
  size_t reused = 0;

  const auto check = [&](size_t index) {
    Running run = std::move(running[index]);
    running.erase(running.begin() + index);
    const Answer answer = run.answer.get();
    ASSERT_TRUE(answer.end.reason == FinishReason::kLength ||
                (run.cancelled && answer.end.reason == FinishReason::kCancelled));
    const Answer& truth = expected(run.tokens);
    for (size_t i = 0; i < answer.tokens.size(); ++i) {
      if (answer.tokens[i] == truth.tokens[i]) {
        ++compared;
      } else {
        ASSERT_LT(truth.gaps[i], 1e-3) << "token " << i << " of an answer to " << run.tokens.size();
        break;
      }
    }
    reused += answer.end.cachedTokens;
    const auto sequence = sequences.find(run.sequence);
    if (sequence != sequences.end()) sequence->second = model->sequenceTokens(run.sequence);
  };
  const auto isBusy = [&](uint32_t sequence) {
    return std::any_of(running.begin(), running.end(),
                       [&](const Running& run) { return run.sequence == sequence; });
  };
  const auto anySequence = [&]() -> uint32_t {
    if (sequences.empty()) return 0;
    return std::next(sequences.begin(), below(sequences.size()))->first;
  };
  // Prompts that share their beginnings.
  const auto anyPrompt = [&] {
    const Case& each = cases_[below(cases_.size())];
    const Tokens whole = joined(each.prompt, each.greedy);
    Tokens prompt(whole.begin(), whole.begin() + 1 + below(whole.size()));
    if (below(3) == 0) prompt.back() = 3 + below(300);
    return prompt;
  };

  for (int i = 0; i < operations; ++i) {
    if (HasFatalFailure()) return;
    const size_t operation = below(16);
    const uint32_t sequence = anySequence();
    const bool isIdle = sequence != 0 && !isBusy(sequence);
    if (running.size() > 12 || (operation == 0 && !running.empty())) {
      check(below(running.size()));
    } else if (operation < 6) {
      const Tokens prompt = anyPrompt();
      GenerateOptions options = {
          .maxTokens = 1 + below(16), .cacheSalt = below(4) == 0 ? "x" : "", .stream = below(2) == 0};
      options.priority = static_cast<double>(below(3));
      if (sequences.size() == 5) {
        EXPECT_EQ(refusal([&] { model.start(prompt, options); }), "ERR_CACHE_FULL");
        continue;
      }
      auto [id, answer] = model.start(prompt, std::move(options));
      running.push_back({id, 0, prompt, std::move(answer), false});
    } else if (operation < 8 && isIdle) {
      Tokens& tokens = sequences[sequence];
      Tokens more;
      if (tokens.empty() || below(2) == 0) more = anyPrompt();
      if (tokens.size() + more.size() > 480) continue;
      tokens = joined(tokens, more);
      auto [id, answer] = model.start(more, {.maxTokens = below(17)}, sequence);
      running.push_back({id, sequence, tokens, std::move(answer), false});
    } else if (operation == 8 && !running.empty()) {
      Running& run = running[below(running.size())];
      model->cancel(run.id);
      run.cancelled = true;
    } else if (operation == 9) {
      if (refusal([&] { sequences[model->createSequence()]; }) != "") continue;
    } else if (operation == 10 && isIdle) {
      const Tokens tokens = sequences[sequence];
      uint32_t fork = 0;
      if (refusal([&] { fork = model.fork(sequence); }) == "") {
        EXPECT_EQ(model->sequenceTokens(fork), tokens);
        sequences[fork] = tokens;
      }
    } else if (operation == 11 && isIdle) {
      Tokens& tokens = sequences[sequence];
      tokens.resize(below(tokens.size() + 1));
      model->truncate(sequence, tokens.size());
    } else if (operation == 12 && isIdle) {
      const Tokens tokens = sequences[sequence];
      const std::vector<std::byte> state = model.save(sequence);
      uint32_t restored = 0;
      if (refusal([&] { restored = model.restore(state); }) == "") sequences[restored] = tokens;
    } else if (operation == 13 && sequence != 0) {
      model->disposeSequence(sequence);
      sequences.erase(sequence);
      for (Running& run : running) {
        if (run.sequence == sequence) run.cancelled = true;
      }
    } else if (operation == 14 && below(20) == 0) {
      model->clear();
    } else if (operation == 15 && sequence != 0 && isIdle) {
      EXPECT_EQ(model->sequenceTokens(sequence), sequences[sequence]);
    }
  }
  while (!running.empty() && !HasFatalFailure()) check(running.size() - 1);
  EXPECT_GT(compared, static_cast<size_t>(operations));
  EXPECT_GT(reused, static_cast<size_t>(operations));
  for (const auto& [sequence, tokens] : sequences) model->disposeSequence(sequence);
  const DecodeLoopStats stats = model->stats();
  EXPECT_EQ(stats.rowsUsed + stats.active + stats.waiting, 0u);
  EXPECT_EQ(stats.failed, 0u);
}

// Each of the loop's allocations fails in turn: either only that one, or all until someone was told. The
// requests may fail then, but everything after them works as before.
class MemoryTest : public DecodeLoopTest {
 protected:
  void TearDown() override { failuresLast = false; }
  void expectThatRequestsFailAndNothingElse();
};

void MemoryTest::expectThatRequestsFailAndNothingElse() {
  Generator model(GetParam(), {.rows = 3});
  int allocations = 0;
  size_t failures = 0;
  for (bool failed = true; failed; ++allocations) {
    failureWanted = true;
    afterNextRun = allocations;
    const uint32_t sequence = model->createSequence();
    std::vector<std::pair<const Case*, std::future<Answer>>> answers;
    // The third request's row is a copy of the sequence's. The last one waits for a row.
    for (const size_t i : {2, 1, 2, 1}) {
      GenerateOptions options = {.maxTokens = 3, .stop = {"no text"}, .stream = !answers.empty()};
      options.sampling.logprobs = 1;
      const uint32_t into = answers.empty() ? sequence : 0;
      answers.emplace_back(&cases_[i], model.start(cases_[i].prompt, options, into).second);
    }
    for (auto& [each, future] : answers) {
      const Answer answer = future.get();
      if (answer.end.reason == FinishReason::kFailed) {
        ++failures;
        EXPECT_THROW(std::rethrow_exception(answer.end.error), std::bad_alloc);
      } else {
        EXPECT_EQ(answer.tokens, Tokens(each->greedy.begin(), each->greedy.begin() + 3));
      }
    }
    model->disposeSequence(sequence);
    failed = !failureWanted.exchange(false);
    EXPECT_EQ(model.generate(cases_[3].prompt, 2).tokens,
              Tokens(cases_[3].greedy.begin(), cases_[3].greedy.begin() + 2))
        << "after " << allocations << " allocations";
    const DecodeLoopStats stats = model->stats();
    EXPECT_EQ(stats.rowsUsed + stats.active + stats.waiting, 0u);
  }
  EXPECT_GT(allocations, 40);
  EXPECT_GT(failures, 50u);
}

TEST_P(MemoryTest, WhereMemoryRunsOutRequestsFailAndNothingElse) {
  expectThatRequestsFailAndNothingElse();
}

TEST_P(MemoryTest, WhereMemoryStaysOutRequestsFailAndNothingElse) {
  failuresLast = true;
  expectThatRequestsFailAndNothingElse();
}

// The same for calls made during a step: each succeeds or fails completely.
TEST_P(MemoryTest, WhereMemoryRunsOutCommandsFailAndNothingElse) {
  const Case& each = cases_[2];
  const Tokens begin(each.greedy.begin(), each.greedy.begin() + 3);
  for (const bool last : {false, true}) {
    failuresLast = last;
    Generator model(GetParam(), {.rows = 6});
    const uint32_t kept = model->createSequence();
    model.generate(each.prompt, 0, kept);
    const std::vector<std::byte> state = model.save(kept);
    int allocations = 0;
    size_t failures = 0;
    for (bool failed = true; failed; ++allocations) {
      const uint32_t disposed = model->createSequence();
      std::promise<std::exception_ptr> forked, saved, restored;
      uint32_t fork = 0;
      uint32_t restore = 0;
      meanwhile = [&] {
        const auto tell = [](std::promise<std::exception_ptr>& to) {
          return [&to](std::exception_ptr error) {
            const Spared spared;
            to.set_value(error);
          };
        };
        fork = model->fork(kept, tell(forked));
        restore = model->restore(state, tell(restored));
        model->save(kept, [&](EncodedState, std::exception_ptr error) {
          const Spared spared;
          saved.set_value(error);
        });
        model->disposeSequence(disposed);
      };
      failureWanted = true;
      afterNextRun = allocations;
      // Its sequence is disposed while it generates.
      Answer answer = model.start(each.prompt, {.maxTokens = 3, .stop = {"no text"}}, disposed).second.get();
      if (answer.end.reason != FinishReason::kFailed) {
        EXPECT_EQ(answer.end.reason, FinishReason::kCancelled);
      }
      const std::exception_ptr errors[] = {forked.get_future().get(), saved.get_future().get(),
                                           restored.get_future().get()};
      failed = !failureWanted.exchange(false);
      EXPECT_EQ(refusal([&] { model->sequenceTokens(disposed); }), "ERR_DISPOSED");
      for (const auto& error : errors) {
        if (!error) continue;
        ++failures;
        EXPECT_THROW(
            try { std::rethrow_exception(error); } catch (const Error& e) {
              if (std::string_view(e.code()) == "ERR_OUT_OF_MEMORY") throw std::bad_alloc();
            },
            std::bad_alloc);
      }
      const std::pair<uint32_t, bool> made[] = {{fork, !errors[0]}, {restore, !errors[2]}, {kept, true}};
      for (const auto& [sequence, isThere] : made) {
        if (isThere) {
          EXPECT_EQ(model.generate({}, 3, sequence).tokens, begin) << "after " << allocations;
          model->truncate(sequence, each.prompt.size());
        } else {
          EXPECT_EQ(refusal([&, id = sequence] { model->sequenceTokens(id); }), "ERR_DISPOSED");
        }
        if (sequence != kept) model->disposeSequence(sequence);
      }
      EXPECT_EQ(model->stats().rowsUsed, 1u);
    }
    EXPECT_GT(allocations, 5);
    EXPECT_GE(failures, 3u);
  }
}

// If the caller's thread runs out of memory during a call, the call has done nothing.
TEST_P(MemoryTest, ACallWithoutMemoryLeavesAllAsItWas) {
  Generator model(GetParam(), {.rows = 4});
  const Case& each = cases_[2];
  const uint32_t sequence = model->createSequence();
  model.generate(each.prompt, 0, sequence);
  const std::vector<std::byte> state = model.save(sequence);
  size_t refusals = 0;
  // Repeats the call until it has enough memory.
  const auto repeat = [&](const auto& call) {
    for (int allocations = 0;; ++allocations) {
      const size_t rows = model->stats().rowsUsed;
      failureWanted = true;
      untilFailure = allocations;
      bool refused = false;
      try {
        call();
      } catch (const std::bad_alloc&) {
        refused = true;
      }
      untilFailure = -1;
      if (!refused) break;
      ++refusals;
      const DecodeLoopStats stats = model->stats();
      EXPECT_EQ(stats.rowsUsed, rows);
      EXPECT_EQ(stats.waiting + stats.active, 0u);
      EXPECT_EQ(model->sequenceTokens(sequence), each.prompt);
    }
    failureWanted = false;
  };
  const auto ignored = [](std::exception_ptr) {};
  uint32_t created = 0;
  uint32_t copy = 0;
  uint32_t restored = 0;
  std::future<Answer> answer;
  std::promise<void> saved;
  repeat([&] { created = model->createSequence(); });
  repeat([&] { copy = model->fork(sequence, ignored); });
  repeat([&] { restored = model->restore(state, ignored); });
  repeat([&] { model->disposeSequence(created); });
  repeat([&] { answer = model.start({7, 8, 9}, {.maxTokens = 3}).second; });
  answer.get();
  repeat([&] { model->save(sequence, [&saved](EncodedState, std::exception_ptr) { saved.set_value(); }); });
  saved.get_future().get();
  repeat([&] { model->clear(); });
  repeat([&] { answer = model.start({}, {.maxTokens = 5}, sequence).second; });
  EXPECT_EQ(answer.get().tokens, Tokens(each.greedy.begin(), each.greedy.begin() + 5));
  model->truncate(sequence, each.prompt.size());
  repeat([&] { model->truncate(sequence, each.prompt.size() - 5); });
  EXPECT_EQ(model->sequenceLength(sequence), each.prompt.size() - 5);
  EXPECT_GT(refusals, 20u);
  for (const uint32_t other : {copy, restored}) {
    EXPECT_EQ(model.generate({}, 40, other).tokens, each.greedy);
  }
  EXPECT_EQ(model->stats().rowsUsed, 3u);
}

INSTANTIATE_TEST_SUITE_P(Modes, DecodeLoopTest, testing::Values(kInPlace, kFewShapes, kCopying),
                         [](const auto& info) { return info.param.name; });
INSTANTIATE_TEST_SUITE_P(Modes, MemoryTest, testing::Values(kInPlace, kFewShapes, kCopying),
                         [](const auto& info) { return info.param.name; });

class DecodeLoopLifeTest : public testing::Test {
 protected:
  void SetUp() override {
    if (std::getenv("NODE_TENSORRT_ONNXRUNTIME") == nullptr) {
      GTEST_SKIP() << "NODE_TENSORRT_ONNXRUNTIME names no library";
    }
  }
};

TEST_F(DecodeLoopLifeTest, StopsAtAnyMoment) {
  const std::vector<Case> each = cases("llama");
  for (int i = 0; i < 20; ++i) {
    std::vector<std::future<Answer>> answers;
    Generator model(kInPlace, {.rows = 3});
    const uint32_t sequence = model->createSequence();
    for (int j = 0; j < 6; ++j) answers.push_back(model.start(each[4].prompt, {.maxTokens = 200}).second);
    answers.push_back(model.start(each[3].prompt, {.maxTokens = 200, .stream = true}, sequence).second);
    std::this_thread::sleep_for(std::chrono::milliseconds(i));
    model->stop();
    EXPECT_EQ(refusal([&] { model.generate({1}, 1); }), "ERR_DISPOSED");
    EXPECT_EQ(refusal([&] { model->sequenceTokens(sequence); }), "ERR_DISPOSED");
  }
}

TEST_F(DecodeLoopLifeTest, RefusesAGraphThatIsNotAsDescribed) {
  Fixture wrong = kInPlace;
  wrong.graph.logits = "scores";
  EXPECT_EQ(refusal([&] { Generator model(wrong); }), "ERR_MODEL_UNSUPPORTED");
  wrong = kInPlace;
  wrong.graph.inputs.pop_back();
  EXPECT_EQ(refusal([&] { Generator model(wrong); }), "ERR_MODEL_UNSUPPORTED");
  wrong = kInPlace;
  wrong.model = "llama/nothing";
  EXPECT_EQ(refusal([&] { Generator model(wrong); }), "ERR_MODEL_NOT_FOUND");
}

// A long prompt that arrives while others are being answered doesn't stop them: they continue between its
// chunks.
TEST_F(DecodeLoopLifeTest, LongPromptsEnterBetweenSteps) {
  const std::vector<Case> each = cases("llama");
  size_t steps = 0;
  std::promise<void> begun;
  std::promise<void> joined;
  std::promise<void> ended;
  Generator model(kInPlace, {.rows = 4, .chunkSize = 16});
  // Steps take microseconds, so the stream could end while this thread waits for a core.
  model.onStep = [&] {
    ++steps;
    if (steps == 5) {
      begun.set_value();
      joined.get_future().wait();
    }
    if (steps == 300) ended.get_future().wait();
  };
  auto [id, streaming] = model.start(each[0].prompt, {.maxTokens = 400, .stream = true});
  begun.get_future().wait();
  const DecodeLoopStats before = model->stats();
  std::future<Answer> joining = model.start(each[4].prompt, {.maxTokens = 1}).second;
  joined.set_value();
  const Answer answer = joining.get();
  const DecodeLoopStats after = model->stats();
  // In quarters of a chunk, because another request is answering.
  EXPECT_EQ(after.prefillSteps - before.prefillSteps, 200 / 4u);
  EXPECT_GE(after.decodeSteps - before.decodeSteps, 200 / 4u - 1);
  EXPECT_EQ(answer.tokens[0], each[4].greedy[0]);
  model->cancel(id);
  ended.set_value();
  const Answer cancelled = streaming.get();
  EXPECT_EQ(cancelled.end.reason, FinishReason::kCancelled);
  EXPECT_EQ(cancelled.events, cancelled.tokens.size() + 1);
}

// Throws, a given number of times, what a callback without enough memory throws.
class Refusal {
 public:
  explicit Refusal(int times) : left_(times) {}
  void operator()() {
    if (left_ > 0 && left_-- > 0) throw std::bad_alloc();
  }

 private:
  std::atomic<int> left_;
};

TEST_F(DecodeLoopLifeTest, CallbacksThatThrowAreCalledAgain) {
  const Case each = cases("llama")[2];
  Refusal listening(2), saving(2), forking(1), restoring(1), closing(3);
  Generator model(kInPlace, {.rows = 4});
  model.onStep = [&] { listening(); };
  const uint32_t sequence = model->createSequence();
  model.generate(each.prompt, 0, sequence);
  const Answer answer = model.start({}, {.maxTokens = 40, .stream = true}, sequence).second.get();
  EXPECT_EQ(answer.tokens, each.greedy) << "each token once";
  EXPECT_EQ(answer.events, 40u);
  model->truncate(sequence, each.prompt.size());

  const auto settle = [](Refusal& refusal, std::promise<void>& done) {
    return [&](std::exception_ptr error) {
      refusal();
      error ? done.set_exception(error) : done.set_value();
    };
  };
  std::promise<void> forked, restored, closed;
  std::promise<std::vector<std::byte>> saved;
  const uint32_t fork = model->fork(sequence, settle(forking, forked));
  forked.get_future().get();
  model->save(sequence, [&](EncodedState state, std::exception_ptr) {
    saving();
    const auto* begin = static_cast<const std::byte*>(state.data.get());
    saved.set_value({begin, begin + state.byteLength});
  });
  const uint32_t restore = model->restore(saved.get_future().get(), settle(restoring, restored));
  restored.get_future().get();
  for (const uint32_t copy : {sequence, fork, restore}) {
    EXPECT_EQ(model.generate({}, 40, copy).tokens, each.greedy);
  }
  model->close(settle(closing, closed));
  closed.get_future().get();
}

TEST_F(DecodeLoopLifeTest, ALoadThatIsToldOfInVainIsToldOfAgain) {
  Refusal loading(3);
  std::promise<void> loaded;
  DecodeLoop loop({.graph = kInPlace.graph}, [](const auto&) {});
  loop.start([](std::stop_token) -> std::unique_ptr<Model> { throw Error("ERR_MODEL_NOT_FOUND", "None."); },
             [&](std::exception_ptr error) {
               loading();
               loaded.set_exception(error);
             });
  EXPECT_EQ(refusal([&] { loaded.get_future().get(); }), "ERR_MODEL_NOT_FOUND");
}

// A callback that always throws blocks only the loop.
TEST_F(DecodeLoopLifeTest, StopsWhileACallbackThrows) {
  const Case each = cases("llama")[2];
  std::promise<void> begun;
  Refusal listening(INT_MAX);
  Generator model(kInPlace, {.rows = 2});
  model.onStep = [&, first = true]() mutable {
    if (std::exchange(first, false)) begun.set_value();
    listening();
  };
  const auto answer = model.start(each.prompt, {.maxTokens = 40, .stream = true}).second;
  begun.get_future().get();
  EXPECT_EQ(model->stats().active, 1u);
  model->stop();
}

// The loop ends even if there is no memory at all.
TEST_F(DecodeLoopLifeTest, ClosesWithoutMemory) {
  const Case each = cases("llama")[2];
  Generator model(kInPlace, {.rows = 2});
  std::promise<void> closing, closed;
  model.onStep = [&] { closing.get_future().get(); };
  model.afterStep = [] { memoryIsOut = true; };
  auto answer = model.start(each.prompt, {.maxTokens = 2}).second;
  model->close([&](std::exception_ptr) {
    const Spared spared;
    closed.set_value();
  });
  closing.set_value();
  EXPECT_EQ(answer.get().tokens, Tokens(each.greedy.begin(), each.greedy.begin() + 2));
  closed.get_future().get();
}

}  // namespace
}  // namespace node_tensorrt
