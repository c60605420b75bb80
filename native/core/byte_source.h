// Bytes of which there may be more than an array of JavaScript's holds: in memory, or a part of a file.
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

// They do not change. Any thread. What reads throws Error(ERR_IO).
class ByteSource {
 public:
  virtual ~ByteSource() = default;

  size_t size() const noexcept { return size_; }

  // True if the bytes take memory for as long as this lives.
  virtual bool inMemory() const noexcept = 0;

  // Copies those from `from` on. Throws Error(ERR_INVALID_ARG_VALUE) where there are fewer.
  virtual void read(size_t from, std::span<std::byte> into) const = 0;

  // Calls `use` with piece after piece, of which each is valid during the call. Throws Cancelled once `stop`
  // was requested.
  virtual void forEachPiece(const std::stop_token& stop,
                            const std::function<void(std::span<const std::byte>)>& use) const = 0;

  // All of them at one address. What is not in memory is read, and freed with what this returns. Throws
  // Error(ERR_OUT_OF_MEMORY), and Cancelled.
  virtual std::shared_ptr<const std::byte> whole(const std::stop_token& stop) const = 0;

  // Sets the time of the last access to their file to now, and leaves that of its modification as it is, by
  // which one knows whether it was changed. Who may not do this doesn't.
  virtual void markUsed() const noexcept {}

 protected:
  explicit ByteSource(size_t size) : size_(size) {}

  // Throws Error(ERR_INVALID_ARG_VALUE).
  void requireRange(size_t from, size_t length) const;

 private:
  const size_t size_;
};

class MemoryBytes final : public ByteSource {
 public:
  MemoryBytes(std::shared_ptr<const void> memory, size_t size)
      : ByteSource(size), memory_(std::move(memory), static_cast<const std::byte*>(memory.get())) {}

  // A copy of `bytes`. Throws Error(ERR_OUT_OF_MEMORY).
  explicit MemoryBytes(std::span<const std::byte> bytes);

  bool inMemory() const noexcept override { return true; }
  void read(size_t from, std::span<std::byte> into) const override;
  void forEachPiece(const std::stop_token& stop,
                    const std::function<void(std::span<const std::byte>)>& use) const override;
  std::shared_ptr<const std::byte> whole(const std::stop_token&) const override { return memory_; }

 private:
  const std::shared_ptr<const std::byte> memory_;
};

// A part of a file that stays open. It is read, not mapped: under a mapping, a file that another process cuts
// short ends this one (SIGBUS), and what is written to it shows. So that nobody is given what was not
// checked, forEachPiece() and whole() throw where the file changed since this began: its length, or the time
// of its last modification. One that was replaced or removed is still the same file here.
class FileBytes final : public ByteSource {
 public:
  // `name`: what errors call the file. `descriptor` stays the caller's. Throws Error(ERR_IO) where the file
  // has no such part.
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

// Writes all of them where the file's position is. Throws Error(ERR_IO), and Cancelled.
void writeBytes(const ByteSource& bytes, int descriptor, const std::stop_token& stop);

}  // namespace node_tensorrt
