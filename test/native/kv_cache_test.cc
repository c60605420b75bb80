#include "core/kv_cache.h"

#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <set>
#include <string>
#include <tuple>

#include "core/host_memory.h"

namespace node_tensorrt {
namespace {

constexpr size_t kRows = 3;
constexpr size_t kCapacity = 8;
const std::vector<CacheTensor> kTensors = {
    {.input = 1, .type = DataType::kFloat32, .rank = 4, .kvHeads = 2, .headDim = 3},
    {.input = 0, .type = DataType::kFloat16, .rank = 3, .kvHeads = 1, .headDim = 5},
};
constexpr size_t kBytesPerToken = 2 * 3 * 4 + 5 * 2;

// Both kinds of cache behave the same for a row's tokens.
class KvCacheTest : public testing::TestWithParam<bool> {
 protected:
  std::unique_ptr<KvCache> cache_ = GetParam() ? inPlaceCache(kTensors, kRows, kCapacity, hostTensorMemory())
                                               : copyingCache(kTensors, kRows, hostTensorMemory());

  // Bytes that differ for each token, head and tensor.
  static std::vector<std::byte> content(size_t length, int seed) {
    std::vector<std::byte> bytes(length * kBytesPerToken);
    for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(i * 31 + seed);
    return bytes;
  }

  void write(size_t row, size_t length, int seed) {
    cache_->write(row, length, content(length, seed).data());
  }

  std::vector<std::byte> read(size_t row, size_t length) {
    std::vector<std::byte> bytes(length * kBytesPerToken);
    cache_->read(row, length, bytes.data());
    return bytes;
  }

  // What read() should return for the first `length` of the `total` tokens in `bytes`.
  static std::vector<std::byte> first(const std::vector<std::byte>& bytes, size_t total, size_t length) {
    std::vector<std::byte> result;
    const std::byte* at = bytes.data();
    for (const CacheTensor& tensor : kTensors) {
      for (size_t head = 0; head < tensor.kvHeads; ++head) {
        const size_t token = tensor.headDim * byteSize(tensor.type);
        result.insert(result.end(), at, at + length * token);
        at += total * token;
      }
    }
    return result;
  }
};

TEST_P(KvCacheTest, CopiesExchangesAndTruncatesRows) {
  ASSERT_EQ(cache_->bytesPerToken(), kBytesPerToken);
  write(0, 6, 1);
  write(1, 4, 2);
  EXPECT_EQ(read(0, 6), content(6, 1));
  EXPECT_EQ(cache_->bytesUsed(), 10 * kBytesPerToken);

  cache_->copy(0, 2, 6);
  EXPECT_EQ(read(2, 6), content(6, 1));
  cache_->exchange(0, 6, 1, 4);
  EXPECT_EQ(read(0, 4), content(4, 2));
  EXPECT_EQ(read(1, 6), content(6, 1));
  EXPECT_EQ(read(2, 6), content(6, 1));

  cache_->truncate(1, 2);
  EXPECT_EQ(cache_->held(1), 2u);
  EXPECT_EQ(read(1, 2), first(content(6, 1), 6, 2));
  EXPECT_EQ(read(2, 6), content(6, 1)) << "a copy is independent";
  cache_->truncate(1, 0);
  EXPECT_EQ(cache_->held(1), 0u);
}

TEST_P(KvCacheTest, FeedsARunAndTakesItsResult) {
  write(1, 4, 3);
  std::vector<Tensor> inputs(2);
  std::vector<Tensor> outputs(2);
  const size_t past = 3;
  cache_->bind(1, {&past, 1}, 1, inputs, outputs);
  const int64_t length = GetParam() ? kCapacity : 3;
  EXPECT_EQ(inputs[1].shape, (Shape{1, 2, length, 3}));
  EXPECT_EQ(inputs[0].shape, (Shape{1, length, 5}));
  EXPECT_EQ(inputs[0].type, DataType::kFloat16);
  EXPECT_EQ(inputs[0].byteLength, static_cast<size_t>(length) * 10);
  const std::vector<std::byte> expected = first(content(4, 3), 4, 3);
  EXPECT_EQ(std::memcmp(inputs[1].data.get(), expected.data(), 3 * 3 * 4), 0)
      << "the first head's three tokens";
  if (GetParam()) {
    EXPECT_EQ(outputs[0].data, inputs[1].data);
    EXPECT_EQ(outputs[1].data, inputs[0].data);
  } else {
    EXPECT_EQ(outputs[0].data, nullptr);
    outputs[0] = inputs[1];
    outputs[1] = inputs[0];
    cache_->commit(2, 3, outputs);
    EXPECT_EQ(read(2, 3), expected);
  }
}

// What a run wrote is trusted once its logits were finite. Copies and moves take doubts with them.
TEST_P(KvCacheTest, KnowsWhatIsInDoubt) {
  std::vector<Tensor> inputs(2);
  std::vector<Tensor> outputs(2);
  const auto bind = [&](size_t row, size_t past, size_t fresh) {
    cache_->bind(row, {&past, 1}, fresh, inputs, outputs);
  };
  write(0, 6, 1);
  write(1, 4, 2);
  EXPECT_EQ(cache_->trusted(0), SIZE_MAX);
  bind(0, 3, 2);
  EXPECT_EQ(cache_->trusted(0), 3u);
  bind(0, 3, 1);
  EXPECT_EQ(cache_->trusted(0), 3u);
  cache_->copy(0, 2, 3);
  EXPECT_GE(cache_->trusted(2), 3u) << "of the three, none is in doubt";
  cache_->exchange(0, 4, 1, 4);
  EXPECT_EQ(cache_->trusted(1), 3u);
  EXPECT_GE(cache_->trusted(0), 4u);
  cache_->trust(1, 6);
  EXPECT_EQ(cache_->trusted(1), SIZE_MAX);
  bind(1, 1, 1);
  EXPECT_EQ(cache_->trusted(1), 1u);
  write(1, 4, 2);
  EXPECT_EQ(cache_->trusted(1), SIZE_MAX);
}

TEST_P(KvCacheTest, TellsWhatIsFinite) {
  std::vector<std::byte> bytes(4 * kBytesPerToken);
  EXPECT_TRUE(cache_->isFinite(4, bytes.data()));
  const auto holds = [&](size_t at, std::initializer_list<int> value) {
    std::vector<std::byte> changed = bytes;
    for (const int byte : value) changed[at++] = static_cast<std::byte>(byte);
    return cache_->isFinite(4, changed.data());
  };
  // Little-endian; replaces the first and the last number of each tensor by NaN, infinities and the largest
  // number.
  const size_t halves = 4 * 2 * 3 * 4;
  for (const size_t at : {size_t{0}, halves - 4}) {
    EXPECT_FALSE(holds(at, {0, 0, 0xc0, 0x7f}));
    EXPECT_FALSE(holds(at, {0, 0, 0x80, 0x7f}));
    EXPECT_FALSE(holds(at, {0, 0, 0x80, 0xff}));
    EXPECT_TRUE(holds(at, {0xff, 0xff, 0x7f, 0x7f}));
  }
  for (const size_t at : {halves, bytes.size() - 2}) {
    EXPECT_FALSE(holds(at, {0, 0x7e}));
    EXPECT_FALSE(holds(at, {0, 0x7c}));
    EXPECT_FALSE(holds(at, {0, 0xfc}));
    EXPECT_TRUE(holds(at, {0xff, 0x7b}));
  }
  const auto bfloat16 =
      inPlaceCache({{.input = 0, .type = DataType::kBfloat16, .rank = 4, .kvHeads = 1, .headDim = 1}}, 1, 1,
                   hostTensorMemory());
  for (const auto& [high, low, finite] :
       {std::tuple{0x7f, 0x80, false}, {0xff, 0x80, false}, {0x7f, 0xc0, false}, {0x7f, 0x7f, true}}) {
    const std::byte number[] = {static_cast<std::byte>(low), static_cast<std::byte>(high)};
    EXPECT_EQ(bfloat16->isFinite(1, number), finite);
  }
}

INSTANTIATE_TEST_SUITE_P(Both, KvCacheTest, testing::Bool(),
                         [](const auto& info) { return info.param ? "InPlace" : "Copying"; });

// A run reads whole rows, so beyond its tokens it must not find anything that an earlier run left in doubt.
class InPlaceDoubtTest : public testing::Test {
 protected:
  const std::unique_ptr<KvCache> cache_ = inPlaceCache(kTensors, kRows, kCapacity, hostTensorMemory());
  std::vector<Tensor> inputs_{2};
  std::vector<Tensor> outputs_{2};

  // Does a run that fills everything it writes with `mark`.
  void run(size_t row, size_t past, size_t fresh, int mark) {
    cache_->bind(row, {&past, 1}, fresh, inputs_, outputs_);
    for (const CacheTensor& tensor : kTensors) {
      const size_t token = tensor.headDim * byteSize(tensor.type);
      for (size_t head = 0; head < tensor.kvHeads; ++head) {
        auto* const begin = static_cast<std::byte*>(inputs_[tensor.input].data.get());
        std::memset(begin + (head * kCapacity + past) * token, mark, fresh * token);
      }
    }
    cache_->commit(row, past + fresh, outputs_);
  }

  // Returns a byte for each token of the row, as the next run after `past` finds it. Heads and tensors must
  // agree.
  std::vector<int> marks(size_t row, size_t past, size_t fresh) {
    cache_->bind(row, {&past, 1}, fresh, inputs_, outputs_);
    std::vector<int> marks;
    for (size_t at = 0; at < kCapacity; ++at) {
      std::set<int> found;
      for (const CacheTensor& tensor : kTensors) {
        const size_t token = tensor.headDim * byteSize(tensor.type);
        for (size_t head = 0; head < tensor.kvHeads; ++head) {
          const auto* const begin = static_cast<const std::byte*>(inputs_[tensor.input].data.get());
          for (size_t i = 0; i < token; ++i)
            found.insert(static_cast<int>(begin[(head * kCapacity + at) * token + i]));
        }
      }
      EXPECT_EQ(found.size(), 1u);
      marks.push_back(*found.begin());
    }
    return marks;
  }
};

TEST_F(InPlaceDoubtTest, IsZeroedBeyondARowsTokens) {
  run(1, 0, 6, 7);
  EXPECT_EQ(marks(1, 2, 1), (std::vector<int>{7, 7, 7, 0, 0, 0, 0, 0}))
      << "the run overwrites the third itself";
  run(1, 0, 6, 7);
  run(1, 6, 2, 8);
  EXPECT_EQ(marks(1, 0, 1), (std::vector<int>{7, 0, 0, 0, 0, 0, 0, 0}));
}

TEST_F(InPlaceDoubtTest, WhatLogitsVouchForStays) {
  run(1, 0, 6, 7);
  cache_->trust(1, 6);
  EXPECT_EQ(marks(1, 2, 1), (std::vector<int>{7, 7, 7, 7, 7, 7, 0, 0}));
  cache_->trust(1, 3);
  run(1, 3, 2, 8);
  EXPECT_EQ(marks(1, 0, 1), (std::vector<int>{7, 7, 7, 0, 0, 7, 0, 0}));
}

TEST_F(InPlaceDoubtTest, WhatFillsAStepUpStaysInDoubt) {
  run(1, 0, 6, 7);
  cache_->trust(1, 3);
  EXPECT_EQ(cache_->trusted(1), 3u);
  EXPECT_EQ(marks(1, 3, 1), (std::vector<int>{7, 7, 7, 7, 0, 0, 0, 0}));
}

// If something else left values there that aren't finite, the row must not fail forever.
TEST_F(InPlaceDoubtTest, OfARowThatFailedIsAllThatWasWrittenBehind) {
  run(1, 0, 6, 7);
  cache_->trust(1, 6);
  cache_->truncate(1, 0);
  run(1, 0, 7, 8);
  cache_->trust(1, 7);
  run(1, 2, 1, 9);
  cache_->distrust(1);
  EXPECT_EQ(cache_->trusted(1), 2u);
  EXPECT_EQ(marks(1, 3, 1), (std::vector<int>{8, 8, 9, 8, 0, 0, 0, 0}));
  cache_->trust(1, 4);
  cache_->distrust(1);
  EXPECT_EQ(marks(1, 0, 1), (std::vector<int>{8, 8, 9, 8, 0, 0, 0, 0})) << "nothing is in doubt";
}

TEST_F(InPlaceDoubtTest, GoesWithRowsThatMove) {
  run(0, 0, 6, 7);  // in doubt
  run(1, 0, 3, 8);
  cache_->trust(1, 3);
  cache_->exchange(0, 6, 1, 3);
  EXPECT_EQ(marks(0, 3, 1), (std::vector<int>{8, 8, 8, 7, 0, 0, 0, 0})) << "what the other one left behind";
  cache_->copy(1, 2, 4);
  EXPECT_EQ(marks(2, 1, 1), (std::vector<int>{7, 7, 0, 0, 0, 0, 0, 0}));
  EXPECT_EQ(marks(1, 5, 1), (std::vector<int>{7, 7, 7, 7, 7, 7, 0, 0}));
  cache_->truncate(1, 2);
  EXPECT_EQ(marks(1, 7, 1), (std::vector<int>{7, 7, 0, 0, 0, 0, 0, 0}));
}

size_t residentBytes() {
  std::ifstream statm("/proc/self/statm");
  size_t pages = 0;
  statm >> pages >> pages;
  return pages * 4096;
}

// 32,768 tokens of a model with 4 KiB per token: the system must report as much memory as bytesUsed().
TEST(InPlaceCacheTest, TakesTheMemoryThatItSays) {
  const std::vector<CacheTensor> tensors(
      8, {.input = 0, .type = DataType::kFloat32, .rank = 4, .kvHeads = 2, .headDim = 64});
  const auto cache = inPlaceCache(tensors, 16, 32'768, hostTensorMemory());
  EXPECT_EQ(cache->bytesPerToken(), 4096u);
  EXPECT_EQ(cache->bytesReserved(), size_t{16} * 32'768 * 4096);
  const std::vector<std::byte> tokens(32'768 * cache->bytesPerToken(), std::byte{1});
  const size_t before = residentBytes();
  cache->write(3, 32'768, tokens.data());
  const auto grown = static_cast<double>(residentBytes() - before);
  EXPECT_NEAR(grown / static_cast<double>(cache->bytesUsed()), 1, 0.05);
  cache->truncate(3, 1000);
  EXPECT_EQ(cache->bytesUsed(), 1000 * 4096u);
  EXPECT_LT(static_cast<double>(residentBytes() - before), 0.1 * grown);
}

}  // namespace
}  // namespace node_tensorrt
