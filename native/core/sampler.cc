#include "core/sampler.h"

#include <algorithm>
#include <bit>
#include <cfloat>
#include <cmath>
#include <cstring>
#include <string>

#include "core/error.h"

namespace node_tensorrt {

namespace {

// If a token is drawn at random, at least this many tokens are ranked. A draw goes through the ranked tokens
// in order, then through the rest by token. So a top-k head of 256 gives the same token that the whole row
// would.
constexpr size_t kRanked = 256;

// Four logits at a time: every machine supports this, and memory is no faster than that. These are GCC's and
// Clang's vectors, because the compilers vectorize a loop over floats only if arithmetic may change its
// results.
using Floats [[gnu::vector_size(16)]] = float;
using Ints [[gnu::vector_size(16)]] = int32_t;
constexpr size_t kLanes = sizeof(Floats) / sizeof(float);

Floats load(const float* values) {
  Floats loaded;
  std::memcpy(&loaded, values, sizeof loaded);
  return loaded;
}

bool any(Ints condition) {
  return (condition[0] | condition[1] | condition[2] | condition[3]) != 0;
}

// exp(x) for x <= 0, accurate to 2 units in the last place. Below -87, where exp(x) is about the smallest
// normal number, returns exp(-87). The polynomial and the split of ln 2 come from Cephes' expf.
Floats exponential(Floats x) {
  // 1.5 * 2^23: adding this leaves the nearest integer in the low bits.
  const Floats round = Floats{} + 12582912;
  const Floats lowest = Floats{} - 87;
  x = x > lowest ? x : lowest;
  const Floats shifted = x * 1.44269504088896341f + round;
  const Floats n = shifted - round;
  const Floats r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  Floats p = Floats{} + 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  return std::bit_cast<Floats>(std::bit_cast<Ints>(p) + (std::bit_cast<Ints>(shifted) << 23));
}

// Sums exp((logit - highest) * scale) over a row. Adds within blocks in float, and the blocks' sums in
// double.
double sumOfExponentials(std::span<const float> row, float highest, float scale) {
  constexpr size_t kBlock = 64 * kLanes;
  double sum = 0;
  for (size_t begin = 0; begin < row.size(); begin += kBlock) {
    const std::span<const float> block = row.subspan(begin, std::min(kBlock, row.size() - begin));
    Floats lanes{};
    size_t i = 0;
    for (; i + kLanes <= block.size(); i += kLanes) {
      lanes += exponential((load(&block[i]) - highest) * scale);
    }
    for (size_t lane = 0; lane < kLanes; ++lane) sum += lanes[lane];
    for (; i < block.size(); ++i) sum += std::exp((block[i] - highest) * scale);
  }
  return sum;
}

// SplitMix64's output function (Steele, Lea and Flood, "Fast splittable pseudorandom number generators",
// 2014).
uint64_t mix(uint64_t z) {
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

// Returns the n-th number of a seed's sequence, in [0, 1). The seed is mixed too, so that the sequences of
// nearby seeds don't overlap.
double uniform(uint64_t seed, uint64_t n) {
  constexpr uint64_t kGamma = 0x9E3779B97F4A7C15u;
  return static_cast<double>(mix(mix(seed + kGamma) + (n + 1) * kGamma) >> 11) * 0x1p-53;
}

// Finds the smallest set of best candidates whose weights add up to `weight`, and returns the last of them.
// Reorders the candidates.
template <typename Candidate, typename WeightOf>
Candidate lastOfNucleus(std::span<Candidate> candidates, double weight, WeightOf weightOf) {
  while (candidates.size() > 1) {
    const size_t middle = candidates.size() / 2;
    std::nth_element(candidates.begin(), candidates.begin() + static_cast<ptrdiff_t>(middle),
                     candidates.end(),
                     [](const Candidate& a, const Candidate& b) { return a.betterThan(b); });
    double better = 0;
    for (const Candidate& candidate : candidates.first(middle)) better += weightOf(candidate);
    if (better >= weight) {
      candidates = candidates.first(middle);
    } else {
      weight -= better;
      candidates = candidates.subspan(middle);
    }
  }
  return candidates.front();
}

[[noreturn]] void throwNotFinite() {
  throw Error(
      "ERR_EXECUTION_FAILED",
      "The model's logits are not finite numbers: it has overflowed in its precision (on a GPU, 'fp32' "
      "and 'bf16' have a wider range than 'fp16'), or its weights are damaged");
}

[[noreturn]] void throwNoneLeft() {
  throw Error("ERR_EXECUTION_FAILED",
              "No token can be drawn: each one's logit is -Infinity, from the model, options.logitBias, or "
              "for a stop token that options.minTokens excludes");
}

}  // namespace

Sampler::Sampler(SamplingOptions options, size_t vocabulary)
    : options_(std::move(options)), vocabulary_(vocabulary) {
  for (const auto& [token, bias] : options_.logitBias) {
    if (token < 0 || static_cast<size_t>(token) >= vocabulary_) {
      throw Error("ERR_INVALID_ARG_VALUE", "options.logitBias names token " + std::to_string(token) +
                                               ", and the model's are 0 to " +
                                               std::to_string(vocabulary_ - 1));
    }
  }
  if (penalizes()) observedAt_.resize(vocabulary_);
}

bool Sampler::penalizes() const {
  return options_.repetitionPenalty != 1 || options_.presencePenalty != 0 || options_.frequencyPenalty != 0;
}

void Sampler::observe(std::span<const int32_t> prompt) {
  if (options_.repetitionPenalty == 1) return;
  for (const int32_t token : prompt) observe(token, false);
}

void Sampler::observe(int32_t token, bool inAnswer) {
  // A token without a logit can't be penalized.
  if (token < 0 || static_cast<size_t>(token) >= observedAt_.size()) return;
  uint32_t& at = observedAt_[static_cast<size_t>(token)];
  if (at == 0) {
    observed_.push_back({token, 0});
    at = static_cast<uint32_t>(observed_.size());
  }
  if (inAnswer) ++observed_[at - 1].inAnswer;
}

SampledToken Sampler::sample(std::span<const float> logits, std::span<const int32_t> banned) {
  if (logits.size() != vocabulary_) {
    throw Error("ERR_EXECUTION_FAILED", "The model gave " + std::to_string(logits.size()) +
                                            " logits, not one for each of " + std::to_string(vocabulary_) +
                                            " tokens");
  }
  const std::span<const float> row = adjust(logits, banned);
  const Candidate highest = best(row);
  SampledToken sampled;
  if (options_.temperature <= 0 && options_.logprobs < 0) {
    sampled.token = highest.token;
  } else {
    size_t count = options_.temperature <= 0 ? 1 : std::max(kRanked, static_cast<size_t>(options_.topK));
    if (options_.logprobs > 0) count = std::max(count, static_cast<size_t>(options_.logprobs));
    rank(row, std::min(count, row.size()));
    sampled = *choose({row, row.size(), std::nullopt});
  }
  observe(sampled.token, true);
  ++drawn_;
  return sampled;
}

std::optional<SampledToken> Sampler::sample(const TopLogits& top, std::span<const int32_t> banned) {
  if (penalizes() || !options_.logitBias.empty() || top.logits.empty()) return std::nullopt;
  float lowest = INFINITY;
  size_t excluded = 0;
  ranked_.clear();
  for (size_t i = 0; i < top.logits.size(); ++i) {
    if (!(top.logits[i] <= FLT_MAX)) throwNotFinite();
    lowest = std::min(lowest, top.logits[i]);
    if (std::find(banned.begin(), banned.end(), top.tokens[i]) != banned.end()) {
      ++excluded;
    } else {
      ranked_.push_back({top.logits[i], top.tokens[i]});
    }
  }
  // It is NaN if a logit is, or if no logit is finite.
  if (!std::isfinite(top.logSumExp)) throwNotFinite();
  // If several logits equal the lowest, the device decides which of them the head includes, and in which
  // order.
  if (top.logits.size() < vocabulary_) {
    std::erase_if(ranked_, [&](const Candidate& candidate) { return candidate.logit == lowest; });
  }
  const auto better = [](const Candidate& a, const Candidate& b) { return a.betterThan(b); };
  if (!std::is_sorted(ranked_.begin(), ranked_.end(), better)) {
    std::sort(ranked_.begin(), ranked_.end(), better);
  }
  Source source{{}, vocabulary_ - excluded, std::nullopt};
  if (banned.empty()) source.logSumExp = top.logSumExp;
  if (ranked_.empty() && source.size > 0) return std::nullopt;
  if (ranked_.empty() || ranked_.front().logit < -FLT_MAX) throwNoneLeft();
  const auto sampled = choose(source);
  if (sampled) ++drawn_;
  return sampled;
}

// Returns the row after bias, penalties and bans.
std::span<const float> Sampler::adjust(std::span<const float> logits, std::span<const int32_t> banned) {
  if (options_.logitBias.empty() && observed_.empty() && banned.empty()) return logits;
  adjusted_.assign(logits.begin(), logits.end());
  for (const auto& [token, bias] : options_.logitBias) adjusted_[static_cast<size_t>(token)] += bias;
  for (const Observed& observed : observed_) {
    float& logit = adjusted_[static_cast<size_t>(observed.token)];
    logit = logit > 0 ? logit / options_.repetitionPenalty : logit * options_.repetitionPenalty;
    logit -= options_.frequencyPenalty * static_cast<float>(observed.inAnswer);
    if (observed.inAnswer > 0) logit -= options_.presencePenalty;
  }
  for (const int32_t token : banned) {
    if (token >= 0 && static_cast<size_t>(token) < vocabulary_) {
      adjusted_[static_cast<size_t>(token)] = -INFINITY;
    }
  }
  return adjusted_;
}

// Finds the best token of a row, in one pass that also checks every logit.
Sampler::Candidate Sampler::best(std::span<const float> row) {
  constexpr size_t kBlock = 1024;
  Candidate highest{-INFINITY, -1};
  bool notFinite = false;
  size_t blockOfHighest = 0;
  for (size_t begin = 0; begin < row.size(); begin += kBlock) {
    const std::span<const float> block = row.subspan(begin, std::min(kBlock, row.size() - begin));
    Floats lanes = Floats{} - INFINITY;
    Ints bad{};
    size_t i = 0;
    for (; i + kLanes <= block.size(); i += kLanes) {
      const Floats logits = load(&block[i]);
      lanes = logits > lanes ? logits : lanes;
      bad |= ~(logits <= FLT_MAX);
    }
    notFinite |= any(bad);
    float highestOfBlock = std::max({lanes[0], lanes[1], lanes[2], lanes[3]});
    for (; i < block.size(); ++i) {
      highestOfBlock = std::max(highestOfBlock, block[i]);
      notFinite |= !(block[i] <= FLT_MAX);
    }
    if (highestOfBlock > highest.logit) {
      highest.logit = highestOfBlock;
      blockOfHighest = begin;
    }
  }
  if (notFinite) throwNotFinite();
  if (highest.logit < -FLT_MAX) throwNoneLeft();
  const auto found =
      std::find(row.begin() + static_cast<ptrdiff_t>(blockOfHighest), row.end(), highest.logit);
  highest.token = static_cast<int32_t>(found - row.begin());
  return highest;
}

// Puts the `count` best tokens of a row into ranked_. When twice as many have been collected, they are cut
// down to `count`. From then on only logits above the last of these are added, because the earlier of two
// tokens with equal logits is the better one.
void Sampler::rank(std::span<const float> row, size_t count) {
  const auto better = [](const Candidate& a, const Candidate& b) { return a.betterThan(b); };
  const auto cut = [&] {
    const auto last = ranked_.begin() + static_cast<ptrdiff_t>(count) - 1;
    std::nth_element(ranked_.begin(), last, ranked_.end(), better);
    ranked_.resize(count);
    return ranked_.back().logit;
  };
  ranked_.clear();
  for (size_t token = 0; token < count; ++token) {
    ranked_.push_back({row[token], static_cast<int32_t>(token)});
  }
  float bar = cut();
  const auto consider = [&](size_t token) {
    if (!(row[token] > bar)) return;
    ranked_.push_back({row[token], static_cast<int32_t>(token)});
    if (ranked_.size() == 2 * count) bar = cut();
  };
  size_t i = count;
  for (; i + kLanes <= row.size(); i += kLanes) {
    if (!any(load(&row[i]) > bar)) continue;
    for (size_t lane = 0; lane < kLanes; ++lane) consider(i + lane);
  }
  for (; i < row.size(); ++i) consider(i);
  cut();
  std::sort(ranked_.begin(), ranked_.end(), better);
}

// Draws from the ranked tokens and, if they aren't enough, from the source's row. Returns nothing if that row
// is unknown.
std::optional<SampledToken> Sampler::choose(const Source& source) {
  std::optional<double> sum;
  if (options_.logprobs >= 0) {
    sum = sumOfExponentials(source, 1);
    const size_t alternatives = std::min(static_cast<size_t>(options_.logprobs), source.size);
    if (!sum || alternatives > ranked_.size()) return std::nullopt;
  }
  const auto candidate = options_.temperature <= 0 ? ranked_.front() : draw(source);
  if (!candidate) return std::nullopt;
  SampledToken sampled;
  sampled.token = candidate->token;
  if (sum) {
    const double logSumExp = ranked_.front().logit + std::log(*sum);
    const auto logprob = [&](float logit) { return static_cast<float>(logit - logSumExp); };
    sampled.logprob = logprob(candidate->logit);
    const size_t alternatives = std::min(static_cast<size_t>(options_.logprobs), ranked_.size());
    for (const Candidate& ranked : std::span(ranked_).first(alternatives)) {
      sampled.top.push_back({ranked.token, logprob(ranked.logit)});
    }
  }
  return sampled;
}

// The sum over all tokens that may be drawn, relative to the best one's exponential.
std::optional<double> Sampler::sumOfExponentials(const Source& source, float inverseTemperature) const {
  const float highest = ranked_.front().logit;
  if (!source.row.empty()) {
    return node_tensorrt::sumOfExponentials(source.row, highest, inverseTemperature);
  }
  if (ranked_.size() == source.size) {
    double sum = 0;
    for (const Candidate& candidate : ranked_) {
      sum += std::exp(static_cast<double>(candidate.logit - highest) * inverseTemperature);
    }
    return sum;
  }
  if (!source.logSumExp || inverseTemperature != 1) return std::nullopt;
  return std::exp(static_cast<double>(*source.logSumExp) - highest);
}

std::optional<Sampler::Candidate> Sampler::draw(const Source& source) {
  const double random = uniform(options_.seed, drawn_);
  size_t kept = ranked_.size();        // this many ranked tokens pass the filters
  bool bounded = kept == source.size;  // no other token passes them
  if (options_.topK > 0 && !bounded) {
    if (static_cast<size_t>(options_.topK) > kept) return std::nullopt;
    bounded = true;
  }
  if (options_.topK > 0) kept = std::min(kept, static_cast<size_t>(options_.topK));

  const float inverseTemperature = 1 / options_.temperature;
  weights_.clear();
  double sum = 0;
  for (size_t i = 0; i < kept; ++i) {
    const double difference = static_cast<double>(ranked_[i].logit) - ranked_.front().logit;
    weights_.push_back(std::exp(difference * inverseTemperature));
    sum += weights_.back();
  }
  double nucleus = 0;
  if (options_.topP < 1) {
    const auto all = bounded ? sum : sumOfExponentials(source, inverseTemperature);
    if (!all) return std::nullopt;
    nucleus = options_.topP * *all;
    if (sum >= nucleus) {
      bounded = true;
      kept = 0;
      sum = 0;
      do sum += weights_[kept++];
      while (sum < nucleus && kept < weights_.size());
    }
  }
  while (kept > 1 && weights_[kept - 1] < options_.minP) {
    bounded = true;
    sum -= weights_[--kept];
  }
  if (!bounded) return drawUnbounded(source, sum, nucleus, random);
  return pickRanked(kept, random * sum);
}

// Draws when the filters may keep tokens that aren't ranked. The ranked tokens come first, in order, then the
// others by token. `sum` is the weight of the ranked ones.
std::optional<Sampler::Candidate> Sampler::drawUnbounded(const Source& source, double sum, double nucleus,
                                                         double random) {
  const bool filtered = options_.topP < 1 || options_.minP > 0;
  std::optional<double> all;  // weight of all tokens that are kept
  if (!filtered) {
    all = sumOfExponentials(source, 1 / options_.temperature);
    if (!all) return std::nullopt;
    if (random * *all < sum) return pickRanked(ranked_.size(), random * *all);
  }
  if (source.row.empty()) return std::nullopt;

  const auto weightOf = [&](const Candidate& candidate) {
    return std::exp((candidate.logit - ranked_.front().logit) / options_.temperature);
  };
  // Calls `take` with each token that isn't ranked, until `take` returns false.
  const auto forEachOther = [&](auto take) {
    for (size_t token = 0; token < source.row.size(); ++token) {
      const Candidate candidate{source.row[token], static_cast<int32_t>(token)};
      if (ranked_.back().betterThan(candidate) && !take(candidate)) return;
    }
  };
  Candidate last{-FLT_MAX, INT32_MAX};  // the last token kept
  if (options_.topP < 1) {
    rest_.clear();
    forEachOther([&](const Candidate& candidate) {
      rest_.push_back(candidate);
      return true;
    });
    last = lastOfNucleus(std::span(rest_), nucleus - sum, weightOf);
  }
  const auto keptWeightOf = [&](const Candidate& candidate) {
    if (last.betterThan(candidate)) return 0.0f;
    const float weight = weightOf(candidate);
    return weight < options_.minP ? 0.0f : weight;
  };
  if (filtered) {
    all = sum;
    forEachOther([&](const Candidate& candidate) {
      *all += keptWeightOf(candidate);
      return true;
    });
  }
  double left = random * *all - sum;
  if (left < 0) return pickRanked(ranked_.size(), random * *all);
  Candidate chosen = ranked_.back();
  forEachOther([&](const Candidate& candidate) {
    const float weight = keptWeightOf(candidate);
    if (weight > 0) chosen = candidate;
    return (left -= weight) >= 0;
  });
  return chosen;
}

// Returns the first of the best `kept` tokens at which the sum of weights exceeds `weight`.
Sampler::Candidate Sampler::pickRanked(size_t kept, double weight) const {
  size_t i = 0;
  while (i + 1 < kept && weights_[i + 1] > 0 && (weight -= weights_[i]) >= 0) ++i;
  return ranked_[i];
}

}  // namespace node_tensorrt
