#include "core/sha256.h"

#include <dlfcn.h>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>
#include <new>

namespace node_tensorrt {

class Sha256::Computation {
 public:
  virtual ~Computation() = default;
  virtual void update(std::span<const std::byte> bytes) = 0;
  virtual std::array<std::byte, 32> digest() = 0;
};

// Node contains OpenSSL, which uses the processor's SHA instructions, and exports it to addons
// (nodejs.org/api/addons.html, "Linking to libraries included with Node.js"). Other hosts, such as Electron,
// don't always export it.
class Sha256::OpenSsl final : public Computation {
 public:
  struct Functions {
    void* (*newContext)() = nullptr;
    void (*freeContext)(void*) = nullptr;
    const void* (*sha256)() = nullptr;
    int (*begin)(void*, const void*, void*) = nullptr;
    int (*update)(void*, const void*, size_t) = nullptr;
    int (*finish)(void*, unsigned char*, unsigned*) = nullptr;

    // Finds the functions in this process. Returns null if it doesn't export them.
    static const Functions* find() {
      static const Functions found = [] {
        Functions functions;
        functions.set(functions.newContext, "EVP_MD_CTX_new");
        functions.set(functions.freeContext, "EVP_MD_CTX_free");
        functions.set(functions.sha256, "EVP_sha256");
        functions.set(functions.begin, "EVP_DigestInit_ex");
        functions.set(functions.update, "EVP_DigestUpdate");
        functions.set(functions.finish, "EVP_DigestFinal_ex");
        return functions;
      }();
      const bool isWhole = found.newContext != nullptr && found.freeContext != nullptr &&
                           found.sha256 != nullptr && found.begin != nullptr && found.update != nullptr &&
                           found.finish != nullptr;
      return isWhole ? &found : nullptr;
    }

   private:
    template <class Function>
    void set(Function& function, const char* name) {
      function = reinterpret_cast<Function>(::dlsym(RTLD_DEFAULT, name));
    }
  };

  // Returns null if OpenSSL isn't available in this process.
  static std::unique_ptr<Computation> create() {
    const Functions* functions = Functions::find();
    if (functions == nullptr) return nullptr;
    std::unique_ptr<OpenSsl> created(new OpenSsl(*functions));
    if (created->context_ == nullptr) throw std::bad_alloc();
    if (functions->begin(created->context_, functions->sha256(), nullptr) != 1) return nullptr;
    return created;
  }
  ~OpenSsl() override { functions_.freeContext(context_); }

  void update(std::span<const std::byte> bytes) override {
    functions_.update(context_, bytes.data(), bytes.size());
  }
  std::array<std::byte, 32> digest() override {
    std::array<std::byte, 32> result = {};
    functions_.finish(context_, reinterpret_cast<unsigned char*>(result.data()), nullptr);
    return result;
  }

 private:
  explicit OpenSsl(const Functions& functions) : functions_(functions), context_(functions.newContext()) {}

  const Functions& functions_;
  void* const context_;
};

class Sha256::Portable final : public Computation {
 public:
  void update(std::span<const std::byte> bytes) override {
    length_ += bytes.size();
    if (buffered_ > 0) {
      const size_t taken = std::min(bytes.size(), kBlockBytes - buffered_);
      std::copy_n(bytes.begin(), taken, buffer_.begin() + static_cast<ptrdiff_t>(buffered_));
      buffered_ += taken;
      bytes = bytes.subspan(taken);
      if (buffered_ < kBlockBytes) return;
      compress(buffer_.data());
    }
    for (; bytes.size() >= kBlockBytes; bytes = bytes.subspan(kBlockBytes)) compress(bytes.data());
    std::copy(bytes.begin(), bytes.end(), buffer_.begin());
    buffered_ = bytes.size();
  }

  // Pads the message to whole blocks: one set bit, zeros, and the length in bits.
  std::array<std::byte, 32> digest() override {
    const uint64_t bits = length_ * 8;
    std::array<std::byte, kBlockBytes + sizeof bits> padding = {std::byte{0x80}};
    const size_t end = (buffered_ < kBlockBytes - sizeof bits ? kBlockBytes : 2 * kBlockBytes) - buffered_;
    for (size_t i = 0; i < sizeof bits; ++i) padding[end - 1 - i] = static_cast<std::byte>(bits >> (8 * i));
    update(std::span(padding).first(end));
    std::array<std::byte, 32> result;
    for (size_t i = 0; i < result.size(); ++i) {
      result[i] = static_cast<std::byte>(state_[i / 4] >> (24 - 8 * (i % 4)));
    }
    return result;
  }

 private:
  static constexpr size_t kBlockBytes = 64;

  void compress(const std::byte* block) {
    // The first 32 bits of the fractional parts of the cube roots of the first 64 primes (FIPS 180-4, 4.2.2).
    static constexpr std::array<uint32_t, 64> kConstants = {
        0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
        0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
        0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
        0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
        0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
        0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
        0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
        0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};
    std::array<uint32_t, 64> words;
    for (size_t i = 0; i < 16; ++i) {
      words[i] = 0;
      for (size_t byte = 0; byte < 4; ++byte) {
        words[i] = words[i] << 8 | std::to_integer<uint32_t>(block[4 * i + byte]);
      }
    }
    for (size_t i = 16; i < 64; ++i) {
      const uint32_t s0 = std::rotr(words[i - 15], 7) ^ std::rotr(words[i - 15], 18) ^ words[i - 15] >> 3;
      const uint32_t s1 = std::rotr(words[i - 2], 17) ^ std::rotr(words[i - 2], 19) ^ words[i - 2] >> 10;
      words[i] = words[i - 16] + s0 + words[i - 7] + s1;
    }
    auto [a, b, c, d, e, f, g, h] = state_;
    for (size_t i = 0; i < 64; ++i) {
      const uint32_t choice = (e & f) ^ (~e & g);
      const uint32_t majority = (a & b) ^ (a & c) ^ (b & c);
      const uint32_t first =
          h + (std::rotr(e, 6) ^ std::rotr(e, 11) ^ std::rotr(e, 25)) + choice + kConstants[i] + words[i];
      const uint32_t second = (std::rotr(a, 2) ^ std::rotr(a, 13) ^ std::rotr(a, 22)) + majority;
      h = g;
      g = f;
      f = e;
      e = d + first;
      d = c;
      c = b;
      b = a;
      a = first + second;
    }
    const std::array<uint32_t, 8> sums = {a, b, c, d, e, f, g, h};
    for (size_t i = 0; i < state_.size(); ++i) state_[i] += sums[i];
  }

  // The first 32 bits of the fractional parts of the square roots of the first 8 primes (5.3.3).
  std::array<uint32_t, 8> state_ = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                    0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  std::array<std::byte, kBlockBytes> buffer_ = {};
  size_t buffered_ = 0;
  uint64_t length_ = 0;
};

Sha256::Sha256() : computation_(OpenSsl::create()) {
  if (!computation_) computation_ = std::make_unique<Portable>();
}

Sha256::~Sha256() = default;

void Sha256::update(std::span<const std::byte> bytes) {
  computation_->update(bytes);
}

std::array<std::byte, 32> Sha256::digest() {
  return computation_->digest();
}

}  // namespace node_tensorrt
