// How an engine's execution contexts are created. TensorRT-RTX compiles kernels when it first runs a plan,
// and configures that with an IRuntimeConfig. Included only by sources that are compiled once per flavour:
// see flavour.h.
#pragma once

#include <cstddef>
#include <memory>
#include <mutex>
#include <string>

#include "runtime/tensorrt/api.h"

namespace node_tensorrt::tensorrt::NODE_TENSORRT_FLAVOUR {

// Creates the execution contexts of one engine.
class RuntimeConfig {
 public:
  RuntimeConfig(nvinfer1::ICudaEngine& engine, const EngineOptions& options);

  // TensorRT-RTX captures graphs itself: it waits for a shape's kernels before it does.
  static constexpr bool kCapturesGraphs = NODE_TENSORRT_RTX == 1;

  // Creates a context whose memory the caller provides. Returns null if memory runs out.
  std::unique_ptr<nvinfer1::IExecutionContext> createContext();
  // Writes the cache of compiled kernels, if it has grown. The file is written completely or not at all. An
  // error in writing is ignored.
  void persist();

 private:
  nvinfer1::ICudaEngine& engine_;
#if NODE_TENSORRT_RTX
  const std::string file_;  // the cache's file; empty: none
  const std::unique_ptr<nvinfer1::IRuntimeConfig> config_;
  std::unique_ptr<nvinfer1::IRuntimeCache> cache_;
  std::mutex mutex_;
  size_t bytes_ = 0;  // size of the cache in the file
#endif
};

}  // namespace node_tensorrt::tensorrt::NODE_TENSORRT_FLAVOUR
