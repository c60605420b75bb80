#include "core/sequence_state.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <random>

#include "core/error.h"

namespace node_tensorrt {
namespace {

const StateFormat kFormat = {"llama, float32", 24};
const std::vector<int32_t> kTokens = {5, 7, 11, 13, 17};

std::vector<std::byte> saved(const StateFormat& format, size_t cached) {
  const EncodedState state = encodeState(format, kTokens, cached, [&](std::byte* to) {
    for (size_t i = 0; i < cached * format.bytesPerToken; ++i) to[i] = static_cast<std::byte>(i * 7);
  });
  const auto* begin = static_cast<const std::byte*>(state.data.get());
  return {begin, begin + state.byteLength};
}

// Returns null if the bytes were decoded.
const char* refusal(std::span<const std::byte> bytes, const StateFormat& format = kFormat) {
  try {
    decodeState(format, bytes);
    return nullptr;
  } catch (const Error& error) {
    return error.code();
  }
}

TEST(SequenceStateTest, ComesBackAsItWas) {
  for (const size_t cached : {0, 4, 5}) {
    const std::vector<std::byte> bytes = saved(kFormat, cached);
    const DecodedState state = decodeState(kFormat, bytes);
    EXPECT_EQ(state.tokens, kTokens);
    EXPECT_EQ(state.cached, cached);
    for (size_t i = 0; i < cached * kFormat.bytesPerToken; ++i) {
      ASSERT_EQ(state.cache[i], static_cast<std::byte>(i * 7));
    }
  }
}

TEST(SequenceStateTest, RefusesWhatIsOfAnotherModel) {
  const std::vector<std::byte> bytes = saved(kFormat, 4);
  EXPECT_EQ(refusal(bytes), nullptr);
  EXPECT_STREQ(refusal(bytes, {"llama, float16", 24}), "ERR_STATE_MISMATCH");
  EXPECT_STREQ(refusal(bytes, {"llama, float32, longer", 24}), "ERR_STATE_MISMATCH");
  EXPECT_STREQ(refusal(bytes, {"llama, float32", 12}), "ERR_STATE_MISMATCH");
}

// The checksum proves nothing, because whoever makes states can compute it too.
TEST(SequenceStateTest, RefusesTokensThatTheModelLacks) {
  const auto refusalOf = [](const std::vector<int32_t>& tokens, std::optional<size_t> vocabulary) {
    const StateFormat format = {"llama, float32", 24, vocabulary};
    const EncodedState state = encodeState(format, tokens, 0, [](std::byte*) {});
    return refusal({static_cast<const std::byte*>(state.data.get()), state.byteLength}, format);
  };
  EXPECT_EQ(refusalOf({0, 17, 0}, 18), nullptr);
  EXPECT_EQ(refusalOf({0, INT32_MAX}, std::nullopt), nullptr);
  EXPECT_STREQ(refusalOf({0, 18, 0}, 18), "ERR_STATE_MISMATCH");
  EXPECT_STREQ(refusalOf({0, INT32_MAX}, 18), "ERR_STATE_MISMATCH");
  for (const std::optional<size_t> vocabulary : {std::optional<size_t>(18), std::optional<size_t>()}) {
    EXPECT_STREQ(refusalOf({5, -1}, vocabulary), "ERR_STATE_MISMATCH");
    EXPECT_STREQ(refusalOf({INT32_MIN, 5}, vocabulary), "ERR_STATE_MISMATCH");
  }
}

TEST(SequenceStateTest, RefusesEveryDamage) {
  const std::vector<std::byte> bytes = saved(kFormat, 4);
  for (size_t length = 0; length < bytes.size(); ++length) {
    EXPECT_STREQ(refusal(std::span(bytes).first(length)), "ERR_STATE_MISMATCH") << length << " bytes";
  }
  for (size_t bit = 0; bit < bytes.size() * 8; ++bit) {
    std::vector<std::byte> damaged = bytes;
    damaged[bit / 8] ^= static_cast<std::byte>(1 << bit % 8);
    EXPECT_STREQ(refusal(damaged), "ERR_STATE_MISMATCH") << "bit " << bit;
  }
  std::vector<std::byte> longer = bytes;
  longer.push_back({});
  EXPECT_STREQ(refusal(longer), "ERR_STATE_MISMATCH");
}

// Numbers chosen to do harm: no size may overflow, and nothing outside may be read (the sanitizers watch for
// that).
TEST(SequenceStateTest, SurvivesInventedNumbers) {
  std::mt19937_64 random(7);
  const std::vector<std::byte> bytes = saved(kFormat, 4);
  const uint64_t odd[] = {
      0, 1, 5, 24, 0x7fffffff, 0xffffffff, uint64_t{1} << 62, ~uint64_t{0}, ~uint64_t{0} / 24 + 1};
  for (int i = 0; i < 20'000; ++i) {
    std::vector<std::byte> invented = bytes;
    for (size_t at = 8; at < 48; at += 4) {
      if (random() % 3 != 0) continue;
      const uint64_t number = random() % 2 == 0 ? odd[random() % std::size(odd)] : random();
      std::memcpy(invented.data() + at, &number, random() % 2 == 0 ? 4 : 8);
    }
    if (invented == bytes) continue;
    EXPECT_STREQ(refusal(invented), "ERR_STATE_MISMATCH");
  }
}

}  // namespace
}  // namespace node_tensorrt
