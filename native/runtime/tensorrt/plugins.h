// TensorRT's own plugins, which are in a library of their own.
#pragma once

#include <atomic>
#include <stop_token>
#include <string>

#include "runtime/tensorrt/flavour.h"

namespace node_tensorrt::tensorrt::NODE_TENSORRT_FLAVOUR {

// Opens that library when a model first needs a plugin. Thread-safe.
class Plugins {
 public:
  // `path`: LibraryFiles::plugins.
  explicit Plugins(std::string path);

  bool registered() const noexcept { return registered_; }
  // Whether they are registered now. Throws Cancelled once `stop` was requested, and as SharedLibrary::open.
  bool registerAll(const std::stop_token& stop);
  // Why they are not, after a space; "" where they are.
  std::string whyLacking() const;

 private:
  const std::string path_;
  std::atomic<bool> registered_ = false;
};

}  // namespace node_tensorrt::tensorrt::NODE_TENSORRT_FLAVOUR
