#include "trap.h"

#include <cstdio>
#include <cstdlib>

namespace stand_in {

Version playedVersion() {
  const Version headers{NV_TENSORRT_MAJOR, NV_TENSORRT_MINOR, NV_TENSORRT_PATCH};
  const char* text = std::getenv("STAND_IN_TENSORRT_VERSION");
  Version version;
  if (text == nullptr || std::sscanf(text, "%d.%d.%d", &version.major, &version.minor, &version.patch) != 3 ||
      version.major != headers.major) {
    return headers;
  }
  return version;
}

void trap(const char* slot) {
  std::fprintf(stderr, "stand-in TensorRT: %s was called, which the stand-in does not implement\n", slot);
  std::abort();
}

void require(const char* slot, Version first) {
  const Version played = playedVersion();
  if (played >= first) return;
  std::fprintf(stderr, "stand-in TensorRT: %s was called, which came with %d.%d; this plays %d.%d.%d\n", slot,
               first.major, first.minor, played.major, played.minor, played.patch);
  std::abort();
}

}  // namespace stand_in
