// The text of an answer as its tokens come.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace node_tensorrt {

// The UTF-8 bytes that each token stands for; a token may hold a part of a character.
class TokenPieces {
 public:
  // Token i's bytes are those from offsets[i] to offsets[i + 1]; special tokens have none.
  // `stripLeadingSpace`: a text loses the space that it begins with, as SentencePiece's does. Throws
  // Error(ERR_INVALID_ARG_VALUE) where the offsets do not ascend from 0 to the number of bytes.
  TokenPieces(std::vector<char> bytes, std::vector<uint32_t> offsets, bool stripLeadingSpace);

  // Nothing for a token beyond the vocabulary (a model's is often padded).
  std::string_view operator[](int32_t token) const;
  bool stripLeadingSpace() const { return stripLeadingSpace_; }

 private:
  std::vector<char> bytes_;
  std::vector<uint32_t> offsets_;
  bool stripLeadingSpace_;
};

// Text is final once given out: it is of whole characters, and no stop string can begin in it any more. What
// is not UTF-8 becomes U+FFFD, one for each maximal part of a character, as Python's bytes.decode('utf-8',
// 'replace') and Rust's from_utf8_lossy have it. The text ends before the stop string that is complete first,
// of several that are complete at once before the longest; where tokens begin and end makes no difference.
class TextStream {
 public:
  // Throws Error(ERR_INVALID_ARG_VALUE) where a stop string is empty.
  TextStream(std::shared_ptr<const TokenPieces> pieces, std::vector<std::string> stop);

  struct Progress {
    std::string text;
    bool stopped = false;  // a stop string is complete: nothing may be appended any more
  };
  Progress append(int32_t token);
  // Is there text that a later token decides?
  bool holdsBack() const noexcept { return !character_.empty() || !held_.empty(); }
  // The rest, where no stop string came. Nothing may be appended any more.
  std::string finish();

 private:
  // A stop string, and how much of it the text ends with (Knuth, Morris and Pratt's automaton).
  struct Stop {
    std::string text;
    std::vector<uint32_t> failure;  // [i]: the longest proper prefix that the first i bytes end with
    size_t matched = 0;
  };

  // Adds what is final to `progress`. False once a stop string is complete.
  bool appendCharacter(std::string_view character, Progress& progress);

  std::shared_ptr<const TokenPieces> pieces_;
  std::vector<Stop> stops_;
  bool begun_ = false;     // a byte has come
  std::string character_;  // what has come of an unfinished character
  uint8_t missing_ = 0;    // bytes until it is whole
  std::string held_;       // what a stop string may begin with
};

}  // namespace node_tensorrt
