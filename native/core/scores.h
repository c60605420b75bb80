// The scores by which a mask chooses elements: the largest are kept.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/byte_source.h"
#include "core/data_type.h"
#include "core/mask.h"

namespace node_tensorrt {

// Numbers of one of the types float32, float16 and bfloat16, of which only the magnitudes matter. Every
// method may be called from any thread.
class Magnitudes {
 public:
  // Errors call the numbers `name`. Throws Error(ERR_INVALID_ARG_VALUE) for other types.
  Magnitudes(std::string name, std::shared_ptr<const ByteSource> bytes, DataType type);

  size_t size() const noexcept { return size_; }
  bool inMemory() const noexcept { return memory_ != nullptr; }

  // Writes the magnitudes of the elements from `from` on, as the bits of float32 numbers: they are in the
  // same order as the magnitudes. Throws Error(ERR_INVALID_ARG_VALUE) if one isn't finite, and what reading
  // the bytes throws.
  void read(size_t from, std::span<uint32_t> bits) const;

 private:
  std::string name_;
  std::shared_ptr<const ByteSource> bytes_;
  std::shared_ptr<const std::byte> memory_;  // null if the bytes have to be read
  DataType type_;
  size_t size_;
};

// Scores of elements, as keys: numbers below kMostKey in the order of the scores.
class Scores {
 public:
  static constexpr uint32_t kMostKey = 0x7fff'ffff;

  virtual ~Scores() = default;

  size_t size() const noexcept { return size_; }

  // How many keys to read at once. Small where reading is cheap, so that the keys stay in the processor's
  // cache.
  virtual size_t chunk() const noexcept = 0;

  // Writes the keys of the elements from `from` on. Any thread.
  virtual void read(size_t from, std::span<uint32_t> keys) const = 0;

 protected:
  explicit Scores(size_t size) : size_(size) {}
  static size_t chunkFor(bool inMemory) noexcept { return inMemory ? size_t{1} << 13 : size_t{1} << 18; }

 private:
  const size_t size_;
};

// |w|. The keys are the bits of float32 numbers.
class MagnitudeScores final : public Scores {
 public:
  explicit MagnitudeScores(Magnitudes weights) : Scores(weights.size()), weights_(std::move(weights)) {}
  size_t chunk() const noexcept override { return chunkFor(weights_.inMemory()); }
  void read(size_t from, std::span<uint32_t> keys) const override { weights_.read(from, keys); }

 private:
  const Magnitudes weights_;
};

// |w · g|, in float32. The keys are the bits of float32 numbers.
class ProductScores final : public Scores {
 public:
  ProductScores(Magnitudes weights, Magnitudes gradients)
      : Scores(weights.size()), weights_(std::move(weights)), gradients_(std::move(gradients)) {}
  size_t chunk() const noexcept override { return chunkFor(weights_.inMemory() && gradients_.inMemory()); }
  void read(size_t from, std::span<uint32_t> keys) const override;

 private:
  const Magnitudes weights_;
  const Magnitudes gradients_;
};

// |w| · f, in float32, with one factor for each position along an axis. The keys are the bits of float32
// numbers.
class ScaledScores final : public Scores {
 public:
  // There are as many factors as positions along the axis. They are finite and not negative.
  ScaledScores(Magnitudes weights, std::vector<float> factors, AxisView view)
      : Scores(weights.size()), weights_(std::move(weights)), factors_(std::move(factors)), view_(view) {}
  size_t chunk() const noexcept override { return chunkFor(weights_.inMemory()); }
  void read(size_t from, std::span<uint32_t> keys) const override;

 private:
  const Magnitudes weights_;
  const std::vector<float> factors_;
  const AxisView view_;
};

// Random numbers. The same seed gives the same ones, however they are read.
class RandomScores final : public Scores {
 public:
  RandomScores(size_t size, uint64_t seed) : Scores(size), seed_(seed) {}
  size_t chunk() const noexcept override { return chunkFor(true); }
  void read(size_t from, std::span<uint32_t> keys) const override;

 private:
  const uint64_t seed_;
};

// Other scores, of the elements that a mask keeps. All others have the lowest key, below any of theirs.
class ScoresAmong final : public Scores {
 public:
  // Both must outlive this object.
  ScoresAmong(const Scores& scores, const Mask& mask) : Scores(scores.size()), scores_(scores), mask_(mask) {}
  size_t chunk() const noexcept override { return scores_.chunk(); }
  void read(size_t from, std::span<uint32_t> keys) const override;

 private:
  const Scores& scores_;
  const Mask& mask_;
};

}  // namespace node_tensorrt
