// Decides which sequence lies in which row of the KV cache, and what each row must keep. It only decides: its
// caller moves the keys and values.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace node_tensorrt {

// Tokens of prompts and answers, without the stop tokens. The last one drawn is not in the cache yet: the
// next step reads it.
struct Sequence {
  std::vector<int32_t> tokens;
  size_t cached = 0;    // of them, in the row; 0 without one
  size_t promised = 0;  // tokens that were cached when a fork or save was asked for that still waits
  size_t promises = 0;  // forks and saves that wait
  std::optional<size_t> row;
  std::string salt;
  bool shared = true;               // with requests of its salt, as far as it is cached
  bool held = false;                // by a caller's handle
  std::optional<uint32_t> request;  // that generates into it
  uint64_t used = 0;                // when last, counted by the row table

  // A prefix is what an ended request has read: it stays for prompts that begin alike, until its row is
  // needed.
  bool isPrefix() const noexcept { return !held && !request; }
  // Tokens whose keys and values the row must keep: a sequence may be cut while a fork of it waits.
  size_t kept() const noexcept { return std::max(cached, promised); }

  // Keeps the tokens that are cached now, whatever happens to the sequence, until the promise is released.
  void promise() noexcept {
    promised = kept();
    ++promises;
  }
  void endPromise() noexcept {
    if (--promises == 0) promised = 0;
  }
};

class RowTable {
 public:
  // Without `keepsPrefixes`, prompts share nothing.
  RowTable(size_t rows, bool keepsPrefixes) : keepsPrefixes_(keepsPrefixes), rows_(rows) {}

  size_t size() const noexcept { return rows_.size(); }
  // The sequence in a row; null if there is none.
  const std::shared_ptr<Sequence>& operator[](size_t row) const noexcept { return rows_[row]; }
  // Tokens whose keys and values that row must keep.
  size_t kept(size_t row) const noexcept { return rows_[row] ? rows_[row]->kept() : 0; }

  // Gives the sequence a row that nobody needs: the preferred one, another free one, else that of the prefix
  // that was of no use for the longest time. Throws Error(ERR_CACHE_FULL).
  size_t take(const std::shared_ptr<Sequence>& sequence, std::optional<size_t> preferred = std::nullopt);

  // The first `length` tokens of a prompt, which `row` has already.
  struct Beginning {
    size_t row = 0;
    size_t length = 0;
  };
  // Gives a prompt without a row one, and says what of it is cached somewhere: in that row, or in another,
  // which it is to be copied from. The prompt's last token never is: its logits choose the next one.
  Beginning place(const std::shared_ptr<Sequence>& prompt, std::optional<size_t> preferred);

  // Exchanges the sequences of two rows.
  void exchange(size_t a, size_t b) noexcept;
  // Empties the sequence's row, where it has one.
  void release(Sequence& sequence) noexcept;
  void releasePrefixes() noexcept;
  void clear() noexcept { std::fill(rows_.begin(), rows_.end(), nullptr); }
  // After the request that the sequence was made for: it becomes a prefix, where it is of use and `isSound`.
  void retire(Sequence& sequence, bool isSound) noexcept;
  // No logits vouch for the row's tokens beyond the first `trusted`, and a request of `failed` came to grief:
  // gives up those tokens where they are of that sequence, or of a prefix, with which it may have begun.
  void forgetDoubtful(size_t row, size_t trusted, const Sequence& failed) noexcept;

  // Rows may hold memory that nobody needs, from noteSurplus() or a release on until this was asked.
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
