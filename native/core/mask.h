// Sparse masks: one bit per element of a weight.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "core/tensor.h"

namespace node_tensorrt {

// At most `keep` of every `of` neighbouring elements along an axis are kept: 2:4 is {2, 4}.
struct Pattern {
  size_t keep;
  size_t of;
};

struct PatternCheck {
  size_t groups = 0;
  size_t violations = 0;               // groups with too many kept elements
  std::optional<size_t> firstElement;  // row-major index of the first element of the first such group
};

// The dimensions of a tensor around one axis: [outer, size, inner].
struct AxisView {
  size_t outer;
  size_t size;
  size_t inner;
};
AxisView viewAlong(const Shape& dims, size_t axis);

// Bit i of the mask belongs to element i, row-major. A set bit keeps the element, and a cleared one makes it
// zero. Element i is bit i % 64 of word i / 64. Bits after the last element are zero.
class Mask {
 public:
  // Keeps nothing.
  explicit Mask(Shape dims);

  // Takes the bits from bytes: element i is bit i % 8 of byte i / 8. Throws Error(ERR_INVALID_ARG_VALUE) if
  // there aren't as many bytes as the dimensions need, or if a bit after the last element is set.
  Mask(Shape dims, std::span<const std::byte> bits);

  const Shape& dims() const noexcept { return dims_; }
  size_t size() const noexcept { return size_; }
  size_t kept() const noexcept;
  std::span<const uint64_t> words() const noexcept { return words_; }
  std::span<const std::byte> bytes() const noexcept;
  bool test(size_t i) const noexcept { return ((words_[i / 64] >> (i % 64)) & 1) != 0; }

  // Sets the bits of up to 64 elements from element `from`. Threads may call this at the same time.
  void set(size_t from, uint64_t bits, size_t count) noexcept;
  // Keeps `count` elements from element `from`. Threads may call this at the same time.
  void setRange(size_t from, size_t count) noexcept;

  Mask operator&(const Mask& other) const;
  Mask operator|(const Mask& other) const;
  Mask operator~() const;
  bool operator==(const Mask& other) const noexcept;

 private:
  Shape dims_;
  size_t size_;
  std::vector<uint64_t> words_;
};

// Checks a mask against a pattern along an axis whose size is a multiple of `pattern.of`.
PatternCheck checkPattern(const Mask& mask, Pattern pattern, size_t axis);

// Copies the elements from `from` on to `into`, and writes zeros (positive ones) where the mask drops an
// element. `into` may be the same memory. `from` is a multiple of 64. `elementBytes` is 1, 2, 4 or 8.
void applyMask(const Mask& mask, size_t from, std::span<const std::byte> elements, std::byte* into,
               size_t elementBytes);

// applyMask() of a whole tensor, on several threads.
void applyWholeMask(const Mask& mask, std::span<const std::byte> elements, std::byte* into,
                    size_t elementBytes);

// Makes a mask that keeps the elements that aren't zero. A negative zero is zero, and a NaN isn't.
Mask nonZero(Shape dims, std::span<const std::byte> elements, DataType type);

// Makes a mask that keeps whole slices: those at the positions along an axis whose flag isn't zero.
Mask keepSlices(Shape dims, size_t axis, std::span<const uint8_t> kept);

// Flags the positions along an axis at which the mask keeps any element.
std::vector<uint8_t> keptSlices(const Mask& mask, size_t axis);

// Copies the slices at some positions along an axis, in that order.
void takeSlices(std::span<const std::byte> elements, const Shape& dims, size_t axis,
                std::span<const uint32_t> positions, size_t elementBytes, std::byte* into);

}  // namespace node_tensorrt
