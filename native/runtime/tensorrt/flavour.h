// The flavours of TensorRT this program was compiled for. Their headers declare the same names with different
// layouts, so each flavour's source is compiled by itself, against its own headers, with TensorRT's
// namespaces renamed (see CMakeLists.txt); this is all that they show of themselves.
#pragma once

#include <memory>
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
