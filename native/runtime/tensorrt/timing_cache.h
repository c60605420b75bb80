// TensorRT's measurements from earlier builds, so that a build doesn't repeat them.
#pragma once

#include <memory>
#include <stop_token>
#include <string>

#include "core/file_lock.h"
#include "runtime/tensorrt/api.h"

namespace node_tensorrt::tensorrt::NODE_TENSORRT_FLAVOUR {

#if NODE_TENSORRT_RTX

// TensorRT-RTX deprecates timing caches and ignores them. Asking for one throws Error
// ERR_LIBRARY_UNSUPPORTED.
class TimingCache {
 public:
  TimingCache(nvinfer1::IBuilderConfig& config, const std::string& path);
  bool wasReplaced() const noexcept { return false; }
  std::shared_ptr<FileLock> lockFile(const std::stop_token&) const { return nullptr; }
  nvinfer1::IHostMemory* serialize() const noexcept { return nullptr; }
};

#else

// A file of measurements, which other processes also write. It is given to `config` for one build, and must
// outlive that build.
class TimingCache {
 public:
  // The file at `path` need not exist. Throws Error ERR_BUILD_FAILED.
  TimingCache(nvinfer1::IBuilderConfig& config, std::string path);

  // True if the file's contents couldn't be used.
  bool wasReplaced() const noexcept { return wasReplaced_; }

  // Locks the file until this build's measurements are written, so that nobody else adds to it. Throws
  // Cancelled if `stop` was requested.
  std::shared_ptr<FileLock> lockFile(const std::stop_token& stop) const;

  // Returns the file's new contents. Call this after the build while holding the file's lock. Null if memory
  // runs out.
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
