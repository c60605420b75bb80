#include "core/key_kernels.h"

#ifdef __x86_64__
#include <immintrin.h>
#endif

#include <algorithm>
#include <bit>
#include <cstring>

namespace node_tensorrt {
namespace {

constexpr uint32_t kInfinity = 0x7f80'0000;
constexpr size_t kWordBits = 64;

// Loads an element that need not be aligned.
template <class Element>
Element load(const std::byte* elements, size_t i) {
  Element element;
  std::memcpy(&element, elements + i * sizeof(Element), sizeof(Element));
  return element;
}

struct Float32 {
  using Stored = uint32_t;
  static uint32_t magnitude(uint32_t bits) { return bits & 0x7fff'ffff; }
};

// A float16 and a float32 have their bits in the same places, but for a shift. The exponents differ by 112,
// which the multiplication adds, to subnormal numbers too.
struct Float16 {
  using Stored = uint16_t;
  static uint32_t magnitude(uint32_t bits) {
    const uint32_t half = bits & 0x7fff;
    const auto scaled = std::bit_cast<uint32_t>(std::bit_cast<float>(half << 13) * 0x1p112F);
    return half >= 0x7c00 ? kInfinity : scaled;
  }
};

struct Bfloat16 {
  using Stored = uint16_t;
  static uint32_t magnitude(uint32_t bits) { return (bits & 0x7fff) << 16; }
};

// The compiler makes vector instructions of this, those that the calling function may use.
template <class Type>
[[gnu::always_inline]] inline bool magnitudes(const std::byte* elements, std::span<uint32_t> bits) {
  // Adding this reaches the highest bit for infinity and what is above it, the NaNs.
  constexpr uint32_t kToHighest = 0x8000'0000 - kInfinity;
  uint32_t any = 0;
  for (size_t i = 0; i < bits.size(); ++i) {
    const uint32_t magnitude = Type::magnitude(load<typename Type::Stored>(elements, i));
    bits[i] = magnitude;
    any |= magnitude + kToHighest;
  }
  return any < 0x8000'0000;
}

[[gnu::always_inline]] inline uint64_t above(const uint32_t* keys, size_t count, uint32_t limit) {
  uint64_t word = 0;
  for (size_t i = 0; i < count; ++i) word |= uint64_t{keys[i] > limit} << i;
  return word;
}

uint64_t keepOf(const uint32_t* keys, size_t count, size_t keep) {
  uint64_t kept = 0;
  for (size_t first = 0; first < count; first += 4) kept |= keepOfGroup(keys + first, 4, keep) << first;
  return kept;
}

// The compiler makes the processor's own instruction of this, if the calling function may use it.
[[gnu::always_inline]] inline size_t count(std::span<const uint64_t> words) {
  size_t bits = 0;
  for (const uint64_t word : words) bits += static_cast<size_t>(std::popcount(word));
  return bits;
}

#ifdef __x86_64__

bool hasAvx2() {
  static const bool has = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("popcnt");
  return has;
}

template <class Type>
[[gnu::target("avx2")]] bool magnitudesAvx2(const std::byte* elements, std::span<uint32_t> bits) {
  return magnitudes<Type>(elements, bits);
}

[[gnu::target("avx2")]] inline uint64_t signs(__m256i lanes) {
  return static_cast<uint32_t>(_mm256_movemask_ps(_mm256_castsi256_ps(lanes)));
}

[[gnu::target("avx2")]] inline __m256i eight(const uint32_t* keys) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(keys));
}

[[gnu::target("avx2")]] uint64_t aboveAvx2(const uint32_t* keys, __m256i limits) {
  uint64_t word = 0;
  for (size_t i = 0; i < kWordBits; i += 8) {
    word |= signs(_mm256_cmpgt_epi32(eight(keys + i), limits)) << i;
  }
  return word;
}

[[gnu::target("avx2")]] void keysAboveAvx2(std::span<const uint32_t> keys, uint32_t limit, uint64_t* words) {
  const __m256i limits = _mm256_set1_epi32(static_cast<int>(limit));
  const size_t whole = keys.size() / kWordBits;
  for (size_t w = 0; w < whole; ++w) words[w] = aboveAvx2(&keys[w * kWordBits], limits);
  if (keys.size() % kWordBits != 0) {
    words[whole] = above(&keys[whole * kWordBits], keys.size() % kWordBits, limit);
  }
}

[[gnu::target("avx2,popcnt")]] size_t countBitsAvx2(std::span<const uint64_t> words) {
  return count(words);
}

// Lanes whose neighbour at a distance of 1, 2 or 3 comes before them, since positions wrap around: there an
// equal key counts as larger.
[[gnu::target("avx2")]] void keepOfFoursAvx2(std::span<const uint32_t> keys, size_t keep, uint64_t* words) {
  const __m256i first1 = _mm256_set_epi32(-1, 0, 0, 0, -1, 0, 0, 0);
  const __m256i first2 = _mm256_set_epi32(-1, -1, 0, 0, -1, -1, 0, 0);
  const __m256i first3 = _mm256_set_epi32(-1, -1, -1, 0, -1, -1, -1, 0);
  const __m256i limit = _mm256_set1_epi32(-static_cast<int>(keep));
  const size_t whole = keys.size() / kWordBits;
  for (size_t w = 0; w < whole; ++w) {
    uint64_t word = 0;
    for (size_t i = 0; i < kWordBits; i += 8) {
      const __m256i own = eight(&keys[w * kWordBits + i]);
      const __m256i other1 = _mm256_shuffle_epi32(own, _MM_SHUFFLE(0, 3, 2, 1));
      const __m256i other2 = _mm256_shuffle_epi32(own, _MM_SHUFFLE(1, 0, 3, 2));
      const __m256i other3 = _mm256_shuffle_epi32(own, _MM_SHUFFLE(2, 1, 0, 3));
      // A lane that is true is -1.
      __m256i larger = _mm256_or_si256(_mm256_cmpgt_epi32(other1, own),
                                       _mm256_and_si256(_mm256_cmpeq_epi32(other1, own), first1));
      larger = _mm256_add_epi32(larger,
                                _mm256_or_si256(_mm256_cmpgt_epi32(other2, own),
                                                _mm256_and_si256(_mm256_cmpeq_epi32(other2, own), first2)));
      larger = _mm256_add_epi32(larger,
                                _mm256_or_si256(_mm256_cmpgt_epi32(other3, own),
                                                _mm256_and_si256(_mm256_cmpeq_epi32(other3, own), first3)));
      word |= signs(_mm256_cmpgt_epi32(larger, limit)) << i;
    }
    words[w] = word;
  }
  if (keys.size() % kWordBits != 0) {
    words[whole] = keepOf(&keys[whole * kWordBits], keys.size() % kWordBits, keep);
  }
}

#endif

template <class Type>
bool anyMagnitudes(const std::byte* elements, std::span<uint32_t> bits) {
#ifdef __x86_64__
  if (hasAvx2()) return magnitudesAvx2<Type>(elements, bits);
#endif
  return magnitudes<Type>(elements, bits);
}

}  // namespace

bool float32Magnitudes(const std::byte* elements, std::span<uint32_t> bits) {
  return anyMagnitudes<Float32>(elements, bits);
}

bool float16Magnitudes(const std::byte* elements, std::span<uint32_t> bits) {
  return anyMagnitudes<Float16>(elements, bits);
}

bool bfloat16Magnitudes(const std::byte* elements, std::span<uint32_t> bits) {
  return anyMagnitudes<Bfloat16>(elements, bits);
}

void keysAbove(std::span<const uint32_t> keys, uint32_t limit, uint64_t* words) {
#ifdef __x86_64__
  if (hasAvx2()) return keysAboveAvx2(keys, limit, words);
#endif
  for (size_t i = 0; i < keys.size(); i += kWordBits) {
    words[i / kWordBits] = above(&keys[i], std::min(kWordBits, keys.size() - i), limit);
  }
}

void keepOfFours(std::span<const uint32_t> keys, size_t keep, uint64_t* words) {
#ifdef __x86_64__
  if (hasAvx2()) return keepOfFoursAvx2(keys, keep, words);
#endif
  for (size_t i = 0; i < keys.size(); i += kWordBits) {
    words[i / kWordBits] = keepOf(&keys[i], std::min(kWordBits, keys.size() - i), keep);
  }
}

uint64_t keepOfGroup(const uint32_t* keys, size_t of, size_t keep) {
  uint64_t kept = 0;
  for (size_t i = 0; i < of; ++i) {
    size_t larger = 0;
    for (size_t j = 0; j < i; ++j) larger += keys[j] >= keys[i] ? 1 : 0;
    for (size_t j = i + 1; j < of; ++j) larger += keys[j] > keys[i] ? 1 : 0;
    kept |= uint64_t{larger < keep} << i;
  }
  return kept;
}

size_t countBits(std::span<const uint64_t> words) {
#ifdef __x86_64__
  if (hasAvx2()) return countBitsAvx2(words);
#endif
  return count(words);
}

}  // namespace node_tensorrt
