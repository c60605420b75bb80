// Keys and values of the tokens that a model has read, so that each step computes new ones only. A sequence
// is a row.
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

// Keys or values of one layer: [rows, kvHeads, length, headDim], or [rows, length, headDim] with one head.
struct CacheTensor {
  size_t input;  // among the model's
  DataType type;
  size_t rank;
  size_t kvHeads;
  size_t headDim;
};

// One thread at a time. Lengths are in tokens. Memory comes with use: see TensorMemory. Functions throw
// Error(ERR_OUT_OF_MEMORY).
//
// What a row holds beyond the length that is asked for is of no use, but it must be finite: a GPU's attention
// reads whole rows and gives what is masked a weight of 0, and 0 times NaN is NaN. So what a run writes is in
// doubt until trust() says otherwise, which it never does of what only fills a step up; and what is in doubt
// is zeroed before a run would find it beyond a row's length.
class KvCache {
 public:
  virtual ~KvCache() = default;

  size_t rows() const noexcept { return rows_; }
  size_t bytesPerToken() const noexcept { return bytesPerToken_; }

  // Fills in the inputs and outputs of a run for the rows from `first` on, which hold `pasts` tokens:
  // inputs[tensor.input] for each tensor, and outputs[i] for the i-th. The run writes `fresh` tokens after
  // each past.
  virtual void bind(size_t first, std::span<const size_t> pasts, size_t fresh, std::span<Tensor> inputs,
                    std::span<Tensor> outputs) = 0;
  // After such a run: that row now has `length` tokens.
  virtual void commit(size_t row, size_t length, std::span<Tensor> outputs) = 0;

  // The row's first `length` tokens are finite: the logits of its last run, which follow from them, are.
  void trust(size_t row, size_t length) noexcept { doubts_[row] = doubts_[row].after(length); }
  // The logits are not. What is in doubt may not be all that is to blame: whatever was ever written behind it
  // is too.
  virtual void distrust(size_t /*row*/) noexcept {}
  // How many of the row's first tokens are known to be finite; SIZE_MAX if none is in doubt.
  size_t trusted(size_t row) const noexcept { return doubts_[row].isEmpty() ? SIZE_MAX : doubts_[row].from; }

  // The first `length` tokens of one row become another's.
  virtual void copy(size_t from, size_t to, size_t length) = 0;
  virtual void exchange(size_t a, size_t lengthA, size_t b, size_t lengthB) = 0;
  // Gives back what more than `length` tokens take.
  virtual void truncate(size_t row, size_t length) = 0;
  // Tokens that memory is held for.
  virtual size_t held(size_t row) const noexcept = 0;

  // `length` x bytesPerToken() bytes in host memory: tensor by tensor, head by head.
  virtual void read(size_t row, size_t length, std::byte* to) = 0;
  // Finite ones: see isFinite().
  virtual void write(size_t row, size_t length, const std::byte* from) = 0;
  // Are the keys and values of so many tokens, as read() gives them, all finite?
  bool isFinite(size_t length, const std::byte* from) const noexcept;

  virtual size_t bytesReserved() const noexcept = 0;
  size_t bytesUsed() const noexcept;

 protected:
  // Tokens from one on and before another, which may not be finite.
  struct Doubt {
    size_t from = 0;
    size_t to = 0;

    bool isEmpty() const noexcept { return from >= to; }
    Doubt before(size_t length) const noexcept { return {from, std::min(to, length)}; }
    Doubt after(size_t length) const noexcept { return {std::max(from, length), to}; }
    // Both, and what lies between them.
    Doubt with(Doubt other) const noexcept {
      if (isEmpty()) return other;
      if (other.isEmpty()) return *this;
      return {std::min(from, other.from), std::max(to, other.to)};
    }
  };

  KvCache(std::vector<CacheTensor> tensors, size_t rows, std::shared_ptr<TensorMemory> memory);

  // Bytes of `length` tokens in one head.
  static size_t headBytes(const CacheTensor& tensor, size_t length) noexcept {
    return length * tensor.headDim * byteSize(tensor.type);
  }
  // Rows of that many tokens, at `data`.
  Tensor make(const CacheTensor& tensor, size_t rows, size_t length, std::shared_ptr<void> data) const;

  const std::vector<CacheTensor> tensors_;
  const size_t rows_;
  const std::shared_ptr<TensorMemory> memory_;
  size_t bytesPerToken_ = 0;
  std::vector<Doubt> doubts_;  // by row
};

// One buffer per tensor, [rows, kvHeads, capacity, headDim], which runs read and write: neighbouring rows run
// together, whatever their lengths.
std::unique_ptr<KvCache> inPlaceCache(std::vector<CacheTensor> tensors, size_t rows, size_t capacity,
                                      std::shared_ptr<TensorMemory> memory);

// A cache for graphs whose runs return a longer past than they are fed. Each row has tensors of its own and
// runs alone. Copies share them.
std::unique_ptr<KvCache> copyingCache(std::vector<CacheTensor> tensors, size_t rows,
                                      std::shared_ptr<TensorMemory> memory);

}  // namespace node_tensorrt
