#include "core/sequence_state.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "core/error.h"
#include "core/host_memory.h"

namespace node_tensorrt {
namespace {

constexpr std::array<char, 8> kMagic = {'N', 'T', 'R', 'T', 'S', 'E', 'Q', '\n'};
constexpr uint32_t kVersion = 1;

// The header is little-endian, as all processors are that a runtime supports. The fingerprint, the tokens as
// int32 and the cache follow it.
struct Header {
  std::array<char, 8> magic;
  uint32_t version;
  uint32_t fingerprintBytes;
  uint64_t tokens;
  uint64_t cached;
  uint64_t bytesPerToken;
  uint64_t checksum;  // of all that follows, and of the numbers above
};
static_assert(sizeof(Header) == 48);

// Hashes 64-bit words. Each word changes the hash, because multiplying by an odd number and rotating can be
// undone.
uint64_t checksum(uint64_t sum, std::span<const std::byte> bytes) {
  for (size_t i = 0; i < bytes.size(); i += sizeof(uint64_t)) {
    uint64_t word = 0;
    std::memcpy(&word, bytes.data() + i, std::min(sizeof word, bytes.size() - i));
    sum = (sum ^ word) * 0x9e3779b97f4a7c15;
    sum ^= sum >> 29;
  }
  return sum;
}

uint64_t checksum(const Header& header, std::span<const std::byte> rest) {
  Header numbers = header;
  numbers.checksum = rest.size();
  return checksum(checksum(0, std::as_bytes(std::span(&numbers, 1))), rest);
}

[[noreturn]] void mismatch(const std::string& problem) {
  throw Error("ERR_STATE_MISMATCH", "The saved sequence can't be restored: " + problem);
}

}  // namespace

EncodedState encodeState(const StateFormat& format, std::span<const int32_t> tokens, size_t cached,
                         const std::function<void(std::byte*)>& writeCache) {
  Header header = {.magic = kMagic,
                   .version = kVersion,
                   .fingerprintBytes = static_cast<uint32_t>(format.fingerprint.size()),
                   .tokens = tokens.size(),
                   .cached = cached,
                   .bytesPerToken = format.bytesPerToken,
                   .checksum = 0};
  const size_t rest = format.fingerprint.size() + tokens.size_bytes() + cached * format.bytesPerToken;
  EncodedState state = {allocateHostMemory(sizeof header + rest), sizeof header + rest};
  auto* const begin = static_cast<std::byte*>(state.data.get());
  std::byte* at = begin + sizeof header;
  std::memcpy(at, format.fingerprint.data(), format.fingerprint.size());
  at += format.fingerprint.size();
  if (!tokens.empty()) std::memcpy(at, tokens.data(), tokens.size_bytes());
  at += tokens.size_bytes();
  writeCache(at);
  header.checksum = checksum(header, {begin + sizeof header, rest});
  std::memcpy(begin, &header, sizeof header);
  return state;
}

DecodedState decodeState(const StateFormat& format, std::span<const std::byte> bytes) {
  Header header;
  if (bytes.size() < sizeof header) mismatch("it is too short to be one.");
  std::memcpy(&header, bytes.data(), sizeof header);
  if (header.magic != kMagic) mismatch("it is not a saved sequence.");
  if (header.version != kVersion) {
    mismatch("it has version " + std::to_string(header.version) + ", and this is version " +
             std::to_string(kVersion) + ".");
  }
  std::span<const std::byte> rest = bytes.subspan(sizeof header);
  // Whatever the numbers are, none of these products and sums overflows.
  const auto take = [&](uint64_t count, uint64_t size) {
    if (size != 0 && count > rest.size() / size) mismatch("it is cut short.");
    const auto taken = rest.first(count * size);
    rest = rest.subspan(taken.size());
    return taken;
  };
  const auto fingerprint = take(header.fingerprintBytes, 1);
  const auto tokens = take(header.tokens, sizeof(int32_t));
  const auto cache = take(header.cached, header.bytesPerToken);
  if (!rest.empty()) mismatch("it is longer than it says.");
  if (header.checksum != checksum(header, bytes.subspan(sizeof header))) mismatch("it is damaged.");
  if (!std::ranges::equal(fingerprint, std::as_bytes(std::span(format.fingerprint))) ||
      header.bytesPerToken != format.bytesPerToken) {
    mismatch("it was saved from another model, or from this one in another precision.");
  }
  if (header.cached > header.tokens) mismatch("it has more in the cache than it has tokens.");
  DecodedState state = {std::vector<int32_t>(header.tokens), header.cached, cache.data()};
  if (!tokens.empty()) std::memcpy(state.tokens.data(), tokens.data(), tokens.size());
  for (const int32_t token : state.tokens) {
    if (token < 0 || (format.vocabulary && static_cast<size_t>(token) >= *format.vocabulary)) {
      mismatch("it has the token " + std::to_string(token) + ", which the model lacks.");
    }
  }
  return state;
}

}  // namespace node_tensorrt
