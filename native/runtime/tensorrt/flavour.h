// The flavours of TensorRT this program was compiled for. Their headers declare the same names with different
// layouts, so each flavour's source is compiled by itself, against its own headers, with TensorRT's
// namespaces renamed (see CMakeLists.txt); this is all that they show of themselves.
#pragma once

#include <memory>
#include <mutex>
#include <stop_token>
#include <string>

#include "runtime/shared_library.h"
#include "runtime/tensorrt/tensorrt.h"

namespace node_tensorrt::tensorrt {

struct LibraryFiles {
  SharedLibrary core;
  SharedLibrary parser;
  std::string version;
  Capabilities capabilities;
  std::string plugins;  // where the library of TensorRT's own plugins should be; empty: there is none
};

// While a library is opened and initialised: one at a time, which an exit waits for. Its exit handlers, which
// destroy what builds use, then run after those have ended.
class Opening {
 public:
  // Throws Cancelled once `stop` was requested: an exit has waited by then.
  explicit Opening(const std::stop_token& stop);
  // Must be called when the library is open.
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
