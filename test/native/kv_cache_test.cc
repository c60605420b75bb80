#include "core/kv_cache.h"

#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <string>

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

// Both kinds do the same, as far as a row's first tokens go.
class KvCacheTest : public testing::TestWithParam<bool> {
 protected:
  std::unique_ptr<KvCache> cache_ = GetParam() ? inPlaceCache(kTensors, kRows, kCapacity, hostTensorMemory())
                                               : copyingCache(kTensors, kRows, hostTensorMemory());

  // Bytes that tell tokens, heads and tensors apart.
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

  // What read() gives of the first `length` of `bytes`' `total` tokens.
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
  cache_->bind(1, {&past, 1}, inputs, outputs);
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

INSTANTIATE_TEST_SUITE_P(Both, KvCacheTest, testing::Bool(),
                         [](const auto& info) { return info.param ? "InPlace" : "Copying"; });

size_t residentBytes() {
  std::ifstream statm("/proc/self/statm");
  size_t pages = 0;
  statm >> pages >> pages;
  return pages * 4096;
}

// 32,768 tokens of a model with 4 KiB a token: what bytesUsed() says, the system finds too.
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
