// Makes an engine's execution contexts. TensorRT-RTX, which compiles kernels when it first runs a plan, has
// an IRuntimeConfig for it. Only sources that are compiled once per flavour include this: see flavour.h.
#pragma once

#include <cstddef>
#include <memory>
#include <mutex>
#include <string>

#include "runtime/tensorrt/api.h"

namespace node_tensorrt::tensorrt::NODE_TENSORRT_FLAVOUR {

class RuntimeConfig {
 public:
  RuntimeConfig(nvinfer1::ICudaEngine& engine, const EngineOptions& options);

  // TensorRT-RTX does it itself: it waits for a shape's kernels before it captures.
  static constexpr bool kCapturesGraphs = NODE_TENSORRT_RTX == 1;

  // One that is given its memory; null where there is none for it.
  std::unique_ptr<nvinfer1::IExecutionContext> createContext();
  // Writes the cache of the kernels compiled, if it has grown. It appears whole or not at all; one that can't
  // be written is done without.
  void persist();

 private:
  nvinfer1::ICudaEngine& engine_;
#if NODE_TENSORRT_RTX
  const std::string file_;  // of the cache; empty: none
  const std::unique_ptr<nvinfer1::IRuntimeConfig> config_;
  std::unique_ptr<nvinfer1::IRuntimeCache> cache_;
  std::mutex mutex_;
  size_t bytes_ = 0;  // of the cache as the file has it
#endif
};

}  // namespace node_tensorrt::tensorrt::NODE_TENSORRT_FLAVOUR
