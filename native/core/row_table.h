// Tracks which sequence has which row of the KV cache, and how much of each row must be kept. It only
// decides: the caller moves the keys and values.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace node_tensorrt {

// The tokens of prompts and answers, without stop tokens. The last token drawn isn't in the cache yet: the
// next step reads it.
struct Sequence {
  std::vector<int32_t> tokens;
  size_t cached = 0;    // tokens whose keys and values are in the row; 0 without a row
  size_t promised = 0;  // cached tokens that a waiting fork or save needs
  size_t promises = 0;  // forks and saves that are waiting
  std::optional<size_t> row;
  std::string salt;
  bool shared = true;               // prompts with the same salt may reuse its cached tokens
  bool held = false;                // a caller has a handle to it
  std::optional<uint32_t> request;  // the request that generates into it
  uint64_t used = 0;                // when it was last used, as counted by the row table

  // A prefix is what an ended request leaves behind. It is kept for prompts that begin with the same tokens,
  // until its row is needed.
  bool isPrefix() const noexcept { return !held && !request; }
  // Number of tokens whose keys and values the row must keep. A sequence may be truncated while a fork of it
  // waits.
  size_t kept() const noexcept { return std::max(cached, promised); }

  // Keeps what is cached now until endPromise(), whatever happens to the sequence.
  void promise() noexcept {
    promised = kept();
    ++promises;
  }
  void endPromise() noexcept {
    if (--promises == 0) promised = 0;
  }
};

// Assigns rows to sequences. Not thread-safe.
class RowTable {
 public:
  // If `keepsPrefixes` is false, prompts don't share anything.
  RowTable(size_t rows, bool keepsPrefixes) : keepsPrefixes_(keepsPrefixes), rows_(rows) {}

  size_t size() const noexcept { return rows_.size(); }
  // The sequence in a row, or null if the row is free.
  const std::shared_ptr<Sequence>& operator[](size_t row) const noexcept { return rows_[row]; }
  // Number of tokens whose keys and values the row must keep.
  size_t kept(size_t row) const noexcept { return rows_[row] ? rows_[row]->kept() : 0; }

  // Gives the sequence a row: the preferred one, another free one, or else the row of the least recently used
  // prefix. Throws Error(ERR_CACHE_FULL).
  size_t take(const std::shared_ptr<Sequence>& sequence, std::optional<size_t> preferred = std::nullopt);

  // The first `length` tokens of a prompt, which `row` already holds.
  struct Beginning {
    size_t row = 0;
    size_t length = 0;
  };
  // Gives a row to a prompt that has none. Returns which part of the prompt is cached, either in that row or
  // in another, from which the caller must copy it. The prompt's last token is never part of it, because its
  // logits choose the next one.
  Beginning place(const std::shared_ptr<Sequence>& prompt, std::optional<size_t> preferred);

  // Swaps the sequences in two rows.
  void exchange(size_t a, size_t b) noexcept;
  // Frees the sequence's row, if it has one.
  void release(Sequence& sequence) noexcept;
  // Frees the rows of all prefixes.
  void releasePrefixes() noexcept;
  void clear() noexcept { std::fill(rows_.begin(), rows_.end(), nullptr); }
  // Called when the request that the sequence was made for has ended. The sequence becomes a prefix if the
  // table keeps prefixes, `isSound` is true and tokens are cached; otherwise its row is freed.
  void retire(Sequence& sequence, bool isSound) noexcept;
  // Called when a request of `failed` failed, and no logits have shown the row's tokens after the first
  // `trusted` to be finite. Drops those tokens if the row belongs to `failed`, or to a prefix, from which
  // `failed` may have copied its beginning.
  void forgetDoubtful(size_t row, size_t trusted, const Sequence& failed) noexcept;

  // True if rows may hold unneeded memory: from noteSurplus(), or a row being freed, until clearSurplus().
  void noteSurplus() noexcept { surplus_ = true; }
  bool hasSurplus() const noexcept { return surplus_; }
  void clearSurplus() noexcept { surplus_ = false; }

 private:
  Beginning longestBeginning(const Sequence& prompt) const;
  void put(const std::shared_ptr<Sequence>& sequence, size_t row) noexcept;

  const bool keepsPrefixes_;
  std::vector<std::shared_ptr<Sequence>> rows_;
  uint64_t uses_ = 0;
  bool surplus_ = false;
};

}  // namespace node_tensorrt
