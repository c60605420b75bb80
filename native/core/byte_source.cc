#include "core/byte_source.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <new>
#include <string>
#include <utility>

#include "core/error.h"

namespace node_tensorrt {
namespace {

// Small enough to stay in a processor's cache from when it is read until it is used, and for a cancelled
// thread to end soon.
constexpr size_t kPieceBytes = size_t{1} << 20;

std::string reason(int error) {
  return std::strerror(error);
}

// Allocates memory without zeroing it, because all of it is about to be written.
std::shared_ptr<std::byte> allocate(size_t bytes) {
  auto* const memory = new (std::nothrow) std::byte[bytes];
  if (memory == nullptr) {
    throw Error("ERR_OUT_OF_MEMORY",
                "Could not allocate " + std::to_string(bytes) + " bytes of host memory.");
  }
  return std::shared_ptr<std::byte>(memory, std::default_delete<std::byte[]>());
}

}  // namespace

void ByteSource::requireRange(size_t from, size_t length) const {
  if (from <= size_ && length <= size_ - from) return;
  throw Error("ERR_INVALID_ARG_VALUE", "There are no bytes " + std::to_string(from) + " to " +
                                           std::to_string(from + length) + " of " + std::to_string(size_) +
                                           ".");
}

// ---- in memory ----

MemoryBytes::MemoryBytes(std::span<const std::byte> bytes)
    : ByteSource(bytes.size()), memory_([bytes] {
        const std::shared_ptr<std::byte> copy = allocate(bytes.size());
        if (!bytes.empty()) std::memcpy(copy.get(), bytes.data(), bytes.size());
        return copy;
      }()) {}

void MemoryBytes::read(size_t from, std::span<std::byte> into) const {
  requireRange(from, into.size());
  if (!into.empty()) std::memcpy(into.data(), memory_.get() + from, into.size());
}

void MemoryBytes::forEachPiece(const std::stop_token& stop,
                               const std::function<void(std::span<const std::byte>)>& use) const {
  for (size_t at = 0; at < size(); at += kPieceBytes) {
    throwIfStopped(stop);
    use({memory_.get() + at, std::min(kPieceBytes, size() - at)});
  }
}

// ---- in a file ----

FileBytes::FileBytes(std::string name, int descriptor, off_t begin, size_t size)
    : ByteSource(size),
      name_(std::move(name)),
      descriptor_(::fcntl(descriptor, F_DUPFD_CLOEXEC, 0)),
      begin_(begin) {
  struct stat status = {};
  const bool isOpen = descriptor_ >= 0 && ::fstat(descriptor_, &status) == 0;
  const int error = errno;
  fileBytes_ = status.st_size;
  modified_ = status.st_mtim;
  const bool isThere = begin >= 0 && begin <= fileBytes_ && size <= static_cast<size_t>(fileBytes_ - begin);
  if (isOpen && isThere) {
    // Makes the kernel read ahead twice as far. If it can't, it reads ahead as usual.
    static_cast<void>(::posix_fadvise(descriptor_, begin, static_cast<off_t>(size), POSIX_FADV_SEQUENTIAL));
    return;
  }
  if (descriptor_ >= 0) ::close(descriptor_);
  if (!isOpen) throw Error("ERR_IO", "Could not keep " + name_ + " open: " + reason(error) + ".");
  throw Error("ERR_IO", name_ + " got shorter while it was read.");
}

FileBytes::~FileBytes() {
  ::close(descriptor_);
}

void FileBytes::read(size_t from, std::span<std::byte> into) const {
  requireRange(from, into.size());
  for (size_t done = 0; done < into.size();) {
    const ssize_t bytes = ::pread(descriptor_, into.data() + done, into.size() - done,
                                  begin_ + static_cast<off_t>(from + done));
    if (bytes < 0 && errno == EINTR) continue;
    if (bytes < 0) throw Error("ERR_IO", "Could not read " + name_ + ": " + reason(errno) + ".");
    if (bytes == 0) requireUnchanged();
    if (bytes == 0) throw Error("ERR_IO", name_ + " ended while it was read.");
    done += static_cast<size_t>(bytes);
  }
}

void FileBytes::forEachPiece(const std::stop_token& stop,
                             const std::function<void(std::span<const std::byte>)>& use) const {
  const std::shared_ptr<std::byte> piece = allocate(std::min(kPieceBytes, size()));
  for (size_t at = 0; at < size(); at += kPieceBytes) {
    throwIfStopped(stop);
    const std::span<std::byte> read(piece.get(), std::min(kPieceBytes, size() - at));
    this->read(at, read);
    use(read);
  }
  requireUnchanged();
}

std::shared_ptr<const std::byte> FileBytes::whole(const std::stop_token& stop) const {
  const std::shared_ptr<std::byte> memory = allocate(size());
  for (size_t at = 0; at < size(); at += kPieceBytes) {
    throwIfStopped(stop);
    read(at, {memory.get() + at, std::min(kPieceBytes, size() - at)});
  }
  requireUnchanged();
  return memory;
}

void FileBytes::markUsed() const noexcept {
  const timespec times[] = {{.tv_sec = 0, .tv_nsec = UTIME_NOW}, {.tv_sec = 0, .tv_nsec = UTIME_OMIT}};
  ::futimens(descriptor_, times);
}

void FileBytes::requireUnchanged() const {
  struct stat status = {};
  if (::fstat(descriptor_, &status) == 0 && status.st_size == fileBytes_ &&
      status.st_mtim.tv_sec == modified_.tv_sec && status.st_mtim.tv_nsec == modified_.tv_nsec) {
    return;
  }
  throw Error("ERR_IO", name_ + " was changed after it was loaded. Load it again.");
}

void writeBytes(std::span<const std::byte> bytes, int descriptor) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(descriptor, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) throw Error("ERR_IO", reason(errno));
    bytes = bytes.subspan(static_cast<size_t>(written));
  }
}

void writeBytes(const ByteSource& bytes, int descriptor, const std::stop_token& stop) {
  bytes.forEachPiece(stop, [descriptor](std::span<const std::byte> piece) { writeBytes(piece, descriptor); });
}

}  // namespace node_tensorrt
