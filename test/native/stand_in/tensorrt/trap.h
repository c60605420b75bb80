// The version that is played, and what becomes of calls that it, or the stand-in, does not have.
#pragma once

#include <NvOnnxParser.h>

#include <compare>

namespace stand_in {

struct Version {
  int major = 0;
  int minor = 0;
  int patch = 0;
  auto operator<=>(const Version&) const = default;
};

// STAND_IN_TENSORRT_VERSION where it is one of this flavour's, else that of its headers.
Version playedVersion();

// The faults "stuck" and "opening": takes so many milliseconds, with a `step` now and then, and aborts if
// exit handlers run meanwhile.
void takeLonger(const char* fault, void (*step)() = [] {});

// Ends the process with a message: the stand-in does not implement this slot.
[[noreturn]] void trap(const char* slot);

// Ends the process where the played version is older than the slot. The real library would have called
// whatever follows its vtable.
void require(const char* slot, Version first);

}  // namespace stand_in
