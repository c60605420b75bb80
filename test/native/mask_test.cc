#include "core/mask.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <numeric>
#include <random>
#include <span>
#include <stop_token>
#include <string>
#include <vector>

#include "core/byte_source.h"
#include "core/error.h"
#include "core/mask_rules.h"
#include "core/parallel.h"
#include "core/scores.h"

namespace node_tensorrt {
namespace {

std::vector<float> randomWeights(size_t count, unsigned seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal;
  std::vector<float> weights(count);
  // Every fourth is a whole number, so that there are ties.
  for (size_t i = 0; i < count; ++i) {
    weights[i] = i % 4 == 0 ? std::round(normal(generator)) : normal(generator);
  }
  return weights;
}

MagnitudeScores scoresOf(const std::vector<float>& weights) {
  return MagnitudeScores(Magnitudes(
      "weights", std::make_shared<MemoryBytes>(std::as_bytes(std::span(weights))), DataType::kFloat32));
}

// The positions of some elements, by falling magnitude; of equal ones the first comes first.
std::vector<size_t> ranked(const std::vector<float>& weights, std::vector<size_t> positions) {
  std::stable_sort(positions.begin(), positions.end(),
                   [&](size_t a, size_t b) { return std::abs(weights[a]) > std::abs(weights[b]); });
  return positions;
}

void expectKept(const Mask& mask, const std::vector<bool>& expected) {
  ASSERT_EQ(mask.size(), expected.size());
  for (size_t i = 0; i < expected.size(); ++i) ASSERT_EQ(mask.test(i), expected[i]) << i;
}

TEST(MaskRules, KeepsTheLargestOfSeveralTensors) {
  // The second case is larger than the sample by which the threshold is guessed, and than a thread's slice.
  for (const size_t size : {1000UL, 1'300'001UL}) {
    const std::vector<float> both = randomWeights(size + 77, 1);
    const std::vector<float> first(both.begin(), both.begin() + 77);
    const std::vector<float> second(both.begin() + 77, both.end());
    const MagnitudeScores scores[] = {scoresOf(first), scoresOf(second)};
    const ScoredTensor tensors[] = {{&scores[0], {77}}, {&scores[1], {static_cast<int64_t>(size)}}};
    std::vector<size_t> positions(both.size());
    std::iota(positions.begin(), positions.end(), size_t{0});
    const std::vector<size_t> order = ranked(both, positions);
    for (const size_t keep : {size_t{0}, size_t{1}, both.size() / 10, both.size() / 2, both.size()}) {
      const std::vector<Mask> masks = keepLargest(tensors, keep, std::stop_token());
      std::vector<bool> expected(both.size());
      for (size_t i = 0; i < keep; ++i) expected[order[i]] = true;
      expectKept(masks[0], {expected.begin(), expected.begin() + 77});
      expectKept(masks[1], {expected.begin() + 77, expected.end()});
    }
  }
}

TEST(MaskRules, CountsExactlyWhereNearlyAllAreEqual) {
  std::vector<float> weights(3'000'000, 0.5F);
  weights.back() = 1;
  const MagnitudeScores scores = scoresOf(weights);
  const ScoredTensor tensor{&scores, {3'000'000}};
  const Mask mask = keepLargest(std::span(&tensor, 1), 1'200'000, std::stop_token())[0];
  EXPECT_EQ(mask.kept(), 1'200'000U);
  EXPECT_TRUE(mask.test(0) && mask.test(1'199'998) && mask.test(2'999'999));
  EXPECT_FALSE(mask.test(1'199'999));
}

TEST(MaskRules, KeepsTheLargestOfEachGroup) {
  struct Case {
    Shape dims;
    size_t axis;
    Pattern pattern;
  };
  const Case cases[] = {{{30, 64}, 1, {2, 4}},   {{64, 30}, 0, {2, 4}},          {{7, 12, 5}, 1, {1, 3}},
                        {{5, 40}, 1, {7, 40}},   {{40, 5}, 0, {7, 40}},          {{3, 4, 300000}, 1, {2, 4}},
                        {{4, 70}, 1, {3, 70}},   {{2, 20000, 7}, 1, {9, 20000}}, {{1, 4, 1}, 1, {4, 4}},
                        {{100, 4096}, 1, {2, 4}}};
  for (const auto& [dims, axis, pattern] : cases) {
    const auto [outer, size, inner] = viewAlong(dims, axis);
    const std::vector<float> weights = randomWeights(outer * size * inner, 2);
    const MagnitudeScores scores = scoresOf(weights);
    const Mask mask = keepInGroups({&scores, dims}, pattern, axis, std::stop_token());
    std::vector<bool> expected(weights.size());
    for (size_t group = 0; group < outer * (size / pattern.of) * inner; ++group) {
      const size_t from = group / inner * pattern.of * inner + group % inner;
      std::vector<size_t> members(pattern.of);
      for (size_t i = 0; i < pattern.of; ++i) members[i] = from + i * inner;
      members = ranked(weights, members);
      for (size_t i = 0; i < pattern.keep; ++i) expected[members[i]] = true;
    }
    expectKept(mask, expected);
    EXPECT_EQ(checkPattern(mask, pattern, axis).violations, 0U);
  }
}

TEST(MaskRules, UpdatesKeepTheNumberOfElements) {
  const std::vector<float> weights = randomWeights(5000, 3);
  const std::vector<float> gradients = randomWeights(5000, 4);
  const RandomScores random(5000, 7);
  const ScoredTensor tensor{&random, {50, 100}};
  const Mask before = keepLargest(std::span(&tensor, 1), 1500, std::stop_token())[0];
  const Mask after = updateMask(before, scoresOf(weights), scoresOf(gradients), 400, std::stop_token());
  EXPECT_EQ(after.kept(), 1500U);
  EXPECT_FALSE(after == before);
}

TEST(MaskRules, RefusesNumbersThatAreNotFinite) {
  std::vector<float> weights(100'000, 1.0F);
  weights[70'000] = NAN;
  const MagnitudeScores scores = scoresOf(weights);
  const ScoredTensor tensor{&scores, {100'000}};
  try {
    keepLargest(std::span(&tensor, 1), 10, std::stop_token());
    FAIL() << "It should have thrown.";
  } catch (const Error& error) {
    EXPECT_STREQ(error.code(), "ERR_INVALID_ARG_VALUE");
    EXPECT_NE(std::string(error.what()).find("element 70000"), std::string::npos) << error.what();
  }
}

TEST(MaskRules, StopsWhenAsked) {
  const std::vector<float> weights = randomWeights(1000, 5);
  const MagnitudeScores scores = scoresOf(weights);
  const ScoredTensor tensor{&scores, {1000}};
  std::stop_source stop;
  stop.request_stop();
  EXPECT_THROW(keepLargest(std::span(&tensor, 1), 10, stop.get_token()), Cancelled);
  EXPECT_THROW(keepInGroups(tensor, {2, 4}, 0, stop.get_token()), Cancelled);
}

TEST(Mask, AppliesToEveryElementSize) {
  for (const size_t size : {0UL, 1UL, 63UL, 64UL, 130UL, 600'000UL}) {
    const RandomScores random(size, 1);
    const ScoredTensor tensor{&random, {static_cast<int64_t>(size)}};
    const Mask mask = keepLargest(std::span(&tensor, 1), size / 3, std::stop_token())[0];
    for (const size_t elementBytes : {1UL, 2UL, 4UL, 8UL}) {
      const std::vector<std::byte> elements(size * elementBytes, std::byte{0x81});
      std::vector<std::byte> masked(elements.size(), std::byte{0x55});
      applyWholeMask(mask, elements, masked.data(), elementBytes);
      for (size_t i = 0; i < masked.size(); ++i) {
        ASSERT_EQ(masked[i], mask.test(i / elementBytes) ? std::byte{0x81} : std::byte{0});
      }
    }
  }
}

TEST(Mask, FindsTheFirstGroupThatKeepsTooMany) {
  const std::byte bits[] = {std::byte{0b0011'0101}, std::byte{0b0111}};
  const Mask mask({12}, bits);
  const PatternCheck found = checkPattern(mask, {2, 4}, 0);
  EXPECT_EQ(found.groups, 3U);
  EXPECT_EQ(found.violations, 1U);
  EXPECT_EQ(found.firstElement, 8U);
}

TEST(ParallelFor, RethrowsAndEndsEarly) {
  EXPECT_THROW(parallelFor(1000,
                           [](size_t i) {
                             if (i == 3) throw Error("ERR_IO", "three");
                           }),
               Error);
}

}  // namespace
}  // namespace node_tensorrt
