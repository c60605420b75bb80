// Keys and values of the tokens that a model has read, so that each step computes new ones only. A sequence
// is a row.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <vector>

#include "core/tensor.h"
#include "runtime/runtime.h"

namespace node_tensorrt {

// Keys or values of one layer: [rows, kvHeads, length, headDim], or [rows, length, headDim] with one head.
struct CacheTensor {
  size_t input;  // among the model's
  DataType type;
  size_t rank;
  size_t kvHeads;
  size_t headDim;
};

// One thread at a time. Lengths are in tokens; what a row holds beyond the length that is asked for does not
// matter. Memory comes with use: see TensorMemory. Functions throw Error(ERR_OUT_OF_MEMORY).
class KvCache {
 public:
  virtual ~KvCache() = default;

  size_t rows() const noexcept { return rows_; }
  size_t bytesPerToken() const noexcept { return bytesPerToken_; }

  // What a run is to be fed and to fetch, for the rows from `first` on, which have `pasts` tokens: fills in
  // inputs[tensor.input] of each tensor, and outputs[i] of the i-th.
  virtual void bind(size_t first, std::span<const size_t> pasts, std::span<Tensor> inputs,
                    std::span<Tensor> outputs) = 0;
  // After such a run: that row now has `length` tokens.
  virtual void commit(size_t row, size_t length, std::span<Tensor> outputs) = 0;

  // The first `length` tokens of one row become another's.
  virtual void copy(size_t from, size_t to, size_t length) = 0;
  virtual void exchange(size_t a, size_t lengthA, size_t b, size_t lengthB) = 0;
  // Gives back what more than `length` tokens take.
  virtual void truncate(size_t row, size_t length) = 0;
  // Tokens that memory is held for.
  virtual size_t held(size_t row) const noexcept = 0;

  // `length` x bytesPerToken() bytes in host memory: tensor by tensor, head by head.
  virtual void read(size_t row, size_t length, std::byte* to) = 0;
  virtual void write(size_t row, size_t length, const std::byte* from) = 0;

  virtual size_t bytesReserved() const noexcept = 0;
  size_t bytesUsed() const noexcept;

 protected:
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
};

// One buffer per tensor, [rows, kvHeads, capacity, headDim], which runs read and write: neighbouring rows run
// together, whatever their lengths.
std::unique_ptr<KvCache> inPlaceCache(std::vector<CacheTensor> tensors, size_t rows, size_t capacity,
                                      std::shared_ptr<TensorMemory> memory);

// For graphs whose runs return a longer past than they are fed: each row has tensors of its own, and runs
// alone. Copies share them.
std::unique_ptr<KvCache> copyingCache(std::vector<CacheTensor> tensors, size_t rows,
                                      std::shared_ptr<TensorMemory> memory);

}  // namespace node_tensorrt
