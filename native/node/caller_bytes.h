// Bytes of a JavaScript typed array that a thread reads while the caller holds it. An ArrayBuffer can't be
// pinned: the caller may transfer it at any time, which frees its memory for the next owner to collect. So
// the JavaScript thread copies each piece that is asked for, in a fraction of a millisecond, and a large
// array neither blocks the event loop nor is in memory twice.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <stop_token>

#include "core/byte_source.h"
#include "node/job.h"
#include "node/napi_setup.h"

namespace node_tensorrt {

class CallerBytes final : public ByteSource {
 public:
  // JavaScript thread, before the job starts. Only the job's threads may read. read() throws
  // Error(ERR_INVALID_ARG_VALUE) if the array was transferred, and Cancelled if the job was cancelled.
  CallerBytes(Job& job, Napi::TypedArray array);

  bool inMemory() const noexcept override { return false; }
  void read(size_t from, std::span<std::byte> into) const override;
  void forEachPiece(const std::stop_token& stop,
                    const std::function<void(std::span<const std::byte>)>& use) const override;
  std::shared_ptr<const std::byte> whole(const std::stop_token& stop) const override;

 private:
  Job& job_;
  const size_t number_;
};

// JavaScript thread. The bytes of a typed array; none if its buffer was transferred. Valid until JavaScript
// code runs.
std::span<std::byte> bytesOfArray(Napi::TypedArray array);

}  // namespace node_tensorrt
