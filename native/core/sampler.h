// Chooses a sequence's next token from the logits of the model.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <utility>
#include <vector>

namespace node_tensorrt {

// Options of sampling. They apply in the order of Hugging Face's processors: bias; repetition, frequency and
// presence penalties; temperature; top-k; top-p; min-p. lib/ has checked their ranges.
struct SamplingOptions {
  float temperature = 0;  // 0: greedy, whatever the other options are
  int32_t topK = 0;       // 0: all
  float topP = 1;         // keeps the best tokens that together have this probability
  float minP = 0;         // minimum probability, relative to the best token's
  // Applies to each token in the prompt or answer: divides a positive logit and multiplies a negative one.
  float repetitionPenalty = 1;
  float presencePenalty = 0;   // subtracted from the logit of each token in the answer
  float frequencyPenalty = 0;  // subtracted once for each time the token is in the answer
  uint64_t seed = 0;
  std::vector<std::pair<int32_t, float>> logitBias;  // added to logits; -inf bans a token
  // Number of best tokens to report with each token; 0 reports only its own log-probability, -1 reports none.
  int32_t logprobs = -1;
};

// A token with its log-probability.
struct TokenLogprob {
  int32_t token;
  float logprob;
};

// A sampled token. Log-probabilities are those of the model's distribution after bias, penalties and bans,
// but before temperature and filters.
struct SampledToken {
  int32_t token = 0;
  float logprob = 0;
  std::vector<TokenLogprob> top;  // best first
};

// What a top-k head computes for a row: the best logits in any order, their tokens, and the logarithm of the
// sum of the exponentials of all logits. If several logits equal the lowest of these, it's undefined which of
// them are included.
struct TopLogits {
  std::span<const float> logits;
  std::span<const int32_t> tokens;
  float logSumExp;
};

// Samples one answer. One thread at a time may use it. The n-th token depends only on the options, the logits
// and n, so the same seed gives the same text whatever else is running. If logits are equal, the lower token
// wins.
class Sampler {
 public:
  // `vocabulary` is the number of logits in a row. Throws Error(ERR_INVALID_ARG_VALUE) if a biased token
  // isn't in it.
  Sampler(SamplingOptions options, size_t vocabulary);

  // Records tokens of the prompt, for the repetition penalty.
  void observe(std::span<const int32_t> prompt);

  // Draws a token and records it as part of the answer. Never draws a token in `banned`. Throws
  // Error(ERR_EXECUTION_FAILED) if a logit is NaN or +inf, or if none is finite.
  SampledToken sample(std::span<const float> logits, std::span<const int32_t> banned);
  // Draws the token that the whole row would give. If only the whole row can decide, draws nothing and
  // returns nothing.
  std::optional<SampledToken> sample(const TopLogits& top, std::span<const int32_t> banned);

 private:
  struct Candidate {
    float logit;
    int32_t token;
    // True if this candidate ranks before `other`. This is a total order.
    bool betterThan(const Candidate& other) const {
      return logit > other.logit || (logit == other.logit && token < other.token);
    }
  };
  struct Observed {
    int32_t token;
    uint32_t inAnswer;  // how many times
  };
  // What is known about a row, besides the ranked tokens.
  struct Source {
    std::span<const float> row;      // empty if only a top-k head's results are known
    size_t size;                     // number of tokens that may be drawn
    std::optional<float> logSumExp;  // over all of them, if a head computed it
  };

  static Candidate best(std::span<const float> row);
  std::span<const float> adjust(std::span<const float> logits, std::span<const int32_t> banned);
  void rank(std::span<const float> row, size_t count);
  std::optional<SampledToken> choose(const Source& source);
  std::optional<Candidate> draw(const Source& source);
  std::optional<Candidate> drawUnbounded(const Source& source, double sum, double nucleus, double random);
  Candidate pickRanked(size_t kept, double weight) const;
  std::optional<double> sumOfExponentials(const Source& source, float inverseTemperature) const;
  void observe(int32_t token, bool inAnswer);
  bool penalizes() const;

  SamplingOptions options_;
  size_t vocabulary_;
  uint64_t drawn_ = 0;

  std::vector<Observed> observed_;
  std::vector<uint32_t> observedAt_;  // by token: 1 + its index in observed_, or 0

  // Buffers of a draw, kept for the next one.
  std::vector<float> adjusted_;
  std::vector<Candidate> ranked_;  // the best tokens, best first
  std::vector<double> weights_;    // exp((logit - best logit) / temperature) of ranked_
  std::vector<Candidate> rest_;    // the other tokens, in any order
};

}  // namespace node_tensorrt
