#include "node/caller_bytes.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "core/error.h"
#include "core/host_memory.h"

namespace node_tensorrt {
namespace {

// Copied in about a tenth of a millisecond.
constexpr size_t kPieceBytes = size_t{1} << 20;

}  // namespace

std::span<std::byte> bytesOfArray(Napi::TypedArray array) {
  napi_typedarray_type type;
  size_t length = 0;
  void* data = nullptr;
  if (napi_get_typedarray_info(array.Env(), array, &type, &length, &data, nullptr, nullptr) != napi_ok) {
    throw Napi::Error::New(array.Env());
  }
  return {static_cast<std::byte*>(data), length * array.ElementSize()};
}

CallerBytes::CallerBytes(Job& job, Napi::TypedArray array)
    : ByteSource(bytesOfArray(array).size()), job_(job), number_(job.keep(array)) {}

void CallerBytes::read(size_t from, std::span<std::byte> into) const {
  requireRange(from, into.size());
  for (size_t done = 0; done < into.size();) {
    const auto piece = into.subspan(done, std::min(kPieceBytes, into.size() - done));
    job_.withKept(number_, [this, piece, at = from + done](Napi::Object array) {
      const std::span<const std::byte> bytes = bytesOfArray(array.As<Napi::TypedArray>());
      if (bytes.size() != size()) {
        throw Error(
            "ERR_INVALID_ARG_VALUE",
            "An array was transferred or resized while it was read. Wait until the promise is settled.");
      }
      std::memcpy(piece.data(), bytes.data() + at, piece.size());
    });
    done += piece.size();
  }
}

void CallerBytes::forEachPiece(const std::stop_token& stop,
                               const std::function<void(std::span<const std::byte>)>& use) const {
  std::vector<std::byte> piece(std::min(kPieceBytes, size()));
  for (size_t at = 0; at < size(); at += piece.size()) {
    throwIfStopped(stop);
    piece.resize(std::min(piece.size(), size() - at));
    read(at, piece);
    use(piece);
  }
}

std::shared_ptr<const std::byte> CallerBytes::whole(const std::stop_token&) const {
  const auto memory = std::static_pointer_cast<std::byte>(allocateUnzeroedMemory(size()));
  read(0, {memory.get(), size()});
  return memory;
}

}  // namespace node_tensorrt
