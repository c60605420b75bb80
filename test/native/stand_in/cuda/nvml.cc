// NVIDIA's management library for the machine that the stand-in CUDA driver plays. Its first GPU is a whole
// one; the others are parts of a GPU (MIG).
#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "../fault.h"
#include "devices.h"
#include "javascript.h"

namespace {
constexpr int kNotFound = 6;
}

extern "C" {
STAND_IN_EXPORT int nvmlInit_v2() {
  if (isMainThreadOfJavaScript()) {
    std::fputs("stand-in NVML: nvmlInit_v2 on JavaScript's thread\n", stderr);
    std::abort();
  }
  return 0;
}
STAND_IN_EXPORT int nvmlShutdown() {
  return 0;
}
STAND_IN_EXPORT int nvmlSystemGetDriverVersion(char* version, unsigned length) {
  const char* value = std::getenv("STAND_IN_NVIDIA_DRIVER");
  std::snprintf(version, length, "%s", value != nullptr ? value : "590.10");
  return 0;
}
// A handle is the ordinal plus 1.
STAND_IN_EXPORT int nvmlDeviceGetHandleByUUID(const char* uuid, void** device) {
  for (size_t i = 0; i < readDevices().size(); ++i) {
    // As in cuDeviceGetUuid, the low half of each byte is the ordinal.
    std::string expected = i == 0 ? "GPU-" : "MIG-";
    expected += "0_1_2_3_-4_5_-6_7_-8_9_-a_b_c_d_e_f_";
    std::replace(expected.begin(), expected.end(), '_', static_cast<char>('0' + i));
    if (expected != uuid) continue;
    *device = reinterpret_cast<void*>(i + 1);
    return 0;
  }
  return kNotFound;
}
// Returns a GPU's whole memory; CUDA leaves only part of it to programs.
STAND_IN_EXPORT int nvmlDeviceGetMemoryInfo(void* device, unsigned long long* totalFreeUsed) {
  const size_t ordinal = reinterpret_cast<size_t>(device) - 1;
  totalFreeUsed[0] = readDevices().at(ordinal).memory + (size_t{512} << 20);
  totalFreeUsed[1] = totalFreeUsed[0];
  totalFreeUsed[2] = 0;
  return 0;
}
}
