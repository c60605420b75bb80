// Turns the tokens of an answer into text, one token at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace node_tensorrt {

// The UTF-8 bytes that each token stands for. A token may be only part of a character.
class TokenPieces {
 public:
  // Token i's bytes are those from offsets[i] to offsets[i + 1]. Special tokens have no bytes. With
  // `stripLeadingSpace`, a text loses a space at its beginning, as SentencePiece's texts do. Throws
  // Error(ERR_INVALID_ARG_VALUE) unless the offsets ascend from 0 to the number of bytes.
  TokenPieces(std::vector<char> bytes, std::vector<uint32_t> offsets, bool stripLeadingSpace);

  // Returns nothing for a token beyond the vocabulary (models often pad it).
  std::string_view operator[](int32_t token) const;
  bool stripLeadingSpace() const { return stripLeadingSpace_; }

 private:
  std::vector<char> bytes_;
  std::vector<uint32_t> offsets_;
  bool stripLeadingSpace_;
};

// The text of one answer. Text that it returns is final: it consists of whole characters, and no stop string
// can begin in it any more. Invalid UTF-8 becomes U+FFFD, one for each maximal part of a character, as in
// Python's bytes.decode('utf-8', 'replace') and Rust's from_utf8_lossy. The text ends before the stop string
// that is completed first; if several are completed at once, before the longest. The boundaries between
// tokens make no difference. One thread at a time may use it.
class TextStream {
 public:
  // Throws Error(ERR_INVALID_ARG_VALUE) if a stop string is empty.
  TextStream(std::shared_ptr<const TokenPieces> pieces, std::vector<std::string> stop);

  struct Progress {
    std::string text;
    bool stopped = false;  // a stop string was completed: don't append anything more
  };
  // Adds a token and returns the text that has become final.
  Progress append(int32_t token);
  // True if there is text that later tokens will decide.
  bool holdsBack() const noexcept { return !character_.empty() || !held_.empty(); }
  // Returns the rest of the text, if no stop string came. Don't append anything afterwards.
  std::string finish();

 private:
  // A stop string, and how many of its bytes the text currently ends with (the Knuth-Morris-Pratt automaton).
  struct Stop {
    std::string text;
    std::vector<uint32_t>
        failure;  // [i]: length of the longest proper prefix that the first i bytes end with
    size_t matched = 0;
  };

  // Adds text that is final to `progress`. Returns false if a stop string was completed.
  bool appendCharacter(std::string_view character, Progress& progress);

  std::shared_ptr<const TokenPieces> pieces_;
  std::vector<Stop> stops_;
  bool begun_ = false;     // a byte has been seen
  std::string character_;  // the bytes so far of an unfinished character
  uint8_t missing_ = 0;    // bytes that it still lacks
  std::string held_;       // text that may be the beginning of a stop string
};

}  // namespace node_tensorrt
