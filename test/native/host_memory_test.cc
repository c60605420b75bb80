#include "core/host_memory.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
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

}  // namespace
}  // namespace node_tensorrt
