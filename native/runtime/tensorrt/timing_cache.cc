#include "runtime/tensorrt/timing_cache.h"

#include <chrono>
#include <fstream>
#include <iterator>
#include <thread>
#include <utility>

#include "core/error.h"

namespace node_tensorrt::tensorrt::NODE_TENSORRT_FLAVOUR {

#if NODE_TENSORRT_RTX

TimingCache::TimingCache(nvinfer1::IBuilderConfig&, const std::string&) {
  throw Error("ERR_LIBRARY_UNSUPPORTED",
              "options.timingCache is for TensorRT: TensorRT-RTX measures nothing while it compiles. Leave "
              "it out.");
}

#else

namespace {

// How long to wait before trying the lock again.
constexpr std::chrono::milliseconds kLockInterval{20};

}  // namespace

TimingCache::TimingCache(nvinfer1::IBuilderConfig& config, std::string path)
    : config_(config), path_(std::move(path)), read_(readFile()), cache_(create(read_)) {
  if (cache_ && config_.setTimingCache(*cache_, false)) return;
  wasReplaced_ = !read_.empty();
  cache_ = create("");
  if (!cache_ || !config_.setTimingCache(*cache_, false)) {
    throw Error("ERR_BUILD_FAILED", "TensorRT could not create a timing cache.");
  }
}

std::shared_ptr<FileLock> TimingCache::lockFile(const std::stop_token& stop) const {
  auto lock = std::make_shared<FileLock>(path_ + ".lock");
  while (!lock->tryAcquire()) {
    throwIfStopped(stop);
    std::this_thread::sleep_for(kLockInterval);
  }
  return lock;
}

nvinfer1::IHostMemory* TimingCache::serialize() {
  const std::string now = readFile();
  if (now != read_) {
    const std::unique_ptr<nvinfer1::ITimingCache> others = create(now);
    // Leaves out entries from other versions of TensorRT or other GPUs.
    if (others) cache_->combine(*others, false);
  }
  return cache_->serialize();
}

std::string TimingCache::readFile() const {
  std::ifstream file(path_, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

std::unique_ptr<nvinfer1::ITimingCache> TimingCache::create(const std::string& bytes) {
  return std::unique_ptr<nvinfer1::ITimingCache>(config_.createTimingCache(bytes.data(), bytes.size()));
}

#endif

}  // namespace node_tensorrt::tensorrt::NODE_TENSORRT_FLAVOUR
