// A request for text: what was asked for, and the state of its answer.
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

// Options of one request. Mirrors NativeGenerateOptions in lib/system/native/language-model.ts.
struct GenerateOptions {
  size_t maxTokens = 256;  // 0: only reads the prompt
  size_t minTokens = 0;    // tokens before a stop token may be drawn
  SamplingOptions sampling = {};
  std::vector<std::string> stop = {};
  std::vector<int32_t> stopTokens = {};  // end the answer and aren't part of it
  std::string cacheSalt = {};
  double priority = 0;
  bool stream = false;
};

// A token of the answer, with the text that it made final.
struct GeneratedToken {
  SampledToken sampled;
  std::string text;
};

// Why an answer ended. kLength also stands for a prompt that was only read.
enum class FinishReason : uint8_t { kStop, kLength, kCancelled, kFailed };

// How a request ended.
struct GenerationEnd {
  FinishReason reason;
  std::string text;          // the rest, which was held back until now
  std::exception_ptr error;  // set if it failed
  size_t promptTokens;       // all tokens that the answer follows
  size_t cachedTokens;       // prompt tokens that were in the cache
  size_t completionTokens;
  double queueMs;
  double firstTokenMs;
  double totalMs;
};

// News of one request: new tokens, its end, or both.
struct GenerationEvent {
  uint32_t id;
  std::vector<GeneratedToken> tokens;
  std::optional<GenerationEnd> end;
};

// One request. Whoever guards the generation guards it too.
struct Request {
  using Clock = std::chrono::steady_clock;

  // Throws Error(ERR_INVALID_ARG_VALUE) if a stop string is empty.
  Request(uint32_t id, GenerateOptions options, std::shared_ptr<const TokenPieces> pieces);

  // True if this request goes before the other.
  bool precedes(const Request& other) const noexcept;
  // The stop tokens, until the answer has its minimum length; then none.
  std::span<const int32_t> bannedTokens() const noexcept;
  // Appends a token to the answer, unless it is a stop token. Returns the reason if this token ends the
  // answer. A sequence holds at most `maxLength` tokens.
  std::optional<FinishReason> append(SampledToken sampled, size_t maxLength);
  // True if there are tokens to report now. A reader who shows text as it comes must get all of it with the
  // tokens, so a token waits until its text is decided.
  bool hasNews() const noexcept { return options.stream && !text.holdsBack(); }
  // Returns the tokens that haven't been reported yet.
  GenerationEvent news();
  // Returns the event that ends the request. Call once. Its memory was allocated when the request began, so a
  // request can always end. If there isn't enough memory for the rest of the text, the request fails.
  std::list<GenerationEvent> end(FinishReason reason, std::exception_ptr error) noexcept;

  const uint32_t id;
  const GenerateOptions options;
  TextStream text;
  std::optional<Sampler> sampler;  // set when the first token is sampled
  uint64_t arrival = 0;
  std::shared_ptr<Sequence> sequence;
  size_t before = 0;  // tokens in the sequence when the request began
  size_t promptTokens = 0;
  size_t cachedTokens = 0;
  size_t completionTokens = 0;
  bool placed = false;    // has a row
  bool decoding = false;  // the prompt has been read
  bool cancelled = false;
  bool stopped = false;                // by a stop string
  bool generates = false;              // has room for a token
  std::vector<GeneratedToken> untold;  // not reported yet
  const Clock::time_point arrived = Clock::now();
  std::optional<Clock::time_point> begun;
  std::optional<Clock::time_point> firstToken;

 private:
  std::list<GenerationEvent> end_;
};

}  // namespace node_tensorrt
