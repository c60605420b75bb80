// SHA-256 (FIPS 180-4).
#pragma once

#include <array>
#include <cstddef>
#include <memory>
#include <span>

namespace node_tensorrt {

class Sha256 {
 public:
  Sha256();
  ~Sha256();
  void update(std::span<const std::byte> bytes);
  // The hash of all that it was updated with. Call once.
  std::array<std::byte, 32> digest();

 private:
  class Computation;
  class OpenSsl;
  class Portable;
  std::unique_ptr<Computation> computation_;
};

}  // namespace node_tensorrt
