// TensorRT's own plugins, which are in a separate library.
#pragma once

#include <atomic>
#include <stop_token>
#include <string>

#include "runtime/tensorrt/flavour.h"

namespace node_tensorrt::tensorrt::NODE_TENSORRT_FLAVOUR {

// Opens the plugin library when a model first needs a plugin. Thread-safe.
class Plugins {
 public:
  // `path` is LibraryFiles::plugins.
  explicit Plugins(std::string path);

  bool registered() const noexcept { return registered_; }
  // Registers the plugins. Returns true if they are registered now. Throws Cancelled if `stop` was requested,
  // and as SharedLibrary::open.
  bool registerAll(const std::stop_token& stop);
  // Returns a space and a sentence that says why the plugins aren't registered, or "" if they are.
  std::string whyLacking() const;

 private:
  const std::string path_;
  std::atomic<bool> registered_ = false;
};

}  // namespace node_tensorrt::tensorrt::NODE_TENSORRT_FLAVOUR
