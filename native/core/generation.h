// Answers requests step by step: each step reads a chunk of prompts, and decodes a token of each answer.
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

// lib/system/native/language-model.ts' NativeLanguageModelConfig.
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

// Lets go of a lock for as long as it lives.
class Unlocked {
 public:
  explicit Unlocked(Lock& lock) : lock_(lock) { lock_.unlock(); }
  ~Unlocked() { lock_.lock(); }
  Unlocked(const Unlocked&) = delete;
  Unlocked& operator=(const Unlocked&) = delete;

 private:
  Lock& lock_;
};

// Its owner's lock guards it. What takes that lock lets go of it while the model runs or rows are copied, and
// is for one thread: only that one changes the rows. It reads tokens of sequences that generate, which nobody
// else changes, without the lock.
class Generation {
 public:
  explicit Generation(DecodeLoopConfig config);

  const DecodeLoopConfig& config() const noexcept { return config_; }
  Scheduler& scheduler() noexcept { return scheduler_; }
  RowTable& rows() noexcept { return rows_; }

  // Nothing below may be called before.
  void load(std::unique_ptr<Decoder> decoder);
  bool isLoaded() const noexcept { return decoder_ != nullptr; }
  Decoder& decoder() noexcept { return *decoder_; }
  const Decoder& decoder() const noexcept { return *decoder_; }
  // Forgets all requests and gives back what they ran on, to be freed.
  std::unique_ptr<Decoder> unload() noexcept;

  // Throws Error(ERR_INVALID_ARG_VALUE) where the model has no such token.
  void requireTokens(std::span<const int32_t> tokens) const;
  // The request goes on from the sequence's tokens and these. Throws Error(ERR_INVALID_ARG_VALUE) where that
  // is nothing, or more than a row takes; whatever this throws, all is as before.
  void begin(const std::shared_ptr<Request>& request, const std::shared_ptr<Sequence>& sequence,
             std::span<const int32_t> tokens);
  // One step, while sequences hold `held` rows. An exception is the error of the requests concerned.
  void step(size_t held, Lock& lock) noexcept;
  // Ends a request.
  void finish(std::shared_ptr<Request> request, FinishReason reason,
              std::exception_ptr error = nullptr) noexcept;
  // Ends the running step, and all that follow.
  void stop() noexcept;

  // Copies the first `length` tokens of one row to another.
  void copy(size_t from, size_t to, size_t length, Lock& lock);
  // Gives back memory that no sequence and no prefix needs.
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

  // Memory of a decode step, kept for the next.
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
