#include "core/parallel.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

namespace node_tensorrt {
namespace {

// More threads than this don't read memory faster.
constexpr size_t kMostThreads = 16;

}  // namespace

void parallelFor(size_t count, const std::function<void(size_t)>& body) {
  std::atomic<size_t> next{0};
  std::mutex mutex;
  std::exception_ptr failure;
  const auto work = [&] {
    try {
      for (size_t i = next++; i < count; i = next++) body(i);
    } catch (...) {
      next = count;
      std::lock_guard lock(mutex);
      if (!failure) failure = std::current_exception();
    }
  };
  const size_t processors = std::max(std::thread::hardware_concurrency(), 1U);
  const size_t threads = std::min({count, processors, kMostThreads});
  {
    std::vector<std::jthread> helpers;
    for (size_t i = 1; i < threads; ++i) {
      try {
        helpers.emplace_back(work);
      } catch (const std::system_error&) {
        break;  // The system has no thread left. This one does the work.
      }
    }
    work();
  }
  if (failure) std::rethrow_exception(failure);
}

}  // namespace node_tensorrt
