#include "core/row_table.h"

#include <span>
#include <utility>

#include "core/error.h"

namespace node_tensorrt {
namespace {

size_t commonPrefix(std::span<const int32_t> a, std::span<const int32_t> b) {
  const size_t limit = std::min(a.size(), b.size());
  return static_cast<size_t>(std::mismatch(a.begin(), a.begin() + limit, b.begin()).first - a.begin());
}

}  // namespace

void RowTable::put(const std::shared_ptr<Sequence>& sequence, size_t row) noexcept {
  rows_[row] = sequence;
  sequence->row = row;
}

size_t RowTable::take(const std::shared_ptr<Sequence>& sequence, std::optional<size_t> preferred) {
  if (preferred && !rows_[*preferred]) {
    put(sequence, *preferred);
    return *preferred;
  }
  // The sequence in the preferred row will have to move to the row taken here. So take one at the end, where
  // it isn't in the way, unless that sequence is about to decode.
  const bool takesLast = preferred && !rows_[*preferred]->request;
  std::optional<size_t> row;
  std::shared_ptr<Sequence> oldest;
  for (size_t i = 0; i < rows_.size(); ++i) {
    const std::shared_ptr<Sequence>& resident = rows_[i];
    if (!resident) {
      if (!row || takesLast) row = i;
    } else if (resident->isPrefix() && (!oldest || resident->used < oldest->used)) {
      oldest = resident;
    }
  }
  if (!row) {
    if (!oldest) throw Error("ERR_CACHE_FULL", "All rows of the KV cache are in use.");
    row = oldest->row;
    release(*oldest);
  }
  put(sequence, *row);
  return *row;
}

// If two beginnings are equally long, prefers one that is all its sequence has cached: that row can be taken
// over without losing anything.
RowTable::Beginning RowTable::longestBeginning(const Sequence& prompt) const {
  Beginning longest;
  if (!keepsPrefixes_ || !prompt.shared) return longest;
  for (size_t row = 0; row < rows_.size(); ++row) {
    const Sequence* resident = rows_[row].get();
    if (resident == nullptr || !resident->shared || resident->salt != prompt.salt) continue;
    const size_t limit = std::min(resident->cached, prompt.tokens.size() - 1);
    const size_t common = commonPrefix(std::span(resident->tokens).first(limit), prompt.tokens);
    const bool isWhole = resident->isPrefix() && common == resident->cached;
    if (common > longest.length || (common == longest.length && common > 0 && isWhole)) {
      longest = {row, common};
    }
  }
  return longest;
}

RowTable::Beginning RowTable::place(const std::shared_ptr<Sequence>& prompt,
                                    std::optional<size_t> preferred) {
  const Beginning beginning = longestBeginning(*prompt);
  if (beginning.length > 0) {
    Sequence& source = *rows_[beginning.row];
    source.used = ++uses_;
    if (source.isPrefix() && source.cached == beginning.length) {
      release(source);
      put(prompt, beginning.row);
      return beginning;
    }
  }
  take(prompt, preferred);
  return beginning;
}

void RowTable::exchange(size_t a, size_t b) noexcept {
  std::swap(rows_[a], rows_[b]);
  if (rows_[a]) rows_[a]->row = a;
  if (rows_[b]) rows_[b]->row = b;
}

void RowTable::release(Sequence& sequence) noexcept {
  noteSurplus();
  sequence.cached = 0;
  // The table may hold the last reference to the sequence.
  if (sequence.row) rows_[*std::exchange(sequence.row, std::nullopt)] = nullptr;
}

void RowTable::releasePrefixes() noexcept {
  for (const std::shared_ptr<Sequence>& resident : rows_) {
    if (resident && resident->isPrefix()) release(*resident);
  }
}

void RowTable::retire(Sequence& sequence, bool isSound) noexcept {
  sequence.tokens.resize(sequence.cached);
  sequence.used = ++uses_;
  if (!keepsPrefixes_ || !isSound || sequence.cached == 0) release(sequence);
}

void RowTable::forgetDoubtful(size_t row, size_t trusted, const Sequence& failed) noexcept {
  Sequence* resident = rows_[row].get();
  if (resident == nullptr || (resident != &failed && !resident->isPrefix())) return;
  resident->cached = std::min(resident->cached, trusted);
  if (resident->isPrefix() && resident->cached == 0) release(*resident);
}

}  // namespace node_tensorrt
