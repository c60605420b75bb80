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

// A row as a top-k head returns it: its best logits in any order, their tokens, and the logarithm of the sum
// of the exponentials of all logits. Any of the logits that equal the lowest of these may be among them.
struct TopLogits {
  std::span<const float> logits;
  std::span<const int32_t> tokens;
  float logSumExp;
};

// Chooses the tokens of one answer. It is used by one thread at a time. The n-th token depends on options,
// logits and n only: the same seed gives the same text, whatever else runs. Of equal logits the lower token
// wins.
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
  struct Candidate {
    float logit;
    int32_t token;
    // Before `other` in the order of tokens: a total one.
    bool betterThan(const Candidate& other) const {
      return logit > other.logit || (logit == other.logit && token < other.token);
    }
  };
  struct Observed {
    int32_t token;
    uint32_t inAnswer;  // how many times
  };
  // The known facts about a row beside the ranked tokens.
  struct Source {
    std::span<const float> row;      // empty where only a top-k head is known
    size_t size;                     // tokens that may be drawn
    std::optional<float> logSumExp;  // of all these, where a head knows it
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

  // Memory of a draw, kept for the next.
  std::vector<float> adjusted_;
  std::vector<Candidate> ranked_;  // the best tokens, in order
  std::vector<double> weights_;    // theirs: exp((logit - the best logit) / temperature)
  std::vector<Candidate> rest_;    // the others, in any order
};

}  // namespace node_tensorrt
