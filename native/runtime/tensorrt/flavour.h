// The flavours of TensorRT that this program was compiled for. Their headers declare the same names with
// different layouts. So each flavour's sources are compiled separately, against that flavour's headers and
// with TensorRT's namespaces renamed (see CMakeLists.txt). Only what is declared here is visible to the rest
// of the program.
#pragma once

#include <memory>
#include <mutex>
#include <stop_token>
#include <string>

#include "runtime/shared_library.h"
#include "runtime/tensorrt/tensorrt.h"

namespace node_tensorrt::tensorrt {

// The opened libraries of one TensorRT.
struct LibraryFiles {
  SharedLibrary core;
  SharedLibrary parser;
  std::string version;
  Capabilities capabilities;
  std::string plugins;  // where the library of TensorRT's own plugins should be; empty: there isn't one
};

// Held while a library is opened and initialized. Only one is opened at a time, and an exit waits for it. The
// library's exit handlers, which destroy what builds use, are then certain to run after the builds have
// ended.
class Opening {
 public:
  // Waits until no other library is being opened. Throws Cancelled if `stop` was requested by then, because
  // an exit no longer waits for this opening.
  explicit Opening(const std::stop_token& stop);
  // Call this when the library is open.
  void opened() const;

 private:
  std::unique_lock<std::mutex> lock_;
};

namespace trt10 {
std::shared_ptr<const Library> createLibrary(LibraryFiles files);
}
namespace trt11 {
std::shared_ptr<const Library> createLibrary(LibraryFiles files);
}
namespace rtx {
std::shared_ptr<const Library> createLibrary(LibraryFiles files);
}

}  // namespace node_tensorrt::tensorrt
