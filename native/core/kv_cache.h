// Stores the keys and values of tokens that a model has read, so that each step computes only new ones. Each
// sequence has a row.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "core/tensor.h"
#include "core/tensor_memory.h"

namespace node_tensorrt {

// The keys or values of one layer: [rows, kvHeads, length, headDim], or [rows, length, headDim] if there is
// one head.
struct CacheTensor {
  size_t input;  // index among the model's inputs
  DataType type;
  size_t rank;
  size_t kvHeads;
  size_t headDim;
};

// The cache of all layers. One thread at a time may use it. Lengths are in tokens. Memory is taken as it is
// used: see TensorMemory. Methods throw Error(ERR_OUT_OF_MEMORY).
//
// Values beyond a row's length don't matter, but they must be finite: a GPU's attention reads whole rows and
// gives masked tokens a weight of 0, and 0 times NaN is NaN. So anything that a run writes is in doubt until
// trust() is called. It is never called for tokens that only fill a step up. Values in doubt are zeroed
// before a run could find them beyond a row's length.
class KvCache {
 public:
  virtual ~KvCache() = default;

  size_t rows() const noexcept { return rows_; }
  size_t bytesPerToken() const noexcept { return bytesPerToken_; }

  // Prepares a run of the rows from `first` on, which have `pasts` tokens each. Sets inputs[tensor.input] for
  // each cache tensor, and outputs[i] for the i-th. The run writes `fresh` tokens after each row's past.
  virtual void bind(size_t first, std::span<const size_t> pasts, size_t fresh, std::span<Tensor> inputs,
                    std::span<Tensor> outputs) = 0;
  // Records, after such a run, that the row has `length` tokens.
  virtual void commit(size_t row, size_t length, std::span<Tensor> outputs) = 0;

  // Records that the row's first `length` tokens are finite. They are if the logits of its last run are,
  // because those depend on all of them.
  void trust(size_t row, size_t length) noexcept { doubts_[row] = doubts_[row].after(length); }
  // Records that the logits aren't finite. The tokens in doubt may not be the only cause, so everything that
  // was ever written after them is then in doubt too.
  virtual void distrust(size_t /*row*/) noexcept {}
  // How many of the row's first tokens are known to be finite; SIZE_MAX if none are in doubt.
  size_t trusted(size_t row) const noexcept { return doubts_[row].isEmpty() ? SIZE_MAX : doubts_[row].from; }

  // Copies the first `length` tokens of one row to another.
  virtual void copy(size_t from, size_t to, size_t length) = 0;
  // Swaps two rows, which have `lengthA` and `lengthB` tokens.
  virtual void exchange(size_t a, size_t lengthA, size_t b, size_t lengthB) = 0;
  // Gives back the memory of the tokens after the first `length`.
  virtual void truncate(size_t row, size_t length) = 0;
  // Number of tokens that the row has memory for.
  virtual size_t held(size_t row) const noexcept = 0;

  // Copies the first `length` tokens to host memory: `length` x bytesPerToken() bytes, tensor by tensor and
  // head by head.
  virtual void read(size_t row, size_t length, std::byte* to) = 0;
  // Fills a row with what read() gave. All values must be finite: see isFinite().
  virtual void write(size_t row, size_t length, const std::byte* from) = 0;
  // True if the keys and values of `length` tokens, laid out as read() gives them, are all finite.
  bool isFinite(size_t length, const std::byte* from) const noexcept;

  // Bytes reserved for all rows, and bytes that hold tokens.
  virtual size_t bytesReserved() const noexcept = 0;
  size_t bytesUsed() const noexcept;

 protected:
  // Tokens `from` up to, but not including, `to`, which may not be finite.
  struct Doubt {
    size_t from = 0;
    size_t to = 0;

    bool isEmpty() const noexcept { return from >= to; }
    Doubt before(size_t length) const noexcept { return {from, std::min(to, length)}; }
    Doubt after(size_t length) const noexcept { return {std::max(from, length), to}; }
    // A range that covers both, and everything between them.
    Doubt with(Doubt other) const noexcept {
      if (isEmpty()) return other;
      if (other.isEmpty()) return *this;
      return {std::min(from, other.from), std::max(to, other.to)};
    }
  };

  KvCache(std::vector<CacheTensor> tensors, size_t rows, std::shared_ptr<TensorMemory> memory);

  // Bytes that `length` tokens take in one head.
  static size_t headBytes(const CacheTensor& tensor, size_t length) noexcept {
    return length * tensor.headDim * byteSize(tensor.type);
  }
  // A tensor of `rows` rows with `length` tokens each, at `data`.
  Tensor make(const CacheTensor& tensor, size_t rows, size_t length, std::shared_ptr<void> data) const;

  const std::vector<CacheTensor> tensors_;
  const size_t rows_;
  const std::shared_ptr<TensorMemory> memory_;
  size_t bytesPerToken_ = 0;
  std::vector<Doubt> doubts_;  // by row
};

// Creates a cache with one buffer per tensor, [rows, kvHeads, capacity, headDim], which runs read and write
// in place. Neighbouring rows run together, whatever their lengths.
std::unique_ptr<KvCache> inPlaceCache(std::vector<CacheTensor> tensors, size_t rows, size_t capacity,
                                      std::shared_ptr<TensorMemory> memory);

// Creates a cache for graphs whose outputs are the past and the new tokens. Each row has tensors of its own
// and runs alone. Copies of a row share its tensors.
std::unique_ptr<KvCache> copyingCache(std::vector<CacheTensor> tensors, size_t rows,
                                      std::shared_ptr<TensorMemory> memory);

}  // namespace node_tensorrt
