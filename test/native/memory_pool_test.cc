#include "core/memory_pool.h"

#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "core/error.h"
#include "core/host_memory.h"

namespace node_tensorrt {
namespace {

TEST(MemoryPool, ReusesABlockAndKeepsNoMoreThanItsLimit) {
  MemoryPool pool(4096, hostMemory());
  const void* first = pool.acquire(1000).get();
  EXPECT_EQ(pool.idleBytes(), 1024u);
  auto block = pool.acquire(900);
  EXPECT_EQ(block.get(), first);
  EXPECT_EQ(pool.idleBytes(), 0u);
  EXPECT_EQ(pool.reservedBytes(), 1024u);
  pool.acquire(8192);
  EXPECT_EQ(pool.idleBytes(), 0u);
  EXPECT_EQ(pool.reservedBytes(), 1024u);
}

TEST(MemoryPool, ALargeBlockIsAtMostAnEighthTooLarge) {
  for (const size_t bytes : {(size_t{1} << 20) + 1, (size_t{5} << 20) - 7, size_t{100} << 20}) {
    MemoryPool pool(size_t{1} << 30, hostMemory());
    pool.acquire(bytes);
    EXPECT_GE(pool.reservedBytes(), bytes);
    EXPECT_LE(pool.reservedBytes(), bytes + bytes / 8 + 1);
  }
}

TEST(MemoryPool, GivesUpIdleBlocksBeforeItRefuses) {
  std::set<void*> live;
  const MemorySource twoBlocks = {[&](size_t) {
                                    if (live.size() == 2) throw Error("ERR_OUT_OF_MEMORY", "full");
                                    return *live.insert(new char).first;
                                  },
                                  [&](void* block) {
                                    live.erase(block);
                                    delete static_cast<char*>(block);
                                  }};
  MemoryPool pool(1 << 20, twoBlocks);
  auto kept = pool.acquire(64);
  pool.acquire(128);
  auto other = pool.acquire(256);
  EXPECT_EQ(pool.idleBytes(), 0u);
  EXPECT_THROW(pool.acquire(64), Error);
}

TEST(MemoryPool, ServesSeveralThreadsAndOutlivesNothing) {
  std::shared_ptr<void> survivor;
  {
    MemoryPool pool(1 << 20, hostMemory());
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

// Counts allocations, and runs deferred ones when a test says so.
struct CountedMemory {
  int live = 0;
  std::vector<std::function<void()>> later;

  MemorySource source() {
    return {[this](size_t) -> void* { return ++live, new char; },
            [this](void* block) {
              --live;
              delete static_cast<char*>(block);
            },
            [this](std::function<void()> job) { later.push_back(std::move(job)); }};
  }
  void doLater() {
    for (const auto& job : std::exchange(later, {})) job();
  }
};

TEST(MemoryPool, LeavesOnlyWhatIsInUseWhenItGoes) {
  CountedMemory memory;
  std::shared_ptr<void> kept;
  std::shared_ptr<void> other;
  {
    MemoryPool pool(1 << 20, memory.source());
    kept = pool.acquire(64);
    other = pool.acquire(64);
    pool.acquire(128);
    EXPECT_EQ(memory.live, 3);
  }
  EXPECT_EQ(memory.live, 2);
  kept.reset();
  EXPECT_EQ(memory.live, 1);
  other.reset();
  EXPECT_EQ(memory.live, 0);
}

TEST(MemoryPool, WhoMustNotWaitGetsWhatIsIdleAndTheRestLater) {
  CountedMemory memory;
  MemoryPool pool(1024, memory.source());
  EXPECT_EQ(pool.acquireIdle(100), nullptr);
  EXPECT_EQ(memory.live, 0);
  memory.doLater();
  EXPECT_EQ(pool.reservedBytes(), 128u);
  EXPECT_EQ(pool.idleBytes(), 128u);
  const auto block = pool.acquireIdle(100);
  EXPECT_NE(block, nullptr);
  EXPECT_EQ(pool.idleBytes(), 0u);
  // A block that the pool wouldn't keep isn't allocated for later.
  EXPECT_EQ(pool.acquireIdle(2000), nullptr);
  EXPECT_TRUE(memory.later.empty());
  EXPECT_EQ(memory.live, 1);
}

}  // namespace
}  // namespace node_tensorrt
