#include "core/mask.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cstring>
#include <string>
#include <utility>

#include "core/error.h"
#include "core/key_kernels.h"
#include "core/parallel.h"

namespace node_tensorrt {
namespace {

static_assert(std::endian::native == std::endian::little, "a mask's bytes are those of its words");

constexpr size_t kWordBits = 64;

// Elements that one thread takes at a time. A multiple of 64.
constexpr size_t kSliceElements = size_t{1} << 18;

size_t wordsOf(size_t bits) {
  return (bits + kWordBits - 1) / kWordBits;
}

// Calls `part` with each range [from, to) of `size` elements, on several threads.
template <class Part>
void inSlices(size_t size, const Part& part) {
  parallelFor((size + kSliceElements - 1) / kSliceElements,
              [&](size_t i) { part(i * kSliceElements, std::min((i + 1) * kSliceElements, size)); });
}

// For each four bits, the mask of four elements of 32 bits.
alignas(16) constexpr auto kFourLanes = [] {
  std::array<std::array<uint32_t, 4>, 16> table{};
  for (size_t bits = 0; bits < 16; ++bits) {
    for (size_t lane = 0; lane < 4; ++lane) table[bits][lane] = (bits >> lane) & 1 ? ~uint32_t{0} : 0;
  }
  return table;
}();

template <class Element>
void applyWord(uint64_t word, const Element* from, Element* into, size_t count) {
  for (size_t i = 0; i < count; ++i) into[i] = (word >> i) & 1 ? from[i] : Element{0};
}

#ifdef __SSE2__
template <>
void applyWord<uint32_t>(uint64_t word, const uint32_t* from, uint32_t* into, size_t count) {
  size_t i = 0;
  for (; i + 4 <= count; i += 4) {
    const __m128i lanes = _mm_load_si128(reinterpret_cast<const __m128i*>(&kFourLanes[(word >> i) & 15]));
    const __m128i elements = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(into + i), _mm_and_si128(lanes, elements));
  }
  for (; i < count; ++i) into[i] = (word >> i) & 1 ? from[i] : 0;
}

// The bits of eight elements of 16 bits, spread over their lanes.
template <>
void applyWord<uint16_t>(uint64_t word, const uint16_t* from, uint16_t* into, size_t count) {
  const __m128i each = _mm_set_epi16(128, 64, 32, 16, 8, 4, 2, 1);
  size_t i = 0;
  for (; i + 8 <= count; i += 8) {
    const __m128i bits = _mm_set1_epi16(static_cast<short>((word >> i) & 255));
    const __m128i lanes = _mm_cmpeq_epi16(_mm_and_si128(bits, each), each);
    const __m128i elements = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(into + i), _mm_and_si128(lanes, elements));
  }
  for (; i < count; ++i) into[i] = (word >> i) & 1 ? from[i] : 0;
}
#endif

template <class Element>
void applyTyped(std::span<const uint64_t> words, std::span<const std::byte> elements, std::byte* into) {
  const auto* source = reinterpret_cast<const Element*>(elements.data());
  auto* target = reinterpret_cast<Element*>(into);
  const size_t count = elements.size() / sizeof(Element);
  for (size_t i = 0; i < count; i += kWordBits) {
    applyWord<Element>(words[i / kWordBits], source + i, target + i, std::min(kWordBits, count - i));
  }
}

template <class Element>
void keepNonZero(Mask& mask, const std::byte* elements, Element magnitude) {
  inSlices(mask.size(), [&](size_t from, size_t to) {
    for (size_t i = from; i < to; i += kWordBits) {
      const size_t count = std::min(kWordBits, to - i);
      uint64_t word = 0;
      for (size_t bit = 0; bit < count; ++bit) {
        Element element;
        std::memcpy(&element, elements + (i + bit) * sizeof(Element), sizeof(Element));
        word |= uint64_t{(element & magnitude) != 0} << bit;
      }
      mask.set(i, word, count);
    }
  });
}

// Counts groups of four with more than `keep` bits, which lie one behind another, and remembers the first.
void checkFours(const Mask& mask, size_t keep, PatternCheck& result) {
  constexpr uint64_t kOnes = 0x1111'1111'1111'1111;
  const std::span<const uint64_t> words = mask.words();
  for (size_t i = 0; i < words.size(); ++i) {
    const uint64_t pairs = words[i] - ((words[i] >> 1) & 0x5555'5555'5555'5555);
    const uint64_t counts = (pairs & 0x3333'3333'3333'3333) + ((pairs >> 2) & 0x3333'3333'3333'3333);
    const uint64_t tooMany = (counts + (7 - keep) * kOnes) & (8 * kOnes);
    if (tooMany == 0) continue;
    if (!result.firstElement) result.firstElement = i * kWordBits + (std::countr_zero(tooMany) & ~3);
    result.violations += static_cast<size_t>(std::popcount(tooMany));
  }
}

}  // namespace

AxisView viewAlong(const Shape& dims, size_t axis) {
  const auto product = [&](size_t from, size_t to) {
    size_t result = 1;
    for (size_t d = from; d < to; ++d) result *= static_cast<size_t>(dims[d]);
    return result;
  };
  return {product(0, axis), static_cast<size_t>(dims[axis]), product(axis + 1, dims.size())};
}

Mask::Mask(Shape dims) : dims_(std::move(dims)), size_(elementCount(dims_)), words_(wordsOf(size_)) {}

Mask::Mask(Shape dims, std::span<const std::byte> bits) : Mask(std::move(dims)) {
  const size_t needed = (size_ + 7) / 8;
  if (bits.size() != needed) {
    throw Error("ERR_INVALID_ARG_VALUE", "bits has " + std::to_string(bits.size()) + " bytes; " +
                                             std::to_string(size_) + " elements need " +
                                             std::to_string(needed) + ".");
  }
  if (needed > 0) std::memcpy(words_.data(), bits.data(), needed);
  if (size_ % kWordBits != 0 && (words_.back() & ~lowBits(size_ % kWordBits)) != 0) {
    throw Error("ERR_INVALID_ARG_VALUE", "bits has a bit set after the last element.");
  }
}

size_t Mask::kept() const noexcept {
  return countBits(words_);
}

std::span<const std::byte> Mask::bytes() const noexcept {
  return std::as_bytes(std::span(words_)).first((size_ + 7) / 8);
}

void Mask::set(size_t from, uint64_t bits, size_t count) noexcept {
  bits &= lowBits(count);
  const size_t word = from / kWordBits;
  const size_t shift = from % kWordBits;
  const auto add = [&](size_t at, uint64_t value) {
    if (value != 0) std::atomic_ref(words_[at]).fetch_or(value, std::memory_order_relaxed);
  };
  add(word, bits << shift);
  if (shift + count > kWordBits) add(word + 1, bits >> (kWordBits - shift));
}

void Mask::setRange(size_t from, size_t count) noexcept {
  const size_t end = from + count;
  while (from < end) {
    const size_t part = std::min(kWordBits - from % kWordBits, end - from);
    set(from, ~uint64_t{0}, part);
    from += part;
  }
}

Mask Mask::operator&(const Mask& other) const {
  Mask result = *this;
  for (size_t i = 0; i < words_.size(); ++i) result.words_[i] &= other.words_[i];
  return result;
}

Mask Mask::operator|(const Mask& other) const {
  Mask result = *this;
  for (size_t i = 0; i < words_.size(); ++i) result.words_[i] |= other.words_[i];
  return result;
}

Mask Mask::operator~() const {
  Mask result = *this;
  for (uint64_t& word : result.words_) word = ~word;
  if (size_ % kWordBits != 0) result.words_.back() &= lowBits(size_ % kWordBits);
  return result;
}

bool Mask::operator==(const Mask& other) const noexcept {
  return dims_ == other.dims_ && words_ == other.words_;
}

PatternCheck checkPattern(const Mask& mask, Pattern pattern, size_t axis) {
  const auto [outer, size, inner] = viewAlong(mask.dims(), axis);
  PatternCheck result;
  result.groups = outer * (size / pattern.of) * inner;
  if (inner == 1 && pattern.of == 4) {
    checkFours(mask, pattern.keep, result);
    return result;
  }
  std::vector<size_t> counts(inner);
  const size_t groupElements = pattern.of * inner;
  for (size_t begin = 0; begin < mask.size(); begin += groupElements) {
    std::fill(counts.begin(), counts.end(), 0);
    for (size_t i = 0; i < groupElements; ++i) counts[i % inner] += mask.test(begin + i) ? 1 : 0;
    for (size_t column = 0; column < inner; ++column) {
      if (counts[column] <= pattern.keep) continue;
      ++result.violations;
      if (!result.firstElement) result.firstElement = begin + column;
    }
  }
  return result;
}

void applyMask(const Mask& mask, size_t from, std::span<const std::byte> elements, std::byte* into,
               size_t elementBytes) {
  const std::span<const uint64_t> words = mask.words().subspan(from / kWordBits);
  switch (elementBytes) {
    case 1:
      return applyTyped<uint8_t>(words, elements, into);
    case 2:
      return applyTyped<uint16_t>(words, elements, into);
    case 4:
      return applyTyped<uint32_t>(words, elements, into);
    default:
      return applyTyped<uint64_t>(words, elements, into);
  }
}

void applyWholeMask(const Mask& mask, std::span<const std::byte> elements, std::byte* into,
                    size_t elementBytes) {
  inSlices(mask.size(), [&](size_t from, size_t to) {
    applyMask(mask, from, elements.subspan(from * elementBytes, (to - from) * elementBytes),
              into + from * elementBytes, elementBytes);
  });
}

Mask nonZero(Shape dims, std::span<const std::byte> elements, DataType type) {
  Mask mask(std::move(dims));
  const bool isFloat = type == DataType::kFloat16 || type == DataType::kBfloat16 ||
                       type == DataType::kFloat32 || type == DataType::kFloat64;
  switch (byteSize(type)) {
    case 1:
      keepNonZero<uint8_t>(mask, elements.data(), 0xff);
      break;
    case 2:
      keepNonZero<uint16_t>(mask, elements.data(), isFloat ? 0x7fff : 0xffff);
      break;
    case 4:
      keepNonZero<uint32_t>(mask, elements.data(), isFloat ? 0x7fff'ffff : 0xffff'ffff);
      break;
    default:
      keepNonZero<uint64_t>(mask, elements.data(), isFloat ? ~uint64_t{0} >> 1 : ~uint64_t{0});
  }
  return mask;
}

Mask keepSlices(Shape dims, size_t axis, std::span<const uint8_t> kept) {
  const auto [outer, size, inner] = viewAlong(dims, axis);
  Mask mask(std::move(dims));
  for (size_t row = 0; row < outer * size; ++row) {
    if (kept[row % size] != 0) mask.setRange(row * inner, inner);
  }
  return mask;
}

std::vector<uint8_t> keptSlices(const Mask& mask, size_t axis) {
  const auto [outer, size, inner] = viewAlong(mask.dims(), axis);
  std::vector<uint8_t> kept(size);
  for (size_t w = 0; w < mask.words().size(); ++w) {
    for (uint64_t bits = mask.words()[w]; bits != 0; bits &= bits - 1) {
      const size_t element = w * kWordBits + static_cast<size_t>(std::countr_zero(bits));
      kept[element / inner % size] = 1;
    }
  }
  return kept;
}

void takeSlices(std::span<const std::byte> elements, const Shape& dims, size_t axis,
                std::span<const uint32_t> positions, size_t elementBytes, std::byte* into) {
  const auto [outer, size, inner] = viewAlong(dims, axis);
  const size_t bytes = inner * elementBytes;
  for (size_t row = 0; row < outer; ++row) {
    for (const uint32_t position : positions) {
      std::memcpy(into, elements.data() + (row * size + position) * bytes, bytes);
      into += bytes;
    }
  }
}

}  // namespace node_tensorrt
