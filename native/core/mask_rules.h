// The rules by which masks are made. Scores that tie go to the element that comes first. Every function works
// on several threads and throws Cancelled once `stop` was requested.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <stop_token>
#include <vector>

#include "core/mask.h"
#include "core/scores.h"

namespace node_tensorrt {

// A tensor whose elements compete with those of others.
struct ScoredTensor {
  const Scores* scores;
  Shape dims;
};

// Keeps the `keep` elements with the largest scores of all tensors. Throws Error(ERR_INVALID_ARG_VALUE) if
// the scores change while they are read, which takes more than one pass.
std::vector<Mask> keepLargest(std::span<const ScoredTensor> tensors, size_t keep,
                              const std::stop_token& stop);

// Keeps the `pattern.keep` elements with the largest scores of every `pattern.of` neighbours along an axis,
// whose size is a multiple of that.
Mask keepInGroups(const ScoredTensor& tensor, Pattern pattern, size_t axis, const std::stop_token& stop);

// The norm that scores a block of elements: the sum of their scores, or of their squares.
enum class Norm : uint8_t { kL1 = 1, kL2 = 2 };

// Keeps the `keep` blocks with the largest norms. Each dimension is a multiple of the block's. Scores are the
// bits of float32 numbers.
Mask keepBlocks(const ScoredTensor& tensor, const Shape& block, size_t keep, Norm norm,
                const std::stop_token& stop);

// Sums the scores, or their squares, of all elements at each position along an axis. Scores are the bits of
// float32 numbers.
std::vector<double> sliceSums(const ScoredTensor& tensor, size_t axis, Norm norm,
                              const std::stop_token& stop);

// Keeps as many elements as before, but others: drops the `count` kept elements with the smallest `weights`,
// then keeps the `count` elements with the largest `growth` among all that are dropped now (RigL: Evci et
// al., Rigging the Lottery, 2020; with random growth SET: Mocanu et al., 2018). An element that was just
// dropped may come back.
Mask updateMask(const Mask& mask, const Scores& weights, const Scores& growth, size_t count,
                const std::stop_token& stop);

}  // namespace node_tensorrt
