#include "core/scores.h"

#include <algorithm>
#include <bit>
#include <stop_token>
#include <utility>

#include "core/error.h"
#include "core/key_kernels.h"

namespace node_tensorrt {
namespace {

constexpr uint32_t kInfinity = 0x7f80'0000;

// SplitMix64 (Steele, Lea and Flood: Fast splittable pseudorandom number generators, 2014), whose n-th number
// can be computed without those before it.
uint64_t splitMix64(uint64_t seed, uint64_t n) {
  uint64_t z = seed + (n + 1) * 0x9e37'79b9'7f4a'7c15;
  z = (z ^ (z >> 30)) * 0xbf58'476d'1ce4'e5b9;
  z = (z ^ (z >> 27)) * 0x94d0'49bb'1331'11eb;
  return z ^ (z >> 31);
}

}  // namespace

Magnitudes::Magnitudes(std::string name, std::shared_ptr<const ByteSource> bytes, DataType type)
    : name_(std::move(name)), bytes_(std::move(bytes)), type_(type) {
  if (type != DataType::kFloat32 && type != DataType::kFloat16 && type != DataType::kBfloat16) {
    throw Error("ERR_INVALID_ARG_VALUE", name_ + " must be float32, float16 or bfloat16.");
  }
  size_ = bytes_->size() / byteSize(type);
  if (bytes_->inMemory()) memory_ = bytes_->whole(std::stop_token());
}

void Magnitudes::read(size_t from, std::span<uint32_t> bits) const {
  const size_t elementBytes = byteSize(type_);
  std::vector<std::byte> buffer;
  const std::byte* elements = memory_ ? memory_.get() + from * elementBytes : nullptr;
  if (elements == nullptr) {
    buffer.resize(bits.size() * elementBytes);
    bytes_->read(from * elementBytes, buffer);
    elements = buffer.data();
  }
  const auto convert = type_ == DataType::kFloat32   ? float32Magnitudes
                       : type_ == DataType::kFloat16 ? float16Magnitudes
                                                     : bfloat16Magnitudes;
  if (convert(elements, bits)) return;
  const auto odd = std::find_if(bits.begin(), bits.end(), [](uint32_t each) { return each >= kInfinity; });
  throw Error("ERR_INVALID_ARG_VALUE", name_ + " has an element that is NaN or infinite: element " +
                                           std::to_string(from + static_cast<size_t>(odd - bits.begin())) +
                                           ".");
}

void ProductScores::read(size_t from, std::span<uint32_t> keys) const {
  std::vector<uint32_t> others(keys.size());
  weights_.read(from, keys);
  gradients_.read(from, others);
  for (size_t i = 0; i < keys.size(); ++i) {
    keys[i] = std::bit_cast<uint32_t>(std::bit_cast<float>(keys[i]) * std::bit_cast<float>(others[i]));
  }
}

void ScaledScores::read(size_t from, std::span<uint32_t> keys) const {
  weights_.read(from, keys);
  size_t position = from / view_.inner % view_.size;
  size_t left = view_.inner - from % view_.inner;
  for (uint32_t& key : keys) {
    key = std::bit_cast<uint32_t>(std::bit_cast<float>(key) * factors_[position]);
    if (--left > 0) continue;
    left = view_.inner;
    if (++position == view_.size) position = 0;
  }
}

void RandomScores::read(size_t from, std::span<uint32_t> keys) const {
  for (size_t i = 0; i < keys.size(); ++i) {
    keys[i] = static_cast<uint32_t>(splitMix64(seed_, from + i) >> 34);
  }
}

void ScoresAmong::read(size_t from, std::span<uint32_t> keys) const {
  scores_.read(from, keys);
  for (uint32_t& key : keys) ++key;
  // Up to the next word of the mask, one by one.
  const size_t head = std::min((64 - from % 64) % 64, keys.size());
  for (size_t i = 0; i < head; ++i) keys[i] = mask_.test(from + i) ? keys[i] : 0;
  const std::span<uint32_t> rest = keys.subspan(head);
  applyMask(mask_, from + head, std::as_bytes(rest), std::as_writable_bytes(rest).data(), sizeof(uint32_t));
}

}  // namespace node_tensorrt
