// A library opened at run time. It stays loaded until the process ends, because other threads may still be
// running its code when the process exits.
#pragma once

#include <string>

namespace node_tensorrt {

// Copies refer to the same library. Thread-safe.
class SharedLibrary {
 public:
  // Opens a library with RTLD_LOCAL | RTLD_NOW. A bare name is searched for as the dynamic loader does.
  // Throws Error(ERR_LIBRARY_NOT_FOUND) with the loader's message.
  static SharedLibrary open(const std::string& path);

  // Returns the exported function `name`. Throws Error(ERR_LIBRARY_UNSUPPORTED) if there is none.
  template <class F>
  F* symbol(const char* name) const {
    return reinterpret_cast<F*>(require(name));
  }

  // Does the same, but returns null if there is none.
  template <class F>
  F* find(const char* name) const noexcept {
    return reinterpret_cast<F*>(lookup(name));
  }

  const std::string& path() const noexcept { return path_; }

 private:
  SharedLibrary(void* handle, std::string path) : handle_(handle), path_(std::move(path)) {}
  void* lookup(const char* name) const noexcept;
  void* require(const char* name) const;

  void* handle_;
  std::string path_;
};

}  // namespace node_tensorrt
