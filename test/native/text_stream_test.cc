#include "core/text_stream.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <random>

#include "core/error.h"

namespace node_tensorrt {
namespace {

std::shared_ptr<const TokenPieces> piecesOf(const std::vector<std::string>& pieces,
                                            bool stripLeadingSpace = false) {
  std::vector<char> bytes;
  std::vector<uint32_t> offsets = {0};
  for (const std::string& piece : pieces) {
    bytes.insert(bytes.end(), piece.begin(), piece.end());
    offsets.push_back(static_cast<uint32_t>(bytes.size()));
  }
  return std::make_shared<TokenPieces>(bytes, offsets, stripLeadingSpace);
}

// Returns the text that each token gives, and the rest at the end.
std::vector<std::string> stream(const std::vector<std::string>& pieces, const std::vector<std::string>& stop,
                                bool stripLeadingSpace = false) {
  TextStream text(piecesOf(pieces, stripLeadingSpace), stop);
  std::vector<std::string> parts;
  for (size_t token = 0; token < pieces.size(); ++token) {
    const auto progress = text.append(static_cast<int32_t>(token));
    parts.push_back(progress.text);
    if (progress.stopped) {
      parts.push_back("STOP");
      EXPECT_EQ(text.finish(), "");
      return parts;
    }
  }
  parts.push_back(text.finish());
  return parts;
}

using Parts = std::vector<std::string>;

std::string join(const Parts& parts) {
  std::string text;
  for (const std::string& part : parts) text += part;
  return text;
}

std::string fromHex(const std::string& hex) {
  std::string bytes;
  if (hex == "-") return bytes;
  for (size_t i = 0; i < hex.size(); i += 2) {
    bytes += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
  }
  return bytes;
}

// Cuts the text into pieces of random sizes, some of them empty.
std::vector<std::string> cut(const std::string& text, std::mt19937& generator) {
  std::vector<std::string> pieces;
  for (size_t begin = 0; begin < text.size();) {
    const size_t size = generator() % 5;
    pieces.push_back(text.substr(begin, size));
    begin += size;
  }
  return pieces;
}

TEST(TextStream, GivesWholeCharactersOnly) {
  EXPECT_EQ(stream({"a", "\xF0\x9F", "\xA6", "\x8A", "b"}, {}), (Parts{"a", "", "", "🦊", "b", ""}));
  EXPECT_EQ(stream({"\xC3", "\xA9\xC3", "\xA8!"}, {}), (Parts{"", "é", "è!", ""}));
  EXPECT_EQ(stream({"a\xE2\x82"}, {}), (Parts{"a", "\uFFFD"}));
  EXPECT_EQ(stream({"\xE2\x82", "", "x"}, {}), (Parts{"", "", "\uFFFDx", ""}));
}

// The expected texts are Python's: test/oracle/make_text_goldens.py.
TEST(TextStream, WhatIsNotUtf8BecomesWhatPythonMakesOfIt) {
  std::ifstream file(NODE_TENSORRT_FIXTURES "/text/utf8.txt");
  std::mt19937 generator(1);
  size_t lines = 0;
  for (std::string bytes, expected; file >> bytes >> expected; ++lines) {
    EXPECT_EQ(join(stream({fromHex(bytes)}, {})), fromHex(expected)) << bytes;
    EXPECT_EQ(join(stream(cut(fromHex(bytes), generator), {"no such"})), fromHex(expected)) << bytes;
  }
  EXPECT_EQ(lines, 600u);
}

TEST(TextStream, HoldsBackOnlyWhatAStopStringMayBeginWith) {
  EXPECT_EQ(stream({"The", " e", "nd.", " The", " end", "!"}, {" end!"}),
            (Parts{"The", "", " end.", " The", "", "", "STOP"}));
  EXPECT_EQ(stream({"x", "a", "a", "a", "b"}, {"aab"}), (Parts{"x", "", "", "a", "", "STOP"}));
  EXPECT_EQ(stream({"abab", "abac!"}, {"ababac"}), (Parts{"", "ab", "STOP"}));
  EXPECT_EQ(stream({"one\n", "\n", "two"}, {"\n\n", "User:"}), (Parts{"one", "", "STOP"}));
  EXPECT_EQ(stream({"Us", "e", "d"}, {"\n\n", "User:"}), (Parts{"", "", "Used", ""}));
  EXPECT_EQ(stream({"Use"}, {"User:"}), (Parts{"", "Use"}));
  EXPECT_EQ(stream({"fin", "\xE2\x82", "\xAC."}, {"€"}), (Parts{"fin", "", "", "STOP"}));
}

TEST(TextStream, TheStopStringThatIsCompleteFirstEndsTheText) {
  EXPECT_EQ(stream({"xabcd"}, {"abcd", "bc"}), (Parts{"xa", "STOP"}));
  EXPECT_EQ(stream({"xabc"}, {"c", "abc", "bc"}), (Parts{"x", "STOP"}));
}

TEST(TextStream, StripsOneSpaceThatTheTextBeginsWith) {
  EXPECT_EQ(stream({"", "  a", " b"}, {}, true), (Parts{"", " a", " b", ""}));
  EXPECT_EQ(stream({"a", " b"}, {}, true), (Parts{"a", " b", ""}));
  EXPECT_EQ(stream({" a", " b"}, {}, false), (Parts{" a", " b", ""}));
  EXPECT_EQ(stream({" ", " ", "a"}, {}, true), (Parts{"", " ", "a", ""}));
}

// Looks for every stop string at every position. Cuts the text before the one that ends first, and before the
// longest of those.
std::string cutAtStop(const std::string& text, const std::vector<std::string>& stops) {
  for (size_t end = 0; end <= text.size(); ++end) {
    size_t longest = 0;
    for (const std::string& stop : stops) {
      if (text.substr(0, end).ends_with(stop)) longest = std::max(longest, stop.size());
    }
    if (longest > 0) return text.substr(0, end - longest);
  }
  return text;
}

TEST(TextStream, IsTheSameForEveryDivisionIntoTokens) {
  std::mt19937 generator(2);
  const std::vector<std::string> letters = {"a",  "a",  "b", "é",    "è",       "€",
                                            "🦊", "🦁", " ", "\xC3", "\xE2\x82"};
  const auto random = [&](size_t size) {
    std::string text;
    while (size-- > 0) text += letters[generator() % letters.size()];
    return text;
  };
  size_t stopped = 0;
  for (int round = 0; round < 1500; ++round) {
    const std::string bytes = random(generator() % 20);
    std::vector<std::string> stops(generator() % 4);
    for (std::string& stop : stops) {
      do stop = join(stream({random(1 + generator() % 4)}, {}));
      while (stop.empty());
    }
    const std::string whole = join(stream({bytes}, {}));
    const std::string expected = cutAtStop(whole, stops);
    TextStream text(piecesOf(cut(bytes, generator)), stops);
    std::string given;
    bool done = false;
    for (int32_t token = 0; !done && token < 100; ++token) {
      const auto progress = text.append(token);
      given += progress.text;
      done = progress.stopped;
      EXPECT_EQ(join(stream({progress.text}, {})), progress.text);  // is valid UTF-8
      // It holds back no more than a character and the beginning of a stop string.
      EXPECT_EQ(expected.substr(0, given.size()), given);
    }
    given += text.finish();
    stopped += done ? 1 : 0;
    // The U+FFFD of a character that is cut off may complete a stop string too.
    EXPECT_EQ(given, expected) << bytes;
  }
  EXPECT_GT(stopped, 300u);
}

TEST(TextStream, RefusesWhatMakesNoSense) {
  EXPECT_THROW(TextStream(piecesOf({"a"}), {""}), Error);
  EXPECT_THROW(TokenPieces({'a'}, {}, false), Error);
  EXPECT_THROW(TokenPieces({'a', 'b'}, {0, 1}, false), Error);
  EXPECT_THROW(TokenPieces({'a', 'b'}, {0, 2, 1, 2}, false), Error);
  const auto pieces = piecesOf({"a", "b"});
  EXPECT_EQ((*pieces)[1], "b");
  EXPECT_EQ((*pieces)[2], "");
  EXPECT_EQ((*pieces)[-1], "");
}

}  // namespace
}  // namespace node_tensorrt
