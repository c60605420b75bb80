#include "core/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <limits>
#include <map>
#include <numeric>
#include <random>
#include <sstream>
#include <string>

#include "core/error.h"

namespace node_tensorrt {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// What Hugging Face's processors compute for a row (test/oracle/make_sampler_goldens.py).
struct Golden {
  SamplingOptions options;
  std::vector<float> logits;
  std::vector<int32_t> prompt;
  std::vector<int32_t> answer;
  std::vector<double> logprob;
  std::vector<double> probability;
};

std::vector<Golden> readGoldens() {
  std::ifstream file(NODE_TENSORRT_FIXTURES "/sampler/goldens.txt");
  std::vector<Golden> goldens(1);
  std::string line;
  while (std::getline(file, line)) {
    if (line.empty()) {
      goldens.emplace_back();
      continue;
    }
    std::istringstream words(line);
    std::string key;
    words >> key;
    std::vector<double> values;
    for (std::string word; words >> word;) values.push_back(std::strtod(word.c_str(), nullptr));
    Golden& golden = goldens.back();
    SamplingOptions& options = golden.options;
    if (options.temperature == 0) options.temperature = 1;
    const std::map<std::string, float*> numbers = {{"temperature", &options.temperature},
                                                   {"topP", &options.topP},
                                                   {"minP", &options.minP},
                                                   {"repetitionPenalty", &options.repetitionPenalty},
                                                   {"presencePenalty", &options.presencePenalty},
                                                   {"frequencyPenalty", &options.frequencyPenalty}};
    if (numbers.contains(key)) *numbers.at(key) = static_cast<float>(values.at(0));
    if (key == "topK") options.topK = static_cast<int32_t>(values.at(0));
    if (key == "bias") {
      for (size_t i = 0; i < values.size(); i += 2) {
        options.logitBias.emplace_back(static_cast<int32_t>(values[i]), static_cast<float>(values[i + 1]));
      }
    }
    if (key == "logits") golden.logits.assign(values.begin(), values.end());
    if (key == "prompt") golden.prompt.assign(values.begin(), values.end());
    if (key == "answer") golden.answer.assign(values.begin(), values.end());
    if (key == "logprob") golden.logprob = values;
    if (key == "probability") golden.probability = values;
  }
  goldens.pop_back();
  return goldens;
}

bool penalizes(const SamplingOptions& options) {
  return options.repetitionPenalty != 1 || options.presencePenalty != 0 || options.frequencyPenalty != 0;
}

// A sampler that has observed the prompt and, if needed, drawn the answer from rows that leave no choice.
Sampler after(const Golden& golden, const SamplingOptions& options) {
  Sampler sampler(options, golden.logits.size());
  sampler.observe(golden.prompt);
  if (!penalizes(options)) return sampler;
  for (const int32_t token : golden.answer) {
    std::vector<float> row(golden.logits.size(), -kInfinity);
    row[static_cast<size_t>(token)] = 0;
    EXPECT_EQ(sampler.sample(row, {}).token, token);
  }
  return sampler;
}

// Pearson's chi-squared test. A correct sampler fails it once in 10,000 times.
bool fits(const std::vector<double>& probability, const std::vector<uint32_t>& counts) {
  const double draws = std::accumulate(counts.begin(), counts.end(), 0.0);
  double statistic = 0, rareExpected = 0, rareCount = 0;
  int bins = 0;
  const auto add = [&](double expected, double count) {
    statistic += (count - expected) * (count - expected) / expected;
    ++bins;
  };
  for (size_t token = 0; token < probability.size(); ++token) {
    if (probability[token] == 0 && counts[token] > 0) return false;
    const double expected = probability[token] * draws;
    if (expected >= 5) {
      add(expected, counts[token]);
    } else {
      rareExpected += expected;
      rareCount += counts[token];
    }
  }
  if (rareExpected >= 5) add(rareExpected, rareCount);
  // Wilson and Hilferty's approximation of the quantile.
  const double freedom = bins - 1;
  const double cube = 1 - 2 / (9 * freedom) + 3.719 * std::sqrt(2 / (9 * freedom));
  return bins < 2 || statistic < freedom * cube * cube * cube;
}

// What a device's top-k head computes for a row. Equal logits may come in any choice and order; here the last
// ones come first.
TopLogits headOf(const std::vector<float>& row, size_t size, std::vector<float>& logits,
                 std::vector<int32_t>& tokens) {
  tokens.resize(row.size());
  std::iota(tokens.rbegin(), tokens.rend(), 0);
  std::stable_sort(tokens.begin(), tokens.end(), [&](int32_t a, int32_t b) {
    return row[static_cast<size_t>(a)] > row[static_cast<size_t>(b)];
  });
  tokens.resize(size);
  logits.clear();
  for (const int32_t token : tokens) logits.push_back(row[static_cast<size_t>(token)]);
  double sum = 0;
  for (const float logit : row) sum += std::exp(static_cast<double>(logit) - logits[0]);
  return {logits, tokens, static_cast<float>(logits[0] + std::log(sum))};
}

std::vector<float> randomRow(size_t size, float spread, uint32_t seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal(0, spread);
  std::vector<float> row(size);
  for (float& logit : row) logit = normal(generator);
  return row;
}

std::string codeOf(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& error) {
    return error.code();
  }
  return "";
}

TEST(Sampler, LogProbabilitiesAreThoseAfterBiasAndPenalties) {
  const auto goldens = readGoldens();
  ASSERT_EQ(goldens.size(), 15u);
  for (const Golden& golden : goldens) {
    SamplingOptions options = golden.options;
    options.temperature = 0;
    options.logprobs = static_cast<int32_t>(golden.logits.size());
    const SampledToken sampled = after(golden, options).sample(golden.logits, {});
    const auto best = std::max_element(golden.logprob.begin(), golden.logprob.end());
    EXPECT_EQ(sampled.token, best - golden.logprob.begin());
    EXPECT_NEAR(sampled.logprob, *best, 1e-5);
    ASSERT_EQ(sampled.top.size(), golden.logits.size());
    float previous = 0;
    for (const auto& [token, logprob] : sampled.top) {
      const double expected = golden.logprob[static_cast<size_t>(token)];
      if (std::isfinite(expected)) {
        EXPECT_NEAR(logprob, expected, 1e-5 * std::max(1.0, std::abs(expected)));
      } else {
        EXPECT_EQ(logprob, -kInfinity);
      }
      EXPECT_LE(logprob, previous);
      previous = logprob;
    }
  }
}

TEST(Sampler, DrawsFromTheDistributionThatTheFiltersLeave) {
  const auto goldens = readGoldens();
  for (size_t i = 0; i < goldens.size(); ++i) {
    const Golden& golden = goldens[i];
    std::vector<uint32_t> counts(golden.logits.size());
    for (uint64_t seed = 0; seed < 3'000; ++seed) {
      SamplingOptions options = golden.options;
      options.seed = seed;
      ++counts[static_cast<size_t>(after(golden, options).sample(golden.logits, {}).token)];
    }
    EXPECT_TRUE(fits(golden.probability, counts)) << "case " << i;
  }
}

TEST(Sampler, ADrawDoesNotDependOnTheOneBefore) {
  for (const Golden& golden : readGoldens()) {
    const SamplingOptions& options = golden.options;
    if (penalizes(options)) continue;
    Sampler sampler = after(golden, options);
    std::vector<uint32_t> counts(golden.logits.size());
    std::vector<uint32_t> pairs(4);  // counts of better and worse halves
    const auto upper = [&](int32_t token) {
      double better = 0;
      for (const double p : golden.probability) {
        if (p > golden.probability[static_cast<size_t>(token)]) better += p;
      }
      return better < 0.5;
    };
    bool previous = true;
    double ofUpper = 0;
    for (int i = 0; i < 5'000; ++i) {
      const int32_t token = sampler.sample(golden.logits, {}).token;
      ++counts[static_cast<size_t>(token)];
      const bool now = upper(token);
      if (i > 0) ++pairs[(previous ? 2u : 0u) + (now ? 1u : 0u)];
      ofUpper += now ? 1.0 / 5'000 : 0;
      previous = now;
    }
    EXPECT_TRUE(fits(golden.probability, counts));
    EXPECT_TRUE(fits(
        {(1 - ofUpper) * (1 - ofUpper), (1 - ofUpper) * ofUpper, ofUpper * (1 - ofUpper), ofUpper * ofUpper},
        pairs));
  }
}

TEST(Sampler, TheSameSeedGivesTheSameTokens) {
  const auto row = randomRow(5000, 2, 1);
  const auto draw = [&](uint64_t seed) {
    SamplingOptions options;
    options.temperature = 1;
    options.seed = seed;
    Sampler sampler(options, row.size());
    std::vector<int32_t> tokens;
    for (int i = 0; i < 20; ++i) tokens.push_back(sampler.sample(row, {}).token);
    return tokens;
  };
  EXPECT_EQ(draw(7), draw(7));
  EXPECT_NE(draw(7), draw(8));
}

// A head's results either suffice or are reported as insufficient. In both cases the token is the whole
// row's.
TEST(Sampler, AHeadGivesTheTokenOfTheWholeRow) {
  std::mt19937 generator(3);
  const auto oneOf = [&](std::vector<float> values) { return values[generator() % values.size()]; };
  size_t enough = 0, notEnough = 0;
  for (int round = 0; round < 1000; ++round) {
    auto row = randomRow(round % 3 == 0 ? 200 : 2000, oneOf({0.2f, 1, 3, 6}), static_cast<uint32_t>(round));
    // Rounding makes logits equal, among the best ones or around the head's last.
    const float step = oneOf({0, 0, 0.01f, 0.25f, 2});
    for (float& logit : row) logit = step > 0 ? std::round(logit / step) * step : logit;
    SamplingOptions options;
    options.temperature = oneOf({0, 0.6f, 1, 1, 1.5f});
    options.topK = static_cast<int32_t>(oneOf({0, 0, 1, 40, 300}));
    options.topP = oneOf({1, 1, 0.9f, 0.5f});
    options.minP = oneOf({0, 0, 0.05f, 0.9f});
    options.logprobs = static_cast<int32_t>(oneOf({-1, 0, 5}));
    options.seed = generator();
    std::vector<int32_t> banned;
    if (round % 5 == 0)
      banned = {static_cast<int32_t>(std::max_element(row.begin(), row.end()) - row.begin()), 9};
    Sampler whole(options, row.size()), head(options, row.size());
    std::vector<float> logits;
    std::vector<int32_t> tokens;
    const TopLogits top = headOf(row, std::min<size_t>(row.size(), 256), logits, tokens);
    for (int i = 0; i < 3; ++i) {
      const SampledToken expected = whole.sample(row, banned);
      auto sampled = head.sample(top, banned);
      ++(sampled ? enough : notEnough);
      if (!sampled) sampled = head.sample(row, banned);
      EXPECT_EQ(sampled->token, expected.token);
      EXPECT_NEAR(sampled->logprob, expected.logprob, 2e-6);
      ASSERT_EQ(sampled->top.size(), expected.top.size());
      for (size_t j = 0; j < expected.top.size(); ++j) {
        EXPECT_EQ(sampled->top[j].token, expected.top[j].token);
        EXPECT_NEAR(sampled->top[j].logprob, expected.top[j].logprob, 2e-6);
      }
    }
  }
  EXPECT_GT(enough, 1500u);
  EXPECT_GT(notEnough, 200u);
}

TEST(Sampler, WhereEqualLogitsReachTheEndOfAHeadTheWholeRowTells) {
  std::vector<float> logits;
  std::vector<int32_t> tokens;
  const auto greedy = [&](const std::vector<float>& row, size_t size) -> std::optional<int32_t> {
    const auto sampled = Sampler({}, row.size()).sample(headOf(row, size, logits, tokens), {});
    return sampled ? std::optional(sampled->token) : std::nullopt;
  };
  std::vector<float> row(1000, 1.5f);
  EXPECT_EQ(greedy(row, 256), std::nullopt);
  row[700] = row[900] = 2;
  EXPECT_EQ(greedy(row, 256), 700) << "though the head has the other one first";
  EXPECT_EQ(greedy(row, 2), std::nullopt) << "there may be more of them";
  EXPECT_EQ(greedy({1, 1, 1}, 3), 0) << "the head is the whole row";
}

TEST(Sampler, PenaltiesAndBiasNeedTheWholeRow) {
  const auto row = randomRow(2000, 1, 1);
  std::vector<float> logits;
  std::vector<int32_t> tokens;
  const TopLogits top = headOf(row, 256, logits, tokens);
  SamplingOptions options;
  EXPECT_EQ(Sampler(options, 2000).sample(top, {})->token, tokens[0]);
  EXPECT_EQ(Sampler(options, 2000).sample(top, std::vector{tokens[0]})->token, tokens[1]);
  options.logitBias = {{5, 1.0f}};
  EXPECT_FALSE(Sampler(options, 2000).sample(top, {}));
  options = {};
  options.frequencyPenalty = 0.1f;
  EXPECT_FALSE(Sampler(options, 2000).sample(top, {}));
}

TEST(Sampler, OfEqualLogitsTheLowestTokenIsTheBest) {
  for (const size_t size : {1u, 5u, 16u, 1000u, 5000u}) {
    std::vector<float> row(size, 1.5f);
    EXPECT_EQ(Sampler({}, size).sample(row, {}).token, 0);
    if (size < 6) continue;
    row[3] = row[size - 1] = 2;
    EXPECT_EQ(Sampler({}, size).sample(row, {}).token, 3);
    EXPECT_EQ(Sampler({}, size).sample(row, std::vector{3}).token, static_cast<int32_t>(size) - 1);
    SamplingOptions options;
    options.temperature = 1;
    options.topK = 4;
    options.logprobs = 4;
    const auto sampled = Sampler(options, size).sample(row, {});
    EXPECT_EQ(sampled.top[0].token, 3);
    EXPECT_EQ(sampled.top[1].token, static_cast<int32_t>(size) - 1);
    EXPECT_EQ(sampled.top[2].token, 0);
    EXPECT_EQ(sampled.top[3].token, 1);
  }
}

TEST(Sampler, FindsTheBestOfEveryPosition) {
  for (const size_t size : {1u, 3u, 15u, 17u, 1023u, 1024u, 1025u, 2050u}) {
    for (size_t at = 0; at < size; ++at) {
      std::vector<float> row(size, -kInfinity);
      row[at] = -300;
      EXPECT_EQ(Sampler({}, size).sample(row, {}).token, static_cast<int32_t>(at));
    }
  }
}

TEST(Sampler, LogitsThatAreNotFiniteAreAnError) {
  for (const float temperature : {0.0f, 1.0f}) {
    SamplingOptions options;
    options.temperature = temperature;
    for (const size_t size : {1u, 7u, 64u, 1500u}) {
      const auto code = [&](std::vector<float> row, std::vector<int32_t> banned = {}) {
        return codeOf([&] { Sampler(options, size).sample(row, banned); });
      };
      EXPECT_EQ(code(std::vector<float>(size, -kInfinity)), "ERR_EXECUTION_FAILED");
      EXPECT_EQ(code(std::vector<float>(size, std::nanf(""))), "ERR_EXECUTION_FAILED");
      for (const size_t at : {size_t{0}, size / 2, size - 1}) {
        auto row = randomRow(size, 1, 1);
        row[at] = std::nanf("");
        EXPECT_EQ(code(row), "ERR_EXECUTION_FAILED");
        row[at] = kInfinity;
        EXPECT_EQ(code(row), "ERR_EXECUTION_FAILED");
        row[at] = -kInfinity;
        EXPECT_EQ(code(row), size == 1 ? "ERR_EXECUTION_FAILED" : "");
      }
      std::vector<int32_t> all(size);
      std::iota(all.begin(), all.end(), 0);
      EXPECT_EQ(code(randomRow(size, 1, 1), all), "ERR_EXECUTION_FAILED");
      std::vector<float> logits;
      std::vector<int32_t> tokens;
      TopLogits top = headOf(randomRow(size, 1, 1), std::min<size_t>(size, 32), logits, tokens);
      logits[0] = std::nanf("");
      EXPECT_EQ(codeOf([&] { Sampler(options, size).sample(top, {}); }), "ERR_EXECUTION_FAILED");
      logits[0] = 1;
      // The sum shows that there is a bad logit outside the head.
      for (const float sum : {kInfinity, std::nanf("")}) {
        top.logSumExp = sum;
        EXPECT_EQ(codeOf([&] { Sampler(options, size).sample(top, {}); }), "ERR_EXECUTION_FAILED");
        EXPECT_EQ(codeOf([&] { Sampler(options, size).sample(top, std::vector{0}); }),
                  "ERR_EXECUTION_FAILED");
      }
    }
  }
}

TEST(Sampler, OnlyFiniteTokensAreDrawnHoweverFlatTheDistribution) {
  auto row = randomRow(3000, 0.001f, 4);
  for (size_t i = 0; i < row.size(); i += 2) row[i] = -kInfinity;
  SamplingOptions options;
  options.temperature = 100;
  for (const float topP : {1.0f, 0.999f}) {
    options.topP = topP;
    Sampler sampler(options, row.size());
    for (int i = 0; i < 2000; ++i) EXPECT_EQ(sampler.sample(row, {}).token % 2, 1);
  }
  options.temperature = 1e-30f;  // weights are only 1 and 0
  const auto best = std::max_element(row.begin(), row.end()) - row.begin();
  EXPECT_EQ(Sampler(options, row.size()).sample(row, {}).token, best);
}

TEST(Sampler, TokensThatTheModelLacks) {
  SamplingOptions options;
  options.repetitionPenalty = 2;
  Sampler sampler(options, 4);
  sampler.observe(std::vector{-1, 4, 1 << 30});
  EXPECT_EQ(sampler.sample(std::vector<float>{0, 3, 1, 2}, std::vector{-1, 4}).token, 1);
  EXPECT_EQ(codeOf([&] { sampler.sample(std::vector<float>{0, 3, 1}, {}); }), "ERR_EXECUTION_FAILED");
  options.logitBias = {{4, 1.0f}};
  EXPECT_EQ(codeOf([&] { Sampler(options, 4); }), "ERR_INVALID_ARG_VALUE");
}

}  // namespace
}  // namespace node_tensorrt
