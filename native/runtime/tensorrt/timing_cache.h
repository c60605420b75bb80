// TensorRT's measurements of earlier builds, so that it needn't measure again.
#pragma once

#include <memory>
#include <stop_token>
#include <string>

#include "core/file_lock.h"
#include "runtime/tensorrt/api.h"

namespace node_tensorrt::tensorrt::NODE_TENSORRT_FLAVOUR {

#if NODE_TENSORRT_RTX

// Deprecated there, and without effect: to ask for one throws Error ERR_LIBRARY_UNSUPPORTED.
class TimingCache {
 public:
  TimingCache(nvinfer1::IBuilderConfig& config, const std::string& path);
  bool wasReplaced() const noexcept { return false; }
  std::shared_ptr<FileLock> lockFile(const std::stop_token&) const { return nullptr; }
  nvinfer1::IHostMemory* serialize() const noexcept { return nullptr; }
};

#else

// A file of what builds measured, which other processes write too. It is given to `config`, for one build,
// which it must outlive.
class TimingCache {
 public:
  // `path` need not exist. Throws Error ERR_BUILD_FAILED.
  TimingCache(nvinfer1::IBuilderConfig& config, std::string path);

  // True if the file's content couldn't be used.
  bool wasReplaced() const noexcept { return wasReplaced_; }

  // Locks the file against what others add to it, until this build's part is written. Throws Cancelled once
  // `stop` was requested.
  std::shared_ptr<FileLock> lockFile(const std::stop_token& stop) const;

  // After the build, under the file's lock: what it is to hold now. Null without memory.
  nvinfer1::IHostMemory* serialize();

 private:
  std::string readFile() const;
  std::unique_ptr<nvinfer1::ITimingCache> create(const std::string& bytes);

  nvinfer1::IBuilderConfig& config_;
  const std::string path_;
  const std::string read_;
  std::unique_ptr<nvinfer1::ITimingCache> cache_;
  bool wasReplaced_ = false;
};

#endif

}  // namespace node_tensorrt::tensorrt::NODE_TENSORRT_FLAVOUR
