// Encodes a sequence as bytes and back, for Sequence.save() and restoreSequence().
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

// Identifies the model that a state belongs to. A state with another format is refused.
struct StateFormat {
  std::string fingerprint;                          // identifies the model, its precision and its layout
  size_t bytesPerToken;                             // KvCache::bytesPerToken()
  std::optional<size_t> vocabulary = std::nullopt;  // number of tokens, if the model says
};

// An encoded sequence.
struct EncodedState {
  std::shared_ptr<void> data;
  size_t byteLength = 0;
};

// Encodes a sequence. `writeCache` must write `cached` x bytesPerToken bytes.
EncodedState encodeState(const StateFormat& format, std::span<const int32_t> tokens, size_t cached,
                         const std::function<void(std::byte*)>& writeCache);

// A decoded sequence.
struct DecodedState {
  std::vector<int32_t> tokens;
  size_t cached;           // number of tokens whose keys and values are in `cache`
  const std::byte* cache;  // points into the decoded bytes
};

// Decodes any bytes. Throws Error(ERR_STATE_MISMATCH) if they aren't a complete and intact state of this
// format.
DecodedState decodeState(const StateFormat& format, std::span<const std::byte> bytes);

}  // namespace node_tensorrt
