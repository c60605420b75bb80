// Answers requests step by step. Each step reads part of the waiting prompts and decodes one token for each
// answer.
#pragma once

#include <cstddef>
#include <cstdint>
#include <exception>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "core/decoder.h"
#include "core/request.h"
#include "core/row_table.h"
#include "core/sampler.h"
#include "core/scheduler.h"
#include "core/text_stream.h"

namespace node_tensorrt {

// Settings of a decode loop. Mirrors NativeLanguageModelConfig in lib/system/native/language-model.ts.
struct DecodeLoopConfig {
  DecoderGraph graph = {};
  size_t rows = 16;
  size_t maxLength = 4096;  // tokens in a row
  size_t chunkSize = 512;   // prompt tokens per step; a quarter of this while others answer
  size_t maxQueue = 1024;   // requests that may wait for a row
  bool prefixReuse = true;
  std::shared_ptr<const TokenPieces> pieces = {};
  std::string fingerprint = {};
};

// What a decode loop has done since it began, and what it is doing now. Counts, except for the bytes.
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

using Lock = std::unique_lock<std::mutex>;

// Releases a lock for as long as this object lives.
class Unlocked {
 public:
  explicit Unlocked(Lock& lock) : lock_(lock) { lock_.unlock(); }
  ~Unlocked() { lock_.lock(); }
  Unlocked(const Unlocked&) = delete;
  Unlocked& operator=(const Unlocked&) = delete;

 private:
  Lock& lock_;
};

// The state of all requests and of the cache's rows. The owner's lock guards it. Methods that take a Lock
// release it while the model runs or rows are copied; only one thread, the one that changes rows, may call
// them. That thread reads the tokens of generating sequences without the lock, because nobody else changes
// them.
class Generation {
 public:
  explicit Generation(DecodeLoopConfig config);

  const DecodeLoopConfig& config() const noexcept { return config_; }
  Scheduler& scheduler() noexcept { return scheduler_; }
  RowTable& rows() noexcept { return rows_; }

  // Sets the decoder. Everything below needs one.
  void load(std::unique_ptr<Decoder> decoder);
  bool isLoaded() const noexcept { return decoder_ != nullptr; }
  Decoder& decoder() noexcept { return *decoder_; }
  const Decoder& decoder() const noexcept { return *decoder_; }
  // Forgets all requests and returns the decoder, which the caller frees.
  std::unique_ptr<Decoder> unload() noexcept;

  // Throws Error(ERR_INVALID_ARG_VALUE) if the model doesn't have one of these tokens.
  void requireTokens(std::span<const int32_t> tokens) const;
  // Starts a request that continues the sequence with `tokens`. Throws Error(ERR_INVALID_ARG_VALUE) if that
  // leaves no tokens, or more than a row holds. If it throws, it has changed nothing.
  void begin(const std::shared_ptr<Request>& request, const std::shared_ptr<Sequence>& sequence,
             std::span<const int32_t> tokens);
  // Runs one step. `held` is the number of rows that sequences hold. An exception becomes the error of the
  // requests that it affects.
  void step(size_t held, Lock& lock) noexcept;
  // Ends a request.
  void finish(std::shared_ptr<Request> request, FinishReason reason,
              std::exception_ptr error = nullptr) noexcept;
  // Ends the running step and all later ones.
  void stop() noexcept;

  // Copies the first `length` tokens of one row to another.
  void copy(size_t from, size_t to, size_t length, Lock& lock);
  // Gives back memory that no sequence or prefix needs.
  void rest(Lock& lock) noexcept;

  // Returns the events since the last call, in order.
  std::list<GenerationEvent> takeEvents() noexcept { return std::move(events_); }
  DecodeLoopStats stats() const noexcept;

 private:
  void dropCancelled() noexcept;
  void prefill(Lock& lock);
  void place(Request& request, Lock& lock);
  void move(size_t from, size_t to, Lock& lock);
  std::optional<SampledToken> read(Request& request, size_t count, Lock& lock);
  void decode(Lock& lock);
  void decodeRows(std::span<const std::shared_ptr<Request>> requests, Lock& lock);
  SampledToken sample(Request& request, size_t i);
  SampledToken draw(Sampler& sampler, size_t i, const Sequence& sequence, std::span<const int32_t> banned);
  void accept(const std::shared_ptr<Request>& request, SampledToken sampled) noexcept;
  void fail(std::span<const std::shared_ptr<Request>> requests, const std::exception_ptr& error) noexcept;
  void failAll(const std::exception_ptr& error) noexcept;
  void forgetDoubtful(const Sequence& failed) noexcept;

  const DecodeLoopConfig config_;
  std::unique_ptr<Decoder> decoder_;
  Scheduler scheduler_;
  RowTable rows_;
  bool stopping_ = false;
  DecodeLoopStats stats_;
  std::list<GenerationEvent> events_;

  // Buffers of a decode step, kept for the next one.
  Scheduler::Requests batch_;
  std::vector<RowMove> moves_;
  std::vector<size_t> pasts_;
  std::vector<int32_t> tokens_;
  struct Drawn {
    SampledToken sampled;
    std::exception_ptr error;
  };
  std::vector<Drawn> drawn_;
};

}  // namespace node_tensorrt
