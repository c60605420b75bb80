// A library opened at run time. It stays loaded for the life of the process: its code may still be running on
// other threads when the process exits.
#pragma once

#include <string>

namespace node_tensorrt {

class SharedLibrary {
 public:
  // Opens with RTLD_LOCAL | RTLD_NOW. `path` may be a bare name, searched for as the dynamic loader does.
  // Throws Error(ERR_LIBRARY_NOT_FOUND) with the loader's own words.
  static SharedLibrary open(const std::string& path);

  // The exported function `name`; throws Error(ERR_LIBRARY_UNSUPPORTED) when there is none.
  template <class F>
  F* symbol(const char* name) const {
    return reinterpret_cast<F*>(require(name));
  }

  // Like the function above; null if there is none.
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
