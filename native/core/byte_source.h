// A source of bytes, in memory or in part of a file. It can be larger than a JavaScript array can be.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <ctime>
#include <functional>
#include <memory>
#include <span>
#include <stop_token>
#include <string>
#include <utility>

namespace node_tensorrt {

// A fixed number of bytes that don't change. Every method may be called from any thread. Reading from a file
// throws Error(ERR_IO) when it fails.
class ByteSource {
 public:
  virtual ~ByteSource() = default;

  size_t size() const noexcept { return size_; }

  // True if the bytes take up memory for as long as this object lives.
  virtual bool inMemory() const noexcept = 0;

  // Fills `into` with the bytes that begin at offset `from`. Throws Error(ERR_INVALID_ARG_VALUE) if there are
  // too few.
  virtual void read(size_t from, std::span<std::byte> into) const = 0;

  // Calls `use` for one piece after another, in order. A piece is valid only during its call. Throws
  // Cancelled once `stop` was requested.
  virtual void forEachPiece(const std::stop_token& stop,
                            const std::function<void(std::span<const std::byte>)>& use) const = 0;

  // Returns all bytes in one block of memory. For a file, they are read into a new block, which the caller
  // owns. Throws Error(ERR_OUT_OF_MEMORY) and Cancelled.
  virtual std::shared_ptr<const std::byte> whole(const std::stop_token& stop) const = 0;

  // Sets the file's access time to now. The modification time stays as it is, because it tells whether the
  // file was changed. Does nothing if the process isn't permitted to set it.
  virtual void markUsed() const noexcept {}

 protected:
  explicit ByteSource(size_t size) : size_(size) {}

  // Throws Error(ERR_INVALID_ARG_VALUE) if the range isn't within these bytes.
  void requireRange(size_t from, size_t length) const;

 private:
  const size_t size_;
};

// Bytes in memory, which this object shares the ownership of.
class MemoryBytes final : public ByteSource {
 public:
  MemoryBytes(std::shared_ptr<const void> memory, size_t size)
      : ByteSource(size), memory_(std::move(memory), static_cast<const std::byte*>(memory.get())) {}

  // Copies `bytes`. Throws Error(ERR_OUT_OF_MEMORY).
  explicit MemoryBytes(std::span<const std::byte> bytes);

  bool inMemory() const noexcept override { return true; }
  void read(size_t from, std::span<std::byte> into) const override;
  void forEachPiece(const std::stop_token& stop,
                    const std::function<void(std::span<const std::byte>)>& use) const override;
  std::shared_ptr<const std::byte> whole(const std::stop_token&) const override { return memory_; }

 private:
  const std::shared_ptr<const std::byte> memory_;
};

// Part of a file, which stays open. The file is read instead of mapped: if another process truncated a mapped
// file, this process would die of SIGBUS, and writes by others would show up in the mapping. forEachPiece()
// and whole() throw if the file's length or modification time has changed since this object was created, so
// nobody gets bytes that weren't checked. If the file is replaced or removed, this object goes on reading the
// original.
class FileBytes final : public ByteSource {
 public:
  // Duplicates `descriptor`, which the caller still has to close. Errors call the file `name`. Throws
  // Error(ERR_IO) if the file doesn't contain the range.
  FileBytes(std::string name, int descriptor, off_t begin, size_t size);
  FileBytes(const FileBytes&) = delete;
  ~FileBytes() override;

  bool inMemory() const noexcept override { return false; }
  void read(size_t from, std::span<std::byte> into) const override;
  void forEachPiece(const std::stop_token& stop,
                    const std::function<void(std::span<const std::byte>)>& use) const override;
  std::shared_ptr<const std::byte> whole(const std::stop_token& stop) const override;
  void markUsed() const noexcept override;

 private:
  void requireUnchanged() const;

  const std::string name_;
  int descriptor_;
  const off_t begin_;
  off_t fileBytes_ = 0;
  timespec modified_ = {};
};

// Writes all bytes at the file's current position. Throws Error(ERR_IO).
void writeBytes(std::span<const std::byte> bytes, int descriptor);

// As above. Throws Cancelled, too.
void writeBytes(const ByteSource& bytes, int descriptor, const std::stop_token& stop);

}  // namespace node_tensorrt
