#include "core/sha256.h"

#include <gtest/gtest.h>

#include <string>
#include <string_view>

namespace node_tensorrt {
namespace {

std::string hexadecimal(Sha256& hash) {
  std::string text;
  for (const std::byte byte : hash.digest()) {
    constexpr char kDigits[] = "0123456789abcdef";
    text += kDigits[std::to_integer<int>(byte >> 4)];
    text += kDigits[std::to_integer<int>(byte & std::byte{15})];
  }
  return text;
}

std::span<const std::byte> bytesOf(std::string_view text) {
  return std::as_bytes(std::span(text));
}

// NIST's examples for FIPS 180-4 and for the first version of the standard.
TEST(Sha256, GivesThePublishedDigests) {
  const std::pair<std::string, const char*> examples[] = {
      {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
      {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
      {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
       "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
      {"abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmnhijklmnoijklmnopjklmnopqklmnopqrlmnopqrsmnopq"
       "rst"
       "nopqrstu",
       "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1"},
      {std::string(1'000'000, 'a'), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"},
  };
  for (const auto& [text, digest] : examples) {
    Sha256 hash;
    hash.update(bytesOf(text));
    EXPECT_EQ(hexadecimal(hash), digest) << text.size();
  }
}

TEST(Sha256, DoesNotDependOnWhereTheBytesAreDivided) {
  const std::string text(300, 'x');
  Sha256 once;
  once.update(bytesOf(text));
  const std::string digest = hexadecimal(once);
  for (size_t first = 0; first <= text.size(); ++first) {
    Sha256 twice;
    twice.update(bytesOf(text).first(first));
    twice.update(bytesOf(text).subspan(first));
    EXPECT_EQ(hexadecimal(twice), digest) << first;
  }
}

}  // namespace
}  // namespace node_tensorrt
