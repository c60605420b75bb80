// SHA-256 (FIPS 180-4).
#pragma once

#include <array>
#include <cstddef>
#include <memory>
#include <span>

namespace node_tensorrt {

// Computes a hash piece by piece. One thread at a time may use it.
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  void update(std::span<const std::byte> bytes);
  // Returns the hash of all bytes passed to update(). Call once.
  std::array<std::byte, 32> digest();

 private:
  class Computation;
  class OpenSsl;
  class Portable;
  std::unique_ptr<Computation> computation_;
};

}  // namespace node_tensorrt
