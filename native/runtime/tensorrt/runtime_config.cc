// Compiled once per flavour, with NODE_TENSORRT_FLAVOUR as its name: see flavour.h.
#include "runtime/tensorrt/runtime_config.h"

#if NODE_TENSORRT_RTX
#include <fcntl.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <iterator>
#include <vector>

#include "core/error.h"
#endif

namespace node_tensorrt::tensorrt::NODE_TENSORRT_FLAVOUR {

#if NODE_TENSORRT_RTX

RuntimeConfig::RuntimeConfig(nvinfer1::ICudaEngine& engine, const EngineOptions& options)
    : engine_(engine), file_(options.runtimeCache), config_(engine.createRuntimeConfig()) {
  if (!config_) throw Error("ERR_EXECUTION_FAILED", "TensorRT could not create a runtime configuration.");
  config_->setExecutionContextAllocationStrategy(nvinfer1::ExecutionContextAllocationStrategy::kUSER_MANAGED);
  config_->setCudaGraphStrategy(options.cudaGraph ? nvinfer1::CudaGraphStrategy::kWHOLE_GRAPH_CAPTURE
                                                  : nvinfer1::CudaGraphStrategy::kDISABLED);
  if (file_.empty()) return;
  cache_.reset(config_->createRuntimeCache());
  if (!cache_) return;
  std::ifstream stream(file_, std::ios::binary);
  const std::vector<char> kept((std::istreambuf_iterator<char>(stream)), {});
  // TensorRT refuses the cache of another GPU, version or driver; then the cache starts empty.
  if (!kept.empty() && cache_->deserialize(kept.data(), kept.size())) bytes_ = kept.size();
  config_->setRuntimeCache(*cache_);
}

std::unique_ptr<nvinfer1::IExecutionContext> RuntimeConfig::createContext() {
  return std::unique_ptr<nvinfer1::IExecutionContext>(engine_.createExecutionContext(config_.get()));
}

void RuntimeConfig::persist() {
  if (!cache_) return;
  const std::lock_guard lock(mutex_);
  const std::unique_ptr<nvinfer1::IHostMemory> blob(cache_->serialize());
  if (!blob || blob->size() == bytes_) return;
  std::string partial = file_ + ".partial-XXXXXX";
  const int file = ::mkostemp(partial.data(), O_CLOEXEC);
  if (file < 0) return;
  const bool written = ::write(file, blob->data(), blob->size()) == static_cast<ssize_t>(blob->size());
  if (::close(file) == 0 && written && ::rename(partial.c_str(), file_.c_str()) == 0) {
    bytes_ = blob->size();
  } else {
    ::unlink(partial.c_str());
  }
}

#else

RuntimeConfig::RuntimeConfig(nvinfer1::ICudaEngine& engine, const EngineOptions&) : engine_(engine) {}

std::unique_ptr<nvinfer1::IExecutionContext> RuntimeConfig::createContext() {
  return std::unique_ptr<nvinfer1::IExecutionContext>(
      engine_.createExecutionContext(nvinfer1::ExecutionContextAllocationStrategy::kUSER_MANAGED));
}

void RuntimeConfig::persist() {}

#endif

}  // namespace node_tensorrt::tensorrt::NODE_TENSORRT_FLAVOUR
