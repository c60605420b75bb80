// A model's file, mapped into memory for reading.
#pragma once

#include <cstddef>
#include <string>

namespace node_tensorrt {

// Maps the file until this object is destroyed.
class MappedFile {
 public:
  // Throws Error(ERR_MODEL_NOT_FOUND).
  explicit MappedFile(const std::string& path);
  MappedFile(const MappedFile&) = delete;
  ~MappedFile();

  // Null if the file is empty.
  const void* data() const noexcept { return data_; }
  size_t size() const noexcept { return size_; }

 private:
  void* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace node_tensorrt
