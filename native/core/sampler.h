// Chooses a sequence's next token from the model's logits.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <utility>
#include <vector>

namespace node_tensorrt {

// Applied in the order of Hugging Face's processors: bias, repetition, frequency and presence penalties,
// temperature, top-k, top-p, min-p. Ranges are checked in lib/.
struct SamplingOptions {
  float temperature = 0;  // 0: greedy, whatever the filters say
  int32_t topK = 0;       // 0: all
  float topP = 1;         // the best tokens that have this much of the probability together
  float minP = 0;         // a part of the best token's probability
  float repetitionPenalty =
      1;  // of each token in prompt or answer: a positive logit is divided, a negative multiplied
  float presencePenalty = 0;   // subtracted from a logit whose token is in the answer
  float frequencyPenalty = 0;  // subtracted as many times as it is in the answer
  uint64_t seed = 0;
  std::vector<std::pair<int32_t, float>> logitBias;  // added; -inf bans
  int32_t logprobs =
      -1;  // the number of best tokens to report with each; -1: no log-probabilities, not its own either
};

struct TokenLogprob {
  int32_t token;
  float logprob;
};

// Log-probabilities are those of the model's distribution after bias, penalties and bans, before temperature
// and filters.
struct SampledToken {
  int32_t token = 0;
  float logprob = 0;
  std::vector<TokenLogprob> top;  // best first
};

// What a top-k head leaves of a row: its best logits in descending order (of equal ones the lower token
// first), their tokens, and the logarithm of the sum of the exponentials of all.
struct TopLogits {
  std::span<const float> logits;
  std::span<const int32_t> tokens;
  float logSumExp;
};

// Of one answer; used by one thread at a time. The n-th token depends on options, logits and n only: the same
// seed gives the same text whatever else runs. Of equal logits the lower token is the better one.
class Sampler {
 public:
  // `vocabulary`: logits in a row. Throws Error(ERR_INVALID_ARG_VALUE) where a biased token is none of it.
  Sampler(SamplingOptions options, size_t vocabulary);

  // The prompt, or a part of it, for the repetition penalty.
  void observe(std::span<const int32_t> prompt);

  // Draws a token, and observes it. `banned` are not drawn. Throws Error(ERR_EXECUTION_FAILED) where a logit
  // is NaN or +inf, or none is finite.
  SampledToken sample(std::span<const float> logits, std::span<const int32_t> banned);
  // The token that the whole row would give; nothing, and nothing is drawn, where only the whole row can
  // tell.
  std::optional<SampledToken> sample(const TopLogits& top, std::span<const int32_t> banned);

 private:
  SamplingOptions options_;
  size_t vocabulary_;
};

}  // namespace node_tensorrt
