#include "runtime/shared_library.h"

#include <dlfcn.h>

#include "core/error.h"

namespace node_tensorrt {

SharedLibrary SharedLibrary::open(const std::string& path) {
  void* handle = dlopen(path.c_str(), RTLD_LOCAL | RTLD_NOW);
  if (handle == nullptr) {
    const char* reason = dlerror();
    throw Error("ERR_LIBRARY_NOT_FOUND",
                "Could not open " + path + ": " + (reason != nullptr ? reason : "unknown reason") + ".");
  }
  return SharedLibrary(handle, path);
}

void* SharedLibrary::lookup(const char* name) const noexcept {
  return dlsym(handle_, name);
}

void* SharedLibrary::require(const char* name) const {
  void* address = lookup(name);
  if (address == nullptr) {
    throw Error("ERR_LIBRARY_UNSUPPORTED",
                path_ + " does not export " + name + ": it is not the library expected.");
  }
  return address;
}

}  // namespace node_tensorrt
