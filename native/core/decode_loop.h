// Generates text for many requests at once, on a thread of its own: prompts enter in chunks between decode
// steps, finished rows are filled again at once, and what was read stays in the cache for prompts that begin
// alike.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "core/decoder.h"
#include "core/sampler.h"
#include "core/sequence_state.h"
#include "core/text_stream.h"
#include "runtime/runtime.h"

namespace node_tensorrt {

// lib/system/native.ts' NativeLanguageModelConfig.
struct DecodeLoopConfig {
  DecoderGraph graph = {};
  size_t rows = 16;
  size_t maxLength = 4096;  // tokens in a row
  size_t chunkSize = 512;   // tokens of prompts a step; a quarter while others answer
  size_t maxQueue = 1024;   // requests that wait for a row
  bool prefixReuse = true;
  std::shared_ptr<const TokenPieces> pieces = {};
  std::string fingerprint = {};
};

// lib/system/native.ts' NativeGenerateOptions.
struct GenerateOptions {
  size_t maxTokens = 256;  // 0: the prompt is only read
  size_t minTokens = 0;    // before which no stop token is drawn
  SamplingOptions sampling = {};
  std::vector<std::string> stop = {};
  std::vector<int32_t> stopTokens = {};  // they end an answer, and are not in it
  std::string cacheSalt = {};
  double priority = 0;
  bool stream = false;
};

struct GeneratedToken {
  SampledToken sampled;
  std::string text;
};

enum class FinishReason : uint8_t { kStop, kLength, kCancelled, kFailed };

struct GenerationEnd {
  FinishReason reason;
  std::string text;          // held back until now
  std::exception_ptr error;  // where it failed
  size_t promptTokens;       // all that the answer follows
  size_t cachedTokens;       // of them, those that were in the cache
  size_t completionTokens;
  double queueMs;
  double firstTokenMs;
  double totalMs;
};

struct GenerationEvent {
  uint32_t id;
  std::vector<GeneratedToken> tokens;
  std::optional<GenerationEnd> end;
};

struct DecodeLoopStats {
  size_t rowsUsed = 0;
  size_t bytesReserved = 0;
  size_t bytesUsed = 0;
  uint64_t hits = 0;
  uint64_t cachedTokens = 0;
  size_t waiting = 0;
  size_t active = 0;
  uint64_t completed = 0;
  uint64_t failed = 0;
  uint64_t cancelled = 0;
  uint64_t decodeSteps = 0;
  uint64_t decodedRows = 0;
  uint64_t prefillSteps = 0;
  uint64_t prefilledTokens = 0;
};

// A sequence's tokens are those of its prompts and answers, without the stop tokens. The last one drawn is
// not in the cache yet: the next step reads it. Any thread may call; the loop's own thread calls back, and
// must not be thrown at. An exception on it, std::bad_alloc too, is the error of the requests concerned.
class DecodeLoop {
 public:
  using Completion = std::function<void(std::exception_ptr error)>;
  // What happened in a step, in order.
  using Listener = std::function<void(std::vector<GenerationEvent> events)>;
  using Saved = std::function<void(EncodedState state, std::exception_ptr error)>;

  DecodeLoop(DecodeLoopConfig config, Listener listener);
  ~DecodeLoop();  // as stop()

  // Starts the thread, which loads the model and reports to `loaded`. Call once.
  void start(LoadModel load, Completion loaded);
  // Makes a load in progress end soon, with Cancelled. No effect later.
  void stopLoading() { loading_.request_stop(); }
  // After a successful load, until the loop is closed. Everything below needs one.
  const Model& model() const { return decoder_->model(); }

  // Begins a request: `sequence` 0 is a prompt of its own, which waits for a row; else `tokens`, which may be
  // none, go to that sequence. Throws Error: ERR_QUEUE_FULL, ERR_CACHE_FULL (sequences hold all rows),
  // ERR_DISPOSED, ERR_INVALID_ARG_VALUE.
  void generate(uint32_t id, uint32_t sequence, std::span<const int32_t> tokens, GenerateOptions options);
  // Makes it finish as cancelled, after the step in progress at the latest. No effect once it has finished.
  void cancel(uint32_t id);

  // Sequences hold a row each until they are disposed. Throws Error(ERR_CACHE_FULL, ERR_DISPOSED).
  uint32_t createSequence();
  // `done` when it can be used. Throws Error(ERR_CACHE_FULL, ERR_DISPOSED).
  uint32_t fork(uint32_t sequence, Completion done);
  // Throws Error(ERR_INVALID_ARG_VALUE) where it is shorter, or generates.
  void truncate(uint32_t sequence, size_t length);
  std::vector<int32_t> sequenceTokens(uint32_t sequence);
  size_t sequenceLength(uint32_t sequence);
  void save(uint32_t sequence, Saved saved);
  // As fork(). `done` hears of ERR_STATE_MISMATCH.
  uint32_t restore(std::vector<std::byte> state, Completion done);
  // Cancels what it generates.
  void disposeSequence(uint32_t sequence);

  // Forgets all prefixes that no sequence or request holds.
  void clear();
  DecodeLoopStats stats();
  // What the model takes of a device, while it is loaded; nothing for a model in host memory.
  std::optional<DeviceStats> deviceStats();

  // Nothing more is accepted; what was is finished, then the model is freed and `closed` called.
  void close(Completion closed);
  // Abandons everything and joins the thread. Idempotent. Blocks for at most about one operator of a step.
  void stop();

 private:
  struct Request;
  struct Sequence;
  using Clock = std::chrono::steady_clock;
  using Lock = std::unique_lock<std::mutex>;
  // What the thread does between steps. The lock is held, and may be let go of meanwhile.
  using Command = std::function<void(Lock&)>;
  // The same, of a sequence of which so many tokens are cached.
  using Read = std::function<void(size_t cached, Lock& lock)>;

  void serve(LoadModel load, Completion loaded);
  void loop(Lock& lock);
  void admit();
  void dropCancelled();
  void prefill(Lock& lock);
  void decode(Lock& lock);
  void decodeRows(std::span<const std::shared_ptr<Request>> requests, Lock& lock);
  void publish(Lock& lock);
  void rest(Lock& lock);
  void restLater();

  void place(Request& request, Lock& lock);
  size_t takeRow(std::optional<size_t> preferred = std::nullopt);
  void release(Sequence& sequence);
  void move(const std::shared_ptr<Sequence>& sequence, size_t to, Lock& lock);
  void arrange(Lock& lock);
  SampledToken sample(Request& request, size_t i);
  SampledToken draw(Sampler& sampler, size_t i, const Sequence& sequence, std::span<const int32_t> banned);
  void accept(const std::shared_ptr<Request>& request, SampledToken sampled);
  void add(const std::shared_ptr<Request>& request, SampledToken sampled);
  void fail(std::span<const std::shared_ptr<Request>> requests, const std::exception_ptr& error);
  void failAll(const std::exception_ptr& error);
  void finish(const std::shared_ptr<Request>& request, FinishReason reason,
              std::exception_ptr error = nullptr);
  void forgetDoubtful(Sequence& failed);

  void requireOpen() const;
  void requireRow() const;
  std::shared_ptr<Sequence> find(uint32_t sequence) const;
  void enqueueRead(const std::shared_ptr<Sequence>& source, Read read);
  void enqueue(Command command);

  const DecodeLoopConfig config_;
  const Listener listener_;
  std::stop_source loading_;
  std::thread thread_;

  // Everything from here to the next comment is guarded.
  std::mutex mutex_;
  std::condition_variable wake_;
  std::unique_ptr<Decoder> decoder_;
  bool closing_ = false;
  bool stopping_ = false;
  bool cancels_ = false;  // some request is to be cancelled
  Completion closed_;
  std::deque<Command> commands_;
  std::unordered_map<uint32_t, std::shared_ptr<Request>> requests_;  // that have not finished
  std::list<std::shared_ptr<Request>> waiting_;                      // in the order in which they begin
  std::unordered_map<uint32_t, std::shared_ptr<Sequence>> sequences_;
  uint32_t lastSequence_ = 0;
  uint64_t arrivals_ = 0;
  size_t occupied_ = 0;  // rows of requests that belong to no sequence
  DecodeLoopStats stats_;

  // The thread's own; it reads tokens of sequences that generate, which nobody else changes, without the
  // lock.
  std::vector<std::shared_ptr<Request>> running_;  // in the order in which they began
  std::vector<std::shared_ptr<Sequence>> rows_;    // who is in each; null: nobody
  uint64_t uses_ = 0;
  std::optional<Clock::time_point> restAt_;  // rows hold memory that nobody needs
  std::vector<GenerationEvent> events_;
  std::vector<std::shared_ptr<Request>> batch_;  // of a decode step, by row
  std::vector<size_t> pasts_;
  std::vector<int32_t> tokens_;
  struct Drawn {
    SampledToken sampled;
    std::exception_ptr error;
  };
  std::vector<Drawn> drawn_;
};

}  // namespace node_tensorrt
