// A CUDA driver for tests: two GPUs, or what the environment variable STAND_IN_CUDA says: `none` (no GPU),
// `uninitialized` (cuInit fails, as with a driver that does not match its kernel module), `lost` (a query
// fails).
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <string_view>

namespace {
bool says(std::string_view mode) {
  const char* value = std::getenv("STAND_IN_CUDA");
  return value != nullptr && mode == value;
}
constexpr int kErrorSystemDriverMismatch = 803;
constexpr int kErrorUnknown = 999;
}  // namespace

extern "C" {
#define EXPORT __attribute__((visibility("default")))

EXPORT int cuInit(unsigned) {
  return says("uninitialized") ? kErrorSystemDriverMismatch : 0;
}
EXPORT int cuDriverGetVersion(int* version) {
  *version = 13010;
  return 0;
}
EXPORT int cuDeviceGetCount(int* count) {
  *count = says("none") ? 0 : 2;
  return 0;
}
EXPORT int cuDeviceGet(int* device, int ordinal) {
  *device = ordinal;
  return 0;
}
EXPORT int cuDeviceGetName(char* name, int length, int device) {
  std::strncpy(name, device == 0 ? "Stand-in GPU A" : "Stand-in GPU B", static_cast<size_t>(length));
  return 0;
}
EXPORT int cuDeviceGetAttribute(int* value, int attribute, int device) {
  *value = attribute == 75 ? (device == 0 ? 8 : 12) : (device == 0 ? 9 : 0);
  return 0;
}
EXPORT int cuDeviceTotalMem_v2(size_t* bytes, int device) {
  if (says("lost") && device == 1) return kErrorUnknown;
  *bytes = size_t{24} << 30;
  return 0;
}
EXPORT int cuDeviceGetUuid_v2(unsigned char* uuid, int device) {
  for (int i = 0; i < 16; ++i) uuid[i] = static_cast<unsigned char>(i * 16 + device);
  return 0;
}
EXPORT int cuDeviceGetPCIBusId(char* id, int length, int device) {
  std::strncpy(id, device == 0 ? "0000:1B:00.0" : "0000:1C:00.0", static_cast<size_t>(length));
  return 0;
}
EXPORT int cuGetErrorName(int status, const char** name) {
  *name = status == kErrorSystemDriverMismatch ? "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH" : "CUDA_ERROR_UNKNOWN";
  return 0;
}

// NVML's part.
EXPORT int nvmlInit_v2() {
  return 0;
}
EXPORT int nvmlShutdown() {
  return 0;
}
EXPORT int nvmlSystemGetDriverVersion(char* version, unsigned length) {
  std::strncpy(version, "590.10", length);
  return 0;
}
// The first is a whole GPU, the second a part of one.
EXPORT int nvmlDeviceGetHandleByUUID(const char* uuid, void** device) {
  const std::string_view text = uuid;
  if (text != "GPU-00102030-4050-6070-8090-a0b0c0d0e0f0" &&
      text != "MIG-01112131-4151-6171-8191-a1b1c1d1e1f1")
    return kErrorUnknown;
  *device = const_cast<char*>("device");
  return 0;
}
EXPORT int nvmlDeviceGetMemoryInfo(void*, unsigned long long* totalFreeUsed) {
  totalFreeUsed[0] = (size_t{24} << 30) + (size_t{512} << 20);
  return 0;
}
}
