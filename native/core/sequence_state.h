// A sequence as bytes: what Sequence.save() gives and restoreSequence() takes back.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace node_tensorrt {

// Identifies the model and layout of a state. A state that was saved elsewhere is refused.
struct StateFormat {
  std::string fingerprint;                          // of model, precision and layout
  size_t bytesPerToken;                             // KvCache::bytesPerToken()
  std::optional<size_t> vocabulary = std::nullopt;  // tokens of the model, where it says how many
};

struct EncodedState {
  std::shared_ptr<void> data;
  size_t byteLength = 0;
};

// `writeCache` fills in `cached` x bytesPerToken bytes.
EncodedState encodeState(const StateFormat& format, std::span<const int32_t> tokens, size_t cached,
                         const std::function<void(std::byte*)>& writeCache);

struct DecodedState {
  std::vector<int32_t> tokens;
  size_t cached;           // of them
  const std::byte* cache;  // in the bytes that were decoded
};

// Reads a state from untrusted bytes. Throws Error(ERR_STATE_MISMATCH) unless they are a whole, undamaged
// state of this format.
DecodedState decodeState(const StateFormat& format, std::span<const std::byte> bytes);

}  // namespace node_tensorrt
