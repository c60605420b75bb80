// The loops over the elements of large weights. They use AVX2 where the processor has it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace node_tensorrt {

// Writes the magnitudes of little-endian float32 elements, which need not be aligned, as bits. Returns false
// if one isn't finite.
bool float32Magnitudes(const std::byte* elements, std::span<uint32_t> bits);

// As above, for float16 elements. The bits are those of float32 numbers.
bool float16Magnitudes(const std::byte* elements, std::span<uint32_t> bits);

// As above, for bfloat16 elements. The bits are those of float32 numbers.
bool bfloat16Magnitudes(const std::byte* elements, std::span<uint32_t> bits);

// Compares keys below 2³¹ with a limit. Bit i % 64 of word i / 64 tells if key i is above it; the bits behind
// the last key are zero.
void keysAbove(std::span<const uint32_t> keys, uint32_t limit, uint64_t* words);

// Keeps the `keep` largest of every four neighbours; of equal ones the first. There are a multiple of four.
// Words as above.
void keepOfFours(std::span<const uint32_t> keys, size_t keep, uint64_t* words);

// Keeps the `keep` largest of a group of up to 64 keys; of equal ones the first. Bit i of the result is key
// i.
uint64_t keepOfGroup(const uint32_t* keys, size_t of, size_t keep);

// A word whose lowest `count` bits are set.
inline uint64_t lowBits(size_t count) {
  return count >= 64 ? ~uint64_t{0} : (uint64_t{1} << count) - 1;
}

// Counts the bits that are set.
size_t countBits(std::span<const uint64_t> words);

}  // namespace node_tensorrt
