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
  // Registers the plugins and returns true if they are registered now. Throws Cancelled once `stop` was
  // requested, and as SharedLibrary::open does.
  bool registerAll(const std::stop_token& stop);
  // The reason why they aren't registered, after a space; "" if they are.
  std::string whyLacking() const;

 private:
  const std::string path_;
  std::atomic<bool> registered_ = false;
};

}  // namespace node_tensorrt::tensorrt::NODE_TENSORRT_FLAVOUR
