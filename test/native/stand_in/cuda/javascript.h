// True on the main thread if STAND_IN_JAVASCRIPT=main. It then is JavaScript's thread, which must not wait
// for a GPU.
#pragma once

#include <unistd.h>

#include <cstdlib>
#include <string_view>

inline bool isMainThreadOfJavaScript() {
  const char* thread = std::getenv("STAND_IN_JAVASCRIPT");
  return thread != nullptr && std::string_view(thread) == "main" && ::gettid() == ::getpid();
}
