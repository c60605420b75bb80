// A lock on a file's name, between processes as within one. The kernel lets go of it when its holder ends,
// however that ends.
#pragma once

#include <string>
#include <utility>

namespace node_tensorrt {

class FileLock {
 public:
  // Not held yet; `path` is a file that exists while someone holds it.
  explicit FileLock(std::string path) : path_(std::move(path)) {}
  FileLock(const FileLock&) = delete;
  ~FileLock() { release(); }

  // False while another holds it. Creates the file, and blocks for no one. Throws Error(ERR_IO).
  bool tryAcquire();

  // Removes the file. Nothing where the lock is not held.
  void release() noexcept;

  // Lets go of the lock, and leaves the file, which says that it was not released.
  void abandon() noexcept;

 private:
  const std::string path_;
  int descriptor_ = -1;  // -1: not held
};

}  // namespace node_tensorrt
