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

// The header of a state, in little-endian byte order, which all supported processors use. It is followed by
// the fingerprint, the tokens as int32, and the cache.
struct Header {
  std::array<char, 8> magic;
  uint32_t version;
  uint32_t fingerprintBytes;
  uint64_t tokens;
  uint64_t cached;
  uint64_t bytesPerToken;
  uint64_t checksum;  // of everything after the header and of the numbers in it
};
static_assert(sizeof(Header) == 48);

// A checksum of 64-bit words. Every word affects it, because multiplying by an odd number and rotating are
// both reversible.
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
  // Written so that no product or sum overflows, whatever the numbers in the header are.
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
