// The exception type of the native code. Exceptions never cross into JavaScript: native/node/ turns them into
// a TensorRTError with the same code.
#pragma once

#include <exception>
#include <stdexcept>
#include <stop_token>
#include <string>
#include <utility>

namespace node_tensorrt {

// An error with a code.
class Error : public std::runtime_error {
 public:
  // `code` is one of ErrorCode in lib/base/errors.ts. It isn't copied, so pass a string literal.
  Error(const char* code, const std::string& message) : std::runtime_error(message), code_(code) {}

  const char* code() const noexcept { return code_; }

 private:
  const char* code_;
};

// Thrown by an operation that was cancelled. JavaScript gets the signal's reason instead.
class Cancelled : public std::exception {
 public:
  const char* what() const noexcept override { return "cancelled"; }
};

// Throws Cancelled if a stop was requested.
inline void throwIfStopped(const std::stop_token& stop) {
  if (stop.stop_requested()) throw Cancelled();
}

// True if the error is Cancelled.
inline bool isCancelled(const std::exception_ptr& error) {
  if (!error) return false;
  try {
    std::rethrow_exception(error);
  } catch (const Cancelled&) {
    return true;
  } catch (...) {
    return false;
  }
}

}  // namespace node_tensorrt
