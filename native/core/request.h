// A request for text: what it asks for, and what it has come to.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <list>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/row_table.h"
#include "core/sampler.h"
#include "core/text_stream.h"

namespace node_tensorrt {

// lib/system/native/language-model.ts' NativeGenerateOptions.
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

struct Request {
  using Clock = std::chrono::steady_clock;

  // Throws Error(ERR_INVALID_ARG_VALUE) as TextStream does.
  Request(uint32_t id, GenerateOptions options, std::shared_ptr<const TokenPieces> pieces);

  // True if this request goes before the other.
  bool precedes(const Request& other) const noexcept;
  // Stop tokens, until the answer is as long as it must be.
  std::span<const int32_t> bannedTokens() const noexcept;
  // Adds a token of the answer, unless it is a stop token. The reason where that ends the answer, in a
  // sequence of at most `maxLength` tokens.
  std::optional<FinishReason> append(SampledToken sampled, size_t maxLength);
  // Are there tokens to report now? Whoever shows text as it comes must get all of it with some token: one
  // whose text is not decided waits.
  bool hasNews() const noexcept { return options.stream && !text.holdsBack(); }
  GenerationEvent news();
  // The event that ends the request: call once. Its memory is there from the beginning, so that a request can
  // always end; where there is none for the rest of the text, it has failed.
  std::list<GenerationEvent> end(FinishReason reason, std::exception_ptr error) noexcept;

  const uint32_t id;
  const GenerateOptions options;
  TextStream text;
  std::optional<Sampler> sampler;  // from the first token on
  uint64_t arrival = 0;
  std::shared_ptr<Sequence> sequence;
  size_t before = 0;  // tokens of the sequence
  size_t promptTokens = 0;
  size_t cachedTokens = 0;
  size_t completionTokens = 0;
  bool placed = false;    // has a row
  bool decoding = false;  // the prompt was read
  bool cancelled = false;
  bool stopped = false;    // by a stop string
  bool generates = false;  // has room for a token
  std::vector<GeneratedToken> untold;
  const Clock::time_point arrived = Clock::now();
  std::optional<Clock::time_point> begun;
  std::optional<Clock::time_point> firstToken;

 private:
  std::list<GenerationEvent> end_;
};

}  // namespace node_tensorrt
