#include "core/kv_cache.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace node_tensorrt {
namespace {

// True if, in some value, all exponent bits (`mask`) are ones: it is then infinite or NaN.
template <class Bits>
bool anyNotFinite(const std::byte* values, size_t bytes, Bits mask) noexcept {
  bool found = false;
  for (size_t at = 0; at < bytes; at += sizeof(Bits)) {
    Bits bits;
    std::memcpy(&bits, values + at, sizeof bits);
    found |= (bits & mask) == mask;
  }
  return found;
}

bool anyNotFinite(DataType type, const std::byte* values, size_t bytes) noexcept {
  if (type == DataType::kFloat32) return anyNotFinite<uint32_t>(values, bytes, 0x7f800000);
  return anyNotFinite<uint16_t>(values, bytes, type == DataType::kFloat16 ? 0x7c00 : 0x7f80);
}

}  // namespace

KvCache::KvCache(std::vector<CacheTensor> tensors, size_t rows, std::shared_ptr<TensorMemory> memory)
    : tensors_(std::move(tensors)), rows_(rows), memory_(std::move(memory)), doubts_(rows) {
  for (const CacheTensor& tensor : tensors_) bytesPerToken_ += tensor.kvHeads * headBytes(tensor, 1);
}

size_t KvCache::bytesUsed() const noexcept {
  size_t tokens = 0;
  for (size_t row = 0; row < rows_; ++row) tokens += held(row);
  return tokens * bytesPerToken_;
}

bool KvCache::isFinite(size_t length, const std::byte* from) const noexcept {
  for (const CacheTensor& tensor : tensors_) {
    const size_t bytes = tensor.kvHeads * headBytes(tensor, length);
    if (anyNotFinite(tensor.type, from, bytes)) return false;
    from += bytes;
  }
  return true;
}

Tensor KvCache::make(const CacheTensor& tensor, size_t rows, size_t length,
                     std::shared_ptr<void> data) const {
  const auto size = [](size_t value) { return static_cast<int64_t>(value); };
  Tensor result;
  result.type = tensor.type;
  result.shape = {size(rows), size(tensor.kvHeads), size(length), size(tensor.headDim)};
  if (tensor.rank == 3) result.shape.erase(result.shape.begin() + 1);
  result.data = std::move(data);
  result.byteLength = rows * tensor.kvHeads * headBytes(tensor, length);
  result.location = memory_->location();
  result.device = memory_->device();
  return result;
}

namespace {

std::byte* at(const std::shared_ptr<void>& memory, size_t offset) {
  return static_cast<std::byte*>(memory.get()) + offset;
}

class InPlaceCache final : public KvCache {
 public:
  InPlaceCache(std::vector<CacheTensor> tensors, size_t rows, size_t capacity,
               std::shared_ptr<TensorMemory> memory)
      : KvCache(std::move(tensors), rows, std::move(memory)),
        capacity_(capacity),
        held_(rows),
        written_(rows) {
    for (const CacheTensor& tensor : tensors_) {
      buffers_.push_back(memory_->reserve(rows_ * rowBytes(tensor)));
    }
  }

  void bind(size_t first, std::span<const size_t> pasts, size_t fresh, std::span<Tensor> inputs,
            std::span<Tensor> outputs) override {
    for (size_t i = 0; i < pasts.size(); ++i) {
      const size_t length = pasts[i] + fresh;
      // Zeroes doubtful values, except those that this run overwrites.
      clearDoubts(first + i, length);
      doubts_[first + i] = doubts_[first + i].with({pasts[i], length});
      written_[first + i] = std::max(written_[first + i], length);
    }
    for (size_t i = 0; i < tensors_.size(); ++i) {
      const CacheTensor& tensor = tensors_[i];
      Tensor& input = inputs[tensor.input];
      std::byte* begin = at(buffers_[i], first * rowBytes(tensor));
      if (input.data.get() == begin && input.byteLength == pasts.size() * rowBytes(tensor))
        continue;  // same as in the previous run
      Tensor bound = make(tensor, pasts.size(), capacity_, std::shared_ptr<void>(buffers_[i], begin));
      outputs[i] = bound;
      input = std::move(bound);
    }
  }

  void commit(size_t row, size_t length, std::span<Tensor>) override {
    held_[row] = std::max(held_[row], length);
  }

  void distrust(size_t row) noexcept override {
    if (!doubts_[row].isEmpty()) doubts_[row].to = std::max(doubts_[row].to, written_[row]);
  }

  void copy(size_t from, size_t to, size_t length) override {
    const Doubt copied = doubts_[from].before(length);
    doubts_[to] = doubts_[to].with(copied);
    written_[to] = std::max(written_[to], length);
    for (size_t i = 0; i < tensors_.size(); ++i) {
      const CacheTensor& tensor = tensors_[i];
      memory_->copy(blocks(tensor, at(buffers_[i], to * rowBytes(tensor)),
                           at(buffers_[i], from * rowBytes(tensor)), length));
    }
    memory_->finish();
    doubts_[to] = doubts_[to].after(length).with(copied);
    held_[to] = std::max(held_[to], length);
  }

  void exchange(size_t a, size_t lengthA, size_t b, size_t lengthB) override {
    // Done before anything is moved, so that nothing changes if memory runs out.
    size_t largest = 0;
    for (const CacheTensor& tensor : tensors_) largest = std::max(largest, rowBytes(tensor));
    if (!spare_) spare_ = memory_->reserve(largest);
    const Doubt ofA = doubts_[a];
    const Doubt ofB = doubts_[b];
    doubts_[a] = doubts_[b] = ofA.with(ofB);  // until the exchange is complete
    written_[a] = written_[b] = std::max(written_[a], written_[b]);
    for (size_t i = 0; i < tensors_.size(); ++i) {
      const CacheTensor& tensor = tensors_[i];
      std::byte* rowA = at(buffers_[i], a * rowBytes(tensor));
      std::byte* rowB = at(buffers_[i], b * rowBytes(tensor));
      memory_->copy(blocks(tensor, at(spare_, 0), rowA, lengthA));
      memory_->copy(blocks(tensor, rowA, rowB, lengthB));
      memory_->copy(blocks(tensor, rowB, at(spare_, 0), lengthA));
    }
    memory_->finish();
    doubts_[a] = ofA.after(lengthB).with(ofB.before(lengthB));
    doubts_[b] = ofB.after(lengthA).with(ofA.before(lengthA));
    held_[a] = std::max(held_[a], lengthB);
    held_[b] = std::max(held_[b], lengthA);
  }

  void truncate(size_t row, size_t length) override {
    const size_t end = std::max(held_[row], doubts_[row].to);
    if (end <= length) return;
    clearDoubts(row, length);
    for (size_t i = 0; i < tensors_.size(); ++i) {
      const CacheTensor& tensor = tensors_[i];
      for (size_t head = 0; head < tensor.kvHeads; ++head) {
        const size_t begin = row * rowBytes(tensor) + head * headBytes(tensor, capacity_);
        memory_->giveBack(at(buffers_[i], begin + headBytes(tensor, length)),
                          headBytes(tensor, end - length));
      }
    }
    held_[row] = std::min(held_[row], length);
  }

  size_t held(size_t row) const noexcept override { return held_[row]; }

  void read(size_t row, size_t length, std::byte* to) override {
    for (size_t i = 0; i < tensors_.size(); ++i) {
      const CacheTensor& tensor = tensors_[i];
      BlockCopy rows = blocks(tensor, to, at(buffers_[i], row * rowBytes(tensor)), length);
      rows.toStride = rows.bytes;
      memory_->toHost(rows);
      to += tensor.kvHeads * rows.bytes;
    }
    memory_->finish();
  }

  void write(size_t row, size_t length, const std::byte* from) override {
    for (size_t i = 0; i < tensors_.size(); ++i) {
      const CacheTensor& tensor = tensors_[i];
      BlockCopy rows = blocks(tensor, at(buffers_[i], row * rowBytes(tensor)), from, length);
      rows.fromStride = rows.bytes;
      memory_->fromHost(rows);
      from += tensor.kvHeads * rows.bytes;
    }
    memory_->finish();
    doubts_[row] = doubts_[row].after(length);
    held_[row] = std::max(held_[row], length);
    written_[row] = std::max(written_[row], length);
  }

  size_t bytesReserved() const noexcept override { return rows_ * capacity_ * bytesPerToken_; }

 private:
  // Zeros the values in doubt beyond `length`.
  void clearDoubts(size_t row, size_t length) {
    const Doubt beyond = doubts_[row].after(length);
    if (beyond.isEmpty()) return;
    for (size_t i = 0; i < tensors_.size(); ++i) {
      const CacheTensor& tensor = tensors_[i];
      memory_->clear(at(buffers_[i], row * rowBytes(tensor) + headBytes(tensor, beyond.from)),
                     headBytes(tensor, capacity_), headBytes(tensor, beyond.to - beyond.from),
                     tensor.kvHeads);
    }
    memory_->finish();
    doubts_[row] = doubts_[row].before(length);
  }

  size_t rowBytes(const CacheTensor& tensor) const { return tensor.kvHeads * headBytes(tensor, capacity_); }

  // Describes the copy of each head's first `length` tokens from one row to another.
  BlockCopy blocks(const CacheTensor& tensor, void* to, const void* from, size_t length) const {
    const size_t stride = headBytes(tensor, capacity_);
    return {.to = to,
            .toStride = stride,
            .from = from,
            .fromStride = stride,
            .bytes = headBytes(tensor, length),
            .count = tensor.kvHeads};
  }

  const size_t capacity_;
  std::vector<std::shared_ptr<void>> buffers_;  // by tensor
  std::vector<size_t> held_;                    // by row
  std::vector<size_t> written_;                 // by row: everything after it is zero
  std::shared_ptr<void> spare_;  // holds one row during an exchange; as large as a row of the largest tensor
};

class CopyingCache final : public KvCache {
 public:
  CopyingCache(std::vector<CacheTensor> tensors, size_t rows, std::shared_ptr<TensorMemory> memory)
      : KvCache(std::move(tensors), rows, std::move(memory)), pasts_(rows) {
    for (size_t row = 0; row < rows_; ++row) truncate(row, 0);
  }

  void bind(size_t first, std::span<const size_t> pasts, size_t fresh, std::span<Tensor> inputs,
            std::span<Tensor> outputs) override {
    doubts_[first] = doubts_[first].before(pasts[0]).with({pasts[0], pasts[0] + fresh});
    if (pasts_[first].length != pasts[0]) pasts_[first] = shortened(pasts_[first], pasts[0]);
    for (size_t i = 0; i < tensors_.size(); ++i) {
      inputs[tensors_[i].input] = pasts_[first].tensors[i];
      outputs[i] = {};
      outputs[i].location = memory_->location();
      outputs[i].device = memory_->device();
    }
  }

  void commit(size_t row, size_t length, std::span<Tensor> outputs) override {
    pasts_[row].length = length;
    for (size_t i = 0; i < tensors_.size(); ++i) pasts_[row].tensors[i] = std::move(outputs[i]);
  }

  void copy(size_t from, size_t to, size_t) override {
    Past copied = pasts_[from];
    pasts_[to] = std::move(copied);
    doubts_[to] = doubts_[from];
  }
  void exchange(size_t a, size_t, size_t b, size_t) override {
    std::swap(pasts_[a], pasts_[b]);
    std::swap(doubts_[a], doubts_[b]);
  }
  void truncate(size_t row, size_t length) override {
    if (pasts_[row].tensors.empty() || pasts_[row].length > length) {
      pasts_[row] = shortened(pasts_[row], length);
    }
  }
  size_t held(size_t row) const noexcept override { return pasts_[row].length; }

  void read(size_t row, size_t length, std::byte* to) override {
    for (size_t i = 0; i < tensors_.size(); ++i) {
      const CacheTensor& tensor = tensors_[i];
      const size_t bytes = headBytes(tensor, length);
      memory_->toHost({.to = to,
                       .toStride = bytes,
                       .from = pasts_[row].tensors[i].data.get(),
                       .fromStride = headBytes(tensor, pasts_[row].length),
                       .bytes = bytes,
                       .count = tensor.kvHeads});
      to += tensor.kvHeads * bytes;
    }
    memory_->finish();
  }

  void write(size_t row, size_t length, const std::byte* from) override {
    Past past = empty(length);
    for (size_t i = 0; i < tensors_.size(); ++i) {
      const size_t bytes = past.tensors[i].byteLength;
      memory_->fromHost({.to = past.tensors[i].data.get(),
                         .toStride = bytes,
                         .from = from,
                         .fromStride = bytes,
                         .bytes = bytes,
                         .count = 1});
      from += bytes;
    }
    memory_->finish();
    pasts_[row] = std::move(past);
    doubts_[row] = {};
  }

  size_t bytesReserved() const noexcept override { return bytesUsed(); }

 private:
  struct Past {
    size_t length = 0;
    std::vector<Tensor> tensors;
  };

  Past empty(size_t length) const {
    Past past;
    past.length = length;
    for (const CacheTensor& tensor : tensors_) {
      past.tensors.push_back(
          make(tensor, 1, length, memory_->reserve(tensor.kvHeads * headBytes(tensor, length))));
    }
    return past;
  }

  // Copies a past's first `length` tokens into new tensors.
  Past shortened(const Past& past, size_t length) const {
    Past result = empty(length);
    if (length == 0) return result;
    for (size_t i = 0; i < tensors_.size(); ++i) {
      const size_t bytes = headBytes(tensors_[i], length);
      memory_->copy({.to = result.tensors[i].data.get(),
                     .toStride = bytes,
                     .from = past.tensors[i].data.get(),
                     .fromStride = headBytes(tensors_[i], past.length),
                     .bytes = bytes,
                     .count = tensors_[i].kvHeads});
    }
    memory_->finish();
    return result;
  }

  std::vector<Past> pasts_;  // by row
};

}  // namespace

std::unique_ptr<KvCache> inPlaceCache(std::vector<CacheTensor> tensors, size_t rows, size_t capacity,
                                      std::shared_ptr<TensorMemory> memory) {
  return std::make_unique<InPlaceCache>(std::move(tensors), rows, capacity, std::move(memory));
}

std::unique_ptr<KvCache> copyingCache(std::vector<CacheTensor> tensors, size_t rows,
                                      std::shared_ptr<TensorMemory> memory) {
  return std::make_unique<CopyingCache>(std::move(tensors), rows, std::move(memory));
}

}  // namespace node_tensorrt
