// A lock on a file name, between processes and within one. The kernel releases it when the process that holds
// it ends, however it ends.
#pragma once

#include <string>
#include <utility>

namespace node_tensorrt {

// Takes the lock for one holder. Not thread-safe.
class FileLock {
 public:
  // Doesn't take the lock yet. The file at `path` exists while someone holds the lock.
  explicit FileLock(std::string path) : path_(std::move(path)) {}
  FileLock(const FileLock&) = delete;
  ~FileLock() { release(); }

  // Creates the file and takes the lock. Returns false, without waiting, if someone else holds it. Throws
  // Error(ERR_IO).
  bool tryAcquire();

  // Removes the file and releases the lock. Does nothing if the lock isn't held.
  void release() noexcept;

  // Releases the lock but leaves the file, as a sign that it wasn't released properly.
  void abandon() noexcept;

 private:
  const std::string path_;
  int descriptor_ = -1;  // -1: not held
};

}  // namespace node_tensorrt
