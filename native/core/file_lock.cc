#include "core/file_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

#include "core/error.h"

namespace node_tensorrt {
namespace {

[[noreturn]] void fail(const std::string& path, int error) {
  throw Error("ERR_IO", "Can't lock " + path + ": " + std::generic_category().message(error) + ".");
}

// True if `path` still names the file that was opened, and not a newer one or none.
bool isCurrent(const std::string& path, int descriptor) {
  struct stat opened;
  struct stat named;
  return fstat(descriptor, &opened) == 0 && stat(path.c_str(), &named) == 0 &&
         opened.st_dev == named.st_dev && opened.st_ino == named.st_ino;
}

}  // namespace

bool FileLock::tryAcquire() {
  if (descriptor_ != -1) return true;
  for (;;) {
    // Not inherited: a child process would otherwise hold the lock after its parent has ended.
    const int descriptor = open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (descriptor == -1) {
      if (errno == EINTR) continue;
      fail(path_, errno);
    }
    // Unlike POSIX record locks, these exclude other descriptors of the same process too.
    if (flock(descriptor, LOCK_EX | LOCK_NB) == -1) {
      const int error = errno;
      close(descriptor);
      if (error == EWOULDBLOCK) return false;
      if (error == EINTR) continue;
      fail(path_, error);
    }
    // The previous holder removed the file. Someone else may have created and locked a new one since.
    if (isCurrent(path_, descriptor)) {
      descriptor_ = descriptor;
      return true;
    }
    close(descriptor);
  }
}

void FileLock::release() noexcept {
  if (descriptor_ == -1) return;
  // Remove the file while it is locked, so no one else can hold a lock on this name.
  unlink(path_.c_str());
  abandon();
}

void FileLock::abandon() noexcept {
  if (descriptor_ == -1) return;
  close(descriptor_);
  descriptor_ = -1;
}

}  // namespace node_tensorrt
