#include "core/text_stream.h"

#include <algorithm>
#include <utility>

#include "core/error.h"

namespace node_tensorrt {

namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD

uint8_t byteAt(std::string_view text, size_t index) {
  return static_cast<uint8_t>(text[index]);
}

// How many bytes must follow this first byte: 0 for ASCII, 0xFF if no character begins with it (Unicode's
// table 3-7).
constexpr uint8_t kNoCharacter = 0xFF;
uint8_t bytesAfter(uint8_t first) {
  if (first < 0x80) return 0;
  if (first >= 0xC2 && first <= 0xDF) return 1;
  if (first >= 0xE0 && first <= 0xEF) return 2;
  if (first >= 0xF0 && first <= 0xF4) return 3;
  return kNoCharacter;
}

// True if `next` may follow `begun`, the well-formed beginning of a character. The first byte limits the
// second: overlong forms, surrogates and code points beyond U+10FFFF are invalid.
bool continues(std::string_view begun, uint8_t next) {
  uint8_t lowest = 0x80, highest = 0xBF;
  if (begun.size() == 1) {
    switch (byteAt(begun, 0)) {
      case 0xE0:
        lowest = 0xA0;
        break;
      case 0xED:
        highest = 0x9F;
        break;
      case 0xF0:
        lowest = 0x90;
        break;
      case 0xF4:
        highest = 0x8F;
        break;
      default:
        break;
    }
  }
  return next >= lowest && next <= highest;
}

// [i]: length of the longest proper prefix of `text` that the first i bytes end with.
std::vector<uint32_t> failureOf(std::string_view text) {
  std::vector<uint32_t> failure(text.size() + 1, 0);
  uint32_t length = 0;
  for (size_t i = 1; i < text.size(); ++i) {
    while (length > 0 && text[i] != text[length]) length = failure[length];
    if (text[i] == text[length]) ++length;
    failure[i + 1] = length;
  }
  return failure;
}

}  // namespace

TokenPieces::TokenPieces(std::vector<char> bytes, std::vector<uint32_t> offsets, bool stripLeadingSpace)
    : bytes_(std::move(bytes)), offsets_(std::move(offsets)), stripLeadingSpace_(stripLeadingSpace) {
  if (offsets_.empty() || offsets_.front() != 0 || offsets_.back() != bytes_.size() ||
      !std::is_sorted(offsets_.begin(), offsets_.end())) {
    throw Error("ERR_INVALID_ARG_VALUE",
                "The offsets of the tokens' pieces do not ascend from 0 to the bytes' end");
  }
}

std::string_view TokenPieces::operator[](int32_t token) const {
  if (token < 0 || static_cast<size_t>(token) + 1 >= offsets_.size()) return {};
  const uint32_t begin = offsets_[static_cast<size_t>(token)];
  return {bytes_.data() + begin, offsets_[static_cast<size_t>(token) + 1] - begin};
}

TextStream::TextStream(std::shared_ptr<const TokenPieces> pieces, std::vector<std::string> stop)
    : pieces_(std::move(pieces)) {
  for (auto& text : stop) {
    if (text.empty()) throw Error("ERR_INVALID_ARG_VALUE", "A stop string is empty");
    auto failure = failureOf(text);
    stops_.push_back({std::move(text), std::move(failure)});
  }
}

TextStream::Progress TextStream::append(int32_t token) {
  Progress progress;
  std::string_view piece = (*pieces_)[token];
  if (!begun_ && !piece.empty()) {
    begun_ = true;
    if (pieces_->stripLeadingSpace() && piece.front() == ' ') piece.remove_prefix(1);
  }
  for (const char byte : piece) {
    const auto value = static_cast<uint8_t>(byte);
    if (missing_ > 0) {
      if (continues(character_, value)) {
        character_ += byte;
        if (--missing_ == 0 && !appendCharacter(std::exchange(character_, {}), progress)) return progress;
        continue;
      }
      missing_ = 0;
      character_.clear();
      if (!appendCharacter(kReplacement, progress)) return progress;
    }
    const uint8_t after = bytesAfter(value);
    if (after == 0 || after == kNoCharacter) {
      if (!appendCharacter(after == 0 ? std::string_view(&byte, 1) : kReplacement, progress)) return progress;
    } else {
      missing_ = after;
      character_ = byte;
    }
  }
  return progress;
}

std::string TextStream::finish() {
  Progress progress;
  if (std::exchange(missing_, 0) > 0) appendCharacter(kReplacement, progress);
  if (!progress.stopped) progress.text += held_;
  return std::move(progress.text);
}

bool TextStream::appendCharacter(std::string_view character, Progress& progress) {
  if (stops_.empty()) {
    progress.text += character;
    return true;
  }
  for (const char byte : character) {
    held_ += byte;
    size_t complete = 0;
    for (Stop& stop : stops_) {
      size_t& matched = stop.matched;
      while (matched > 0 && stop.text[matched] != byte) matched = stop.failure[matched];
      if (stop.text[matched] == byte) ++matched;
      if (matched == stop.text.size()) complete = std::max(complete, matched);
    }
    if (complete > 0) {
      held_.resize(held_.size() - complete);
      progress.text += std::exchange(held_, {});
      progress.stopped = true;
      return false;
    }
  }
  size_t begun = 0;
  for (const Stop& stop : stops_) begun = std::max(begun, stop.matched);
  progress.text.append(held_, 0, held_.size() - begun);
  held_.erase(0, held_.size() - begun);
  return true;
}

}  // namespace node_tensorrt
