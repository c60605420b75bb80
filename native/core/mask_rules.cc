#include "core/mask_rules.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <functional>
#include <mutex>
#include <numeric>
#include <optional>

#include "core/error.h"
#include "core/key_kernels.h"
#include "core/parallel.h"

namespace node_tensorrt {
namespace {

constexpr size_t kWordBits = 64;

// Elements that one thread takes at a time. A multiple of 64 and of all chunks.
constexpr size_t kSliceElements = size_t{1} << 20;

// Keys from which the place of the threshold is guessed, and how many neighbours are read at once.
constexpr size_t kSampledKeys = size_t{1} << 17;
constexpr size_t kSampledRun = size_t{1} << 8;

// If a guess leaves a larger share of the keys to look at, it isn't worth its memory.
constexpr double kMostCandidates = 0.05;

// Large blocks are added up in this many parts, unless there are more blocks than this.
constexpr size_t kBlockParts = 16;
constexpr size_t kMostCutBlocks = size_t{1} << 18;

// Groups of up to this many elements are ranked by comparing each with each.
constexpr size_t kRankedGroup = 16;

// ---- comparing ----

// Which keys of a chunk are above a limit, and which equal it, as words of bits.
class Compared {
 public:
  void compare(std::span<const uint32_t> keys, uint32_t least, uint32_t most) {
    const size_t words = (keys.size() + kWordBits - 1) / kWordBits;
    above_.resize(words);
    atLeast_.assign(words, ~uint64_t{0});
    keysAbove(keys, most, above_.data());
    if (least > 0) keysAbove(keys, least - 1, atLeast_.data());
    if (least == 0 && keys.size() % kWordBits != 0) atLeast_.back() = lowBits(keys.size() % kWordBits);
  }
  size_t words() const noexcept { return above_.size(); }
  // Keys above `most`.
  uint64_t above(size_t word) const noexcept { return above_[word]; }
  // Keys from `least` to `most`.
  uint64_t within(size_t word) const noexcept { return atLeast_[word] & ~above_[word]; }

 private:
  std::vector<uint64_t> above_;
  std::vector<uint64_t> atLeast_;
};

// ---- the largest of all ----

// Part of a tensor.
struct Slice {
  size_t tensor;
  size_t from;
  size_t to;
};

std::vector<Slice> slicesOf(std::span<const ScoredTensor> tensors) {
  std::vector<Slice> slices;
  for (size_t t = 0; t < tensors.size(); ++t) {
    const size_t size = tensors[t].scores->size();
    for (size_t from = 0; from < size; from += kSliceElements) {
      slices.push_back({t, from, std::min(from + kSliceElements, size)});
    }
  }
  return slices;
}

// Calls `use` with the keys of each chunk of a slice, and the place of the first.
template <class Use>
void forEachChunk(const Scores& scores, size_t from, size_t to, const std::stop_token& stop, const Use& use) {
  std::vector<uint32_t> keys(std::min(scores.chunk(), to - from));
  for (size_t at = from; at < to; at += keys.size()) {
    throwIfStopped(stop);
    const std::span<uint32_t> part = std::span(keys).first(std::min(keys.size(), to - at));
    scores.read(at, part);
    use(at, part);
  }
}

// Counts of keys by 16 of their bits.
using Histogram = std::vector<size_t>;

// The key of the element that is just kept, and how many elements with that key are kept.
struct Threshold {
  uint32_t key;
  size_t ties;
};

// Finds the bin that holds the `keep`-th largest key, and reduces `keep` by the keys in bins above it.
size_t binOf(const Histogram& counts, size_t& keep) {
  size_t bin = counts.size() - 1;
  while (bin > 0 && counts[bin] < keep) keep -= counts[bin--];
  return bin;
}

// Finds the threshold with two passes over the keys: counts by the upper bits, then by the lower bits of
// those that share the threshold's upper bits.
Threshold countedThreshold(std::span<const ScoredTensor> tensors, std::span<const Slice> slices, size_t keep,
                           const std::stop_token& stop) {
  std::mutex mutex;
  const auto count = [&](size_t bins, auto add) {
    Histogram total(bins);
    parallelFor(slices.size(), [&](size_t i) {
      std::vector<uint32_t> counts(bins);
      const auto [tensor, from, to] = slices[i];
      forEachChunk(*tensors[tensor].scores, from, to, stop,
                   [&](size_t, std::span<const uint32_t> keys) { add(counts, keys); });
      std::lock_guard lock(mutex);
      for (size_t bin = 0; bin < bins; ++bin) total[bin] += counts[bin];
    });
    return total;
  };
  const Histogram upper = count((Scores::kMostKey >> 16) + 1, [](auto& counts, auto keys) {
    for (const uint32_t key : keys) ++counts[key >> 16];
  });
  const auto high = static_cast<uint32_t>(binOf(upper, keep));
  const Histogram lower = count(size_t{1} << 16, [high](auto& counts, auto keys) {
    for (const uint32_t key : keys) {
      if (key >> 16 == high) ++counts[key & 0xffff];
    }
  });
  const auto low = static_cast<uint32_t>(binOf(lower, keep));
  return {high << 16 | low, keep};
}

// Two keys between which the threshold lies, most likely.
struct Bracket {
  uint32_t least;
  uint32_t most;
};

// Looks for a bracket in a sample of the keys. Returns nothing if it would hold too many of them, as it does
// when many keys are equal.
std::optional<Bracket> sampledBracket(std::span<const ScoredTensor> tensors, std::span<const Slice> slices,
                                      size_t keep, const std::stop_token& stop) {
  size_t size = 0;
  for (const Slice& slice : slices) size += slice.to - slice.from;
  if (size <= kSampledKeys) return Bracket{0, Scores::kMostKey};
  // Runs of neighbours, spread evenly. Each slice gives as many keys as its share of all.
  std::vector<uint32_t> sample;
  for (const auto& [tensor, from, to] : slices) {
    const size_t share = std::max<size_t>(kSampledKeys * (to - from) / size, 1);
    const size_t runs = (share + kSampledRun - 1) / kSampledRun;
    const size_t length = std::min(kSampledRun, (to - from) / runs);
    for (size_t run = 0; run < runs; ++run) {
      throwIfStopped(stop);
      const size_t begin = sample.size();
      sample.resize(begin + length);
      tensors[tensor].scores->read(from + (to - from) / runs * run, std::span(sample).subspan(begin));
    }
  }
  const auto count = static_cast<double>(sample.size());
  const double rank = static_cast<double>(keep) / static_cast<double>(size) * count;
  // Standard deviations of the rank that the threshold has in a random sample.
  const double margin = 5 * std::sqrt(rank * (1 - rank / count)) + 5;
  const auto keyAt = [&](double place) {
    const auto at = sample.begin() + static_cast<ptrdiff_t>(place);
    std::nth_element(sample.begin(), at, sample.end(), std::greater<>());
    return *at;
  };
  const Bracket bracket{rank + margin < count ? keyAt(rank + margin) : 0,
                        rank - margin >= 0 ? keyAt(rank - margin) : Scores::kMostKey};
  const auto within = std::count_if(sample.begin(), sample.end(), [&](uint32_t key) {
    return key >= bracket.least && key <= bracket.most;
  });
  if (static_cast<double>(within) > kMostCandidates * count) return std::nullopt;
  return bracket;
}

// An element whose key lies within the bracket.
struct Candidate {
  uint32_t key;
  uint32_t place;  // in its slice
};

// Keeps the elements above a bracket, and returns those within it: for each slice, in order.
std::vector<std::vector<Candidate>> keepAboveBracket(std::span<const ScoredTensor> tensors,
                                                     std::span<const Slice> slices, const Bracket& bracket,
                                                     std::vector<Mask>& masks, const std::stop_token& stop) {
  std::vector<std::vector<Candidate>> candidates(slices.size());
  parallelFor(slices.size(), [&](size_t s) {
    const auto [tensor, from, to] = slices[s];
    Compared compared;
    forEachChunk(*tensors[tensor].scores, from, to, stop, [&](size_t at, std::span<const uint32_t> keys) {
      compared.compare(keys, bracket.least, bracket.most);
      for (size_t w = 0; w < compared.words(); ++w) {
        masks[tensor].set(at + w * kWordBits, compared.above(w), kWordBits);
        for (uint64_t within = compared.within(w); within != 0; within &= within - 1) {
          const size_t i = w * kWordBits + static_cast<size_t>(std::countr_zero(within));
          candidates[s].push_back({keys[i], static_cast<uint32_t>(at - from + i)});
        }
      }
    });
  });
  return candidates;
}

size_t keptBy(std::span<const Mask> masks) {
  size_t kept = 0;
  for (const Mask& mask : masks) kept += mask.kept();
  return kept;
}

std::vector<Mask> masksFor(std::span<const ScoredTensor> tensors) {
  std::vector<Mask> masks;
  for (const ScoredTensor& tensor : tensors) masks.emplace_back(tensor.dims);
  return masks;
}

// Makes the masks with one pass over the keys, if a sample tells where the threshold is.
std::optional<std::vector<Mask>> keepBySample(std::span<const ScoredTensor> tensors,
                                              std::span<const Slice> slices, size_t keep,
                                              const std::stop_token& stop) {
  const auto bracket = sampledBracket(tensors, slices, keep, stop);
  if (!bracket) return std::nullopt;
  std::vector<Mask> masks = masksFor(tensors);
  const auto candidates = keepAboveBracket(tensors, slices, *bracket, masks, stop);
  std::vector<uint32_t> keys;
  size_t count = 0;
  for (const auto& each : candidates) count += each.size();
  keys.reserve(count);
  for (const auto& each : candidates) {
    for (const Candidate& candidate : each) keys.push_back(candidate.key);
  }
  const size_t above = keptBy(masks);
  if (above > keep || keep - above > keys.size()) return std::nullopt;
  if (above == keep) return masks;
  const auto last = keys.begin() + static_cast<ptrdiff_t>(keep - above - 1);
  std::nth_element(keys.begin(), last, keys.end(), std::greater<>());
  const uint32_t threshold = *last;
  auto ties = std::count(keys.begin(), last + 1, threshold);
  for (size_t s = 0; s < slices.size(); ++s) {
    for (const auto& [key, place] : candidates[s]) {
      if (key < threshold || (key == threshold && ties-- <= 0)) continue;
      masks[slices[s].tensor].set(slices[s].from + place, 1, 1);
    }
  }
  return masks;
}

// Returns the lowest `count` set bits.
uint64_t lowestSet(uint64_t bits, size_t count) {
  uint64_t result = 0;
  for (; count > 0 && bits != 0; --count) {
    result |= bits & -bits;
    bits &= bits - 1;
  }
  return result;
}

// ---- the largest of each group ----

// Calls `keep` with each kept position of a group of any size.
template <class Keep>
void selectLarge(const uint32_t* keys, Pattern pattern, size_t stride, std::vector<uint64_t>& order,
                 const Keep& keep) {
  order.resize(pattern.of);
  // Large keys come first, then early positions.
  for (size_t i = 0; i < pattern.of; ++i) {
    order[i] = uint64_t{Scores::kMostKey - keys[i * stride]} << 32 | i;
  }
  if (pattern.keep < pattern.of) {
    std::nth_element(order.begin(), order.begin() + static_cast<ptrdiff_t>(pattern.keep), order.end());
  }
  for (size_t i = 0; i < pattern.keep; ++i) keep(static_cast<size_t>(order[i] & 0xffff'ffff));
}

// Groups that lie one behind another.
void keepInNeighbours(Mask& mask, size_t from, std::span<const uint32_t> keys, Pattern pattern,
                      std::vector<uint64_t>& order) {
  if (pattern.of == 4) {
    order.resize((keys.size() + kWordBits - 1) / kWordBits);
    keepOfFours(keys, pattern.keep, order.data());
    for (size_t w = 0; w < order.size(); ++w) mask.set(from + w * kWordBits, order[w], kWordBits);
    return;
  }
  for (size_t i = 0; i < keys.size(); i += pattern.of) {
    if (pattern.of <= kRankedGroup) {
      mask.set(from + i, keepOfGroup(&keys[i], pattern.of, pattern.keep), pattern.of);
    } else {
      selectLarge(&keys[i], pattern, 1, order, [&](size_t k) { mask.set(from + i + k, 1, 1); });
    }
  }
}

// Groups whose elements lie `stride` apart: `columns` groups side by side, whose keys lie in rows of
// `columns`. `from` is the place of the first element.
void keepInColumns(Mask& mask, size_t from, size_t stride, std::span<const uint32_t> keys, size_t columns,
                   Pattern pattern, std::vector<uint64_t>& order) {
  if (pattern.of > kRankedGroup) {
    for (size_t column = 0; column < columns; ++column) {
      selectLarge(&keys[column], pattern, columns, order,
                  [&](size_t k) { mask.set(from + k * stride + column, 1, 1); });
    }
    return;
  }
  std::array<uint32_t, kWordBits> larger;
  for (size_t first = 0; first < columns; first += kWordBits) {
    const size_t count = std::min(kWordBits, columns - first);
    for (size_t i = 0; i < pattern.of; ++i) {
      const uint32_t* own = &keys[i * columns + first];
      std::fill(larger.begin(), larger.end(), 0);
      for (size_t j = 0; j < pattern.of; ++j) {
        const uint32_t* other = &keys[j * columns + first];
        if (j < i) {
          for (size_t c = 0; c < count; ++c) larger[c] += other[c] >= own[c] ? 1 : 0;
        } else if (j > i) {
          for (size_t c = 0; c < count; ++c) larger[c] += other[c] > own[c] ? 1 : 0;
        }
      }
      uint64_t kept = 0;
      for (size_t c = 0; c < count; ++c) kept |= uint64_t{larger[c] < pattern.keep} << c;
      mask.set(from + i * stride + first, kept, count);
    }
  }
}

// ---- blocks ----

// The blocks that a tensor is divided into, numbered row-major.
class BlockGrid {
 public:
  BlockGrid(Shape dims, Shape block) : dims_(std::move(dims)), block_(std::move(block)) {
    // A vector is a matrix of one row, and a scalar one of one element.
    while (dims_.size() < 2) {
      dims_.insert(dims_.begin(), 1);
      block_.insert(block_.begin(), 1);
    }
    strides_.resize(dims_.size(), 1);
    for (size_t d = dims_.size() - 1; d > 0; --d) strides_[d - 1] = strides_[d] * along(d);
  }

  size_t count() const { return strides_[0] * along(0); }
  // Blocks beside each other along the first dimension, and how many blocks each of these layers has.
  size_t layers() const { return along(0); }
  size_t blocksPerLayer() const { return strides_[0]; }
  // Elements of a row of the tensor, and of a row of a block.
  size_t rowElements() const { return static_cast<size_t>(dims_.back()); }
  size_t run() const { return static_cast<size_t>(block_.back()); }

  // The first block of the row that begins with an element.
  size_t firstBlock(size_t element) const {
    size_t row = element / rowElements();
    size_t result = 0;
    for (size_t d = dims_.size() - 1; d > 0; --d) {
      const auto dim = static_cast<size_t>(dims_[d - 1]);
      result += row % dim / static_cast<size_t>(block_[d - 1]) * strides_[d - 1];
      row /= dim;
    }
    return result;
  }

 private:
  size_t along(size_t d) const { return static_cast<size_t>(dims_[d] / block_[d]); }

  Shape dims_;
  Shape block_;
  std::vector<size_t> strides_;  // how far apart two neighbours along each dimension are
};

// The norm of each block, or for L2 its square.
std::vector<double> blockSums(const ScoredTensor& tensor, const BlockGrid& grid, Norm norm,
                              const std::stop_token& stop) {
  // Each part is summed in element order, and the division into parts doesn't depend on the number of
  // threads, so the sums are always the same. A part holds whole rows. If there are only a few large blocks,
  // they are divided too.
  const size_t blocks = grid.count();
  const size_t rowElements = grid.rowElements();
  const size_t run = grid.run();
  const size_t layer = tensor.scores->size() / grid.layers();
  const size_t rows = layer / rowElements;
  const bool divides = grid.layers() < kBlockParts && grid.blocksPerLayer() <= kMostCutBlocks;
  const size_t parts = divides ? std::min(kBlockParts, rows) : 1;
  std::vector<double> sums(blocks * parts);
  parallelFor(grid.layers() * parts, [&](size_t task) {
    const size_t part = task % parts;
    const size_t begin = task / parts * layer;
    double* const own = &sums[part * blocks];
    size_t column = 0;
    size_t first = 0;
    const auto add = [&](size_t at, std::span<const uint32_t> keys) {
      for (size_t i = 0; i < keys.size();) {
        if (column == 0) first = grid.firstBlock(at + i);
        // Blocks that are one element wide are taken together to the end of the row.
        const size_t width = run == 1 ? rowElements - column : run - column % run;
        const size_t count = std::min(keys.size() - i, width);
        double* sum = own + first + (run == 1 ? column : column / run);
        for (size_t k = 0; k < count; ++k) {
          const double score = std::bit_cast<float>(keys[i + k]);
          *sum += norm == Norm::kL1 ? score : score * score;
          if (run == 1) ++sum;
        }
        i += count;
        column = column + count == rowElements ? 0 : column + count;
      }
    };
    forEachChunk(*tensor.scores, begin + rows * part / parts * rowElements,
                 begin + rows * (part + 1) / parts * rowElements, stop, add);
  });
  for (size_t i = blocks; i < sums.size(); ++i) sums[i % blocks] += sums[i];
  sums.resize(blocks);
  return sums;
}

}  // namespace

std::vector<Mask> keepLargest(std::span<const ScoredTensor> tensors, size_t keep,
                              const std::stop_token& stop) {
  const std::vector<Slice> slices = slicesOf(tensors);
  if (keep == 0) return masksFor(tensors);
  if (auto masks = keepBySample(tensors, slices, keep, stop)) return *std::move(masks);
  const Threshold threshold = countedThreshold(tensors, slices, keep, stop);
  std::vector<Mask> masks = masksFor(tensors);

  // Keys above the threshold's are kept. Those that equal it are counted, and kept in order.
  std::vector<size_t> ties(slices.size());
  parallelFor(slices.size(), [&](size_t s) {
    const auto [tensor, from, to] = slices[s];
    Compared compared;
    forEachChunk(*tensors[tensor].scores, from, to, stop, [&](size_t at, std::span<const uint32_t> keys) {
      compared.compare(keys, threshold.key, threshold.key);
      for (size_t w = 0; w < compared.words(); ++w) {
        masks[tensor].set(at + w * kWordBits, compared.above(w), kWordBits);
        ties[s] += static_cast<size_t>(std::popcount(compared.within(w)));
      }
    });
  });
  size_t left = threshold.ties;
  for (size_t& each : ties) {
    each = std::min(each, left);
    left -= each;
  }
  parallelFor(slices.size(), [&](size_t s) {
    size_t open = ties[s];
    if (open == 0) return;
    const auto [tensor, from, to] = slices[s];
    Compared compared;
    forEachChunk(*tensors[tensor].scores, from, to, stop, [&](size_t at, std::span<const uint32_t> keys) {
      if (open == 0) return;
      compared.compare(keys, threshold.key, threshold.key);
      for (size_t w = 0; w < compared.words() && open > 0; ++w) {
        const uint64_t chosen = lowestSet(compared.within(w), open);
        masks[tensor].set(at + w * kWordBits, chosen, kWordBits);
        open -= static_cast<size_t>(std::popcount(chosen));
      }
    });
  });

  if (keptBy(masks) != keep) {
    throw Error("ERR_INVALID_ARG_VALUE",
                "The weights were written to while a mask was made of them. Wait until it is made.");
  }
  return masks;
}

Mask keepInGroups(const ScoredTensor& tensor, Pattern pattern, size_t axis, const std::stop_token& stop) {
  Mask mask(tensor.dims);
  const Scores& scores = *tensor.scores;
  const auto [outer, size, inner] = viewAlong(tensor.dims, axis);
  if (mask.size() == 0) return mask;
  const size_t groupElements = pattern.of * inner;
  const size_t chunk = scores.chunk();
  if (groupElements <= chunk) {
    // Whole rows of groups are read at once.
    const size_t rows = mask.size() / groupElements;
    const size_t rowsPerSlice = std::max<size_t>(kSliceElements / groupElements, 1);
    const size_t rowsPerRead = chunk / groupElements;
    parallelFor((rows + rowsPerSlice - 1) / rowsPerSlice, [&](size_t s) {
      std::vector<uint32_t> keys(rowsPerRead * groupElements);
      std::vector<uint64_t> order;
      const size_t end = std::min((s + 1) * rowsPerSlice, rows);
      for (size_t row = s * rowsPerSlice; row < end; row += rowsPerRead) {
        throwIfStopped(stop);
        const size_t from = row * groupElements;
        const auto part = std::span(keys).first(std::min(rowsPerRead, end - row) * groupElements);
        scores.read(from, part);
        if (inner == 1) {
          keepInNeighbours(mask, from, part, pattern, order);
        } else {
          for (size_t at = 0; at < part.size(); at += groupElements) {
            keepInColumns(mask, from + at, inner, part.subspan(at, groupElements), inner, pattern, order);
          }
        }
      }
    });
    return mask;
  }
  // A row of groups is read in tiles of some columns.
  const size_t columns = std::min(inner, std::max<size_t>(chunk / pattern.of, kWordBits));
  const size_t tiles = (inner + columns - 1) / columns;
  parallelFor(outer * (size / pattern.of) * tiles, [&](size_t task) {
    const size_t first = task % tiles * columns;
    const size_t count = std::min(columns, inner - first);
    const size_t from = task / tiles * groupElements + first;
    std::vector<uint32_t> keys(pattern.of * count);
    for (size_t i = 0; i < pattern.of; ++i) {
      throwIfStopped(stop);
      scores.read(from + i * inner, std::span(keys).subspan(i * count, count));
    }
    std::vector<uint64_t> order;
    keepInColumns(mask, from, inner, keys, count, pattern, order);
  });
  return mask;
}

Mask keepBlocks(const ScoredTensor& tensor, const Shape& block, size_t keep, Norm norm,
                const std::stop_token& stop) {
  Mask mask(tensor.dims);
  if (mask.size() == 0) return mask;
  const BlockGrid grid(tensor.dims, block);
  const std::vector<double> sums = blockSums(tensor, grid, norm, stop);
  std::vector<size_t> order(sums.size());
  std::iota(order.begin(), order.end(), size_t{0});
  const auto isBefore = [&](size_t a, size_t b) { return sums[a] != sums[b] ? sums[a] > sums[b] : a < b; };
  if (keep < order.size()) {
    std::nth_element(order.begin(), order.begin() + static_cast<ptrdiff_t>(keep), order.end(), isBefore);
  }
  std::vector<bool> isKept(sums.size());
  for (size_t i = 0; i < keep; ++i) isKept[order[i]] = true;
  for (size_t row = 0; row < mask.size(); row += grid.rowElements()) {
    const size_t first = grid.firstBlock(row);
    for (size_t at = 0; at < grid.rowElements(); at += grid.run()) {
      if (isKept[first + at / grid.run()]) mask.setRange(row + at, grid.run());
    }
  }
  return mask;
}

std::vector<double> sliceSums(const ScoredTensor& tensor, size_t axis, Norm norm,
                              const std::stop_token& stop) {
  Shape block = tensor.dims;
  block[axis] = 1;
  if (tensor.scores->size() == 0) return std::vector<double>(static_cast<size_t>(tensor.dims[axis]));
  return blockSums(tensor, BlockGrid(tensor.dims, block), norm, stop);
}

Mask updateMask(const Mask& mask, const Scores& weights, const Scores& growth, size_t count,
                const std::stop_token& stop) {
  const ScoresAmong kept(weights, mask);
  const ScoredTensor before{&kept, mask.dims()};
  const Mask survivors = keepLargest(std::span(&before, 1), mask.kept() - count, stop)[0];
  const Mask dropped = ~survivors;
  const ScoresAmong candidates(growth, dropped);
  const ScoredTensor after{&candidates, mask.dims()};
  return survivors | keepLargest(std::span(&after, 1), count, stop)[0];
}

}  // namespace node_tensorrt
