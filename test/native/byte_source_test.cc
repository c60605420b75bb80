#include "core/byte_source.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "core/error.h"

namespace node_tensorrt {
namespace {

// More than two pieces, and not a multiple of a piece.
constexpr size_t kBytes = 2'500'000;

std::vector<std::byte> pattern(size_t size) {
  std::vector<std::byte> bytes(size);
  for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<std::byte>(i % 251);
  return bytes;
}

std::vector<std::byte> pieces(const ByteSource& bytes) {
  std::vector<std::byte> all;
  bytes.forEachPiece(
      {}, [&](std::span<const std::byte> piece) { all.insert(all.end(), piece.begin(), piece.end()); });
  return all;
}

// A file with the test's pattern, removed at the end.
class File {
 public:
  File() : path_(std::filesystem::temp_directory_path() / ("byte-source-" + std::to_string(getpid()))) {
    descriptor_ = ::open(path_.c_str(), O_RDWR | O_CREAT | O_TRUNC, 0600);
    const auto bytes = pattern(kBytes);
    EXPECT_EQ(::write(descriptor_, bytes.data(), bytes.size()), static_cast<ssize_t>(bytes.size()));
    // Long ago, so that the next change gives it another time, however coarse the clock is.
    const timespec times[] = {{.tv_sec = 1, .tv_nsec = 0}, {.tv_sec = 1, .tv_nsec = 0}};
    EXPECT_EQ(::futimens(descriptor_, times), 0);
  }
  ~File() {
    ::close(descriptor_);
    std::filesystem::remove(path_);
  }
  int descriptor() const { return descriptor_; }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
  int descriptor_;
};

// Returns "ERR_…", or "" if nothing is thrown.
template <class Action>
std::string codeOf(Action action) {
  try {
    action();
    return "";
  } catch (const Error& error) {
    return error.code();
  }
}

void expectAll(const ByteSource& bytes, const std::vector<std::byte>& expected) {
  ASSERT_EQ(bytes.size(), expected.size());
  EXPECT_EQ(pieces(bytes), expected);
  const auto whole = bytes.whole({});
  EXPECT_TRUE(std::equal(expected.begin(), expected.end(), whole.get()));
  std::vector<std::byte> part(1000);
  bytes.read(expected.size() - part.size(), part);
  EXPECT_TRUE(std::equal(part.begin(), part.end(), expected.end() - 1000));
  EXPECT_EQ(codeOf([&] { bytes.read(expected.size() - 999, part); }), "ERR_INVALID_ARG_VALUE");
  EXPECT_EQ(codeOf([&] { bytes.read(SIZE_MAX, part); }), "ERR_INVALID_ARG_VALUE");
}

TEST(ByteSource, ReadsMemory) {
  std::vector<std::byte> bytes = pattern(kBytes);
  const MemoryBytes copy(bytes);
  bytes.assign(kBytes, std::byte{0});
  expectAll(copy, pattern(kBytes));
  EXPECT_EQ(pieces(MemoryBytes(std::span<const std::byte>())), std::vector<std::byte>());
}

TEST(ByteSource, ReadsAPartOfAFile) {
  const File file;
  const FileBytes bytes("file", file.descriptor(), 72, kBytes - 100);
  const auto all = pattern(kBytes);
  expectAll(bytes, {all.begin() + 72, all.end() - 28});
}

TEST(ByteSource, ReadsBeyondFourGigabytes) {
  const File file;
  constexpr off_t kFar = (off_t{1} << 32) + 1000;
  ASSERT_EQ(::pwrite(file.descriptor(), "far away", 8, kFar), 8);
  const FileBytes bytes("file", file.descriptor(), 500, static_cast<size_t>(kFar) + 8 - 500);
  std::vector<std::byte> part(8);
  bytes.read(bytes.size() - 8, part);
  EXPECT_EQ(std::memcmp(part.data(), "far away", 8), 0);
}

TEST(ByteSource, TakesNoMoreThanTheFileHas) {
  const File file;
  EXPECT_EQ(codeOf([&] { FileBytes("file", file.descriptor(), 1, kBytes); }), "ERR_IO");
  EXPECT_EQ(codeOf([&] { FileBytes("file", file.descriptor(), kBytes + 1, 0); }), "ERR_IO");
  EXPECT_EQ(codeOf([&] { FileBytes("file", -1, 0, 0); }), "ERR_IO");
}

TEST(ByteSource, GoesOnWithAFileThatWasReplacedOrUsed) {
  const File file;
  const FileBytes bytes("file", file.descriptor(), 0, kBytes);
  bytes.markUsed();
  std::filesystem::remove(file.path());
  expectAll(bytes, pattern(kBytes));
  struct stat status = {};
  ASSERT_EQ(::fstat(file.descriptor(), &status), 0);
  EXPECT_GT(status.st_atim.tv_sec, 1);
  EXPECT_EQ(status.st_mtim.tv_sec, 1);
}

TEST(ByteSource, RefusesAFileThatWasWrittenToOrCutShort) {
  const auto refuse = [](const FileBytes& bytes) {
    EXPECT_EQ(codeOf([&] { bytes.whole({}); }), "ERR_IO");
    EXPECT_EQ(codeOf([&] { pieces(bytes); }), "ERR_IO");
  };
  {
    const File file;
    const FileBytes bytes("file", file.descriptor(), 0, kBytes);
    ASSERT_EQ(::pwrite(file.descriptor(), "x", 1, 1000), 1);
    refuse(bytes);
  }
  {
    const File file;
    const FileBytes bytes("file", file.descriptor(), 0, kBytes);
    ASSERT_EQ(::ftruncate(file.descriptor(), 10), 0);
    refuse(bytes);
    std::vector<std::byte> part(100);
    EXPECT_EQ(codeOf([&] { bytes.read(1000, part); }), "ERR_IO");
  }
}

TEST(ByteSource, StopsWhenAsked) {
  const File file;
  std::stop_source stop;
  stop.request_stop();
  const FileBytes bytes("file", file.descriptor(), 0, kBytes);
  EXPECT_THROW(bytes.whole(stop.get_token()), Cancelled);
  EXPECT_THROW(bytes.forEachPiece(stop.get_token(), [](auto) { FAIL(); }), Cancelled);
  EXPECT_THROW(MemoryBytes(pattern(10)).forEachPiece(stop.get_token(), [](auto) { FAIL(); }), Cancelled);
}

TEST(ByteSource, WritesWhereTheFileIs) {
  const File file;
  ASSERT_EQ(::lseek(file.descriptor(), 10, SEEK_SET), 10);
  const auto bytes = pattern(kBytes);
  writeBytes(MemoryBytes(bytes), file.descriptor(), {});
  EXPECT_EQ(::lseek(file.descriptor(), 0, SEEK_CUR), static_cast<off_t>(kBytes + 10));
  const FileBytes written("file", file.descriptor(), 10, kBytes);
  EXPECT_EQ(pieces(written), bytes);
  const int full = ::open("/dev/full", O_WRONLY | O_CLOEXEC);
  EXPECT_EQ(codeOf([&] { writeBytes(written, full, {}); }), "ERR_IO");
  ::close(full);
}

}  // namespace
}  // namespace node_tensorrt
