#include "trap.h"

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <thread>

#include "../cuda/javascript.h"
#include "../fault.h"

namespace stand_in {
namespace {

// Plays how long the real library takes to open: it has hundreds of megabytes to map and much to set up.
__attribute__((constructor)) void open() {
  if (isMainThreadOfJavaScript()) {
    std::fputs("stand-in TensorRT: opened on JavaScript's thread\n", stderr);
    std::abort();
  }
  // Creates static objects one after another, each with an exit handler that needs all of them.
  static std::atomic<bool> complete{false};
  takeLonger("opening", [] {
    std::atexit([] {
      if (!complete) std::abort();
    });
  });
  complete = true;
}

}  // namespace

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

void takeLonger(const char* fault, void (*step)()) {
  if (standInFaultNumber(fault) <= 0) return;
  // Set by the library's exit handlers, which then wait so that other threads can notice it.
  static std::atomic<bool> destroyed{false};
  static const struct Destroyed {
    ~Destroyed() {
      destroyed = true;
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
    }
  } atExit;
  const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(standInFaultNumber(fault));
  while (std::chrono::steady_clock::now() < end) {
    if (destroyed) std::abort();
    step();
    std::this_thread::sleep_for(std::chrono::microseconds(50));
  }
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
