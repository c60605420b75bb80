#include "core/host_memory.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <thread>
#include <vector>

#include "core/error.h"

namespace node_tensorrt {
namespace {

TEST(HostMemory, IsAlignedAndZeroed) {
  const auto memory = allocateHostMemory(1000);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(memory.get()) % kHostAlignment, 0u);
  const std::vector<char> zeros(1000);
  EXPECT_EQ(std::memcmp(memory.get(), zeros.data(), zeros.size()), 0);
}

TEST(HostMemory, RefusesWhatCannotBeHad) {
  try {
    allocateHostMemory(SIZE_MAX / 2);
    FAIL();
  } catch (const Error& error) {
    EXPECT_STREQ(error.code(), "ERR_OUT_OF_MEMORY");
  }
}

TEST(HostMemoryPool, ReusesABlockAndKeepsNoMoreThanItsLimit) {
  HostMemoryPool pool(4096);
  const void* first = pool.acquire(1000).get();
  EXPECT_EQ(pool.idleBytes(), 1024u);
  auto block = pool.acquire(900);
  EXPECT_EQ(block.get(), first);
  EXPECT_EQ(pool.idleBytes(), 0u);
  pool.acquire(8192);
  EXPECT_EQ(pool.idleBytes(), 0u);
}

TEST(HostMemoryPool, ServesSeveralThreadsAndOutlivesNothing) {
  std::shared_ptr<void> survivor;
  {
    HostMemoryPool pool(1 << 20);
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
      threads.emplace_back([&pool, t] {
        for (size_t i = 1; i < 2000; ++i) std::memset(pool.acquire(i).get(), t, i);
      });
    }
    for (auto& thread : threads) thread.join();
    survivor = pool.acquire(64);
  }
  std::memset(survivor.get(), 1, 64);
}

}  // namespace
}  // namespace node_tensorrt
