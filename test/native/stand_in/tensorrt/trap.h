// The version that is played, and what happens on calls that this version or the stand-in doesn't have.
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

// Returns STAND_IN_TENSORRT_VERSION if it is a version of this flavour, or else the version of the headers.
Version playedVersion();

// Plays the faults "stuck" and "opening": waits as many milliseconds as the fault says, calling `step` now
// and then. Aborts if exit handlers run meanwhile.
void takeLonger(const char* fault, void (*step)() = [] {});

// Ends the process with a message, because the stand-in doesn't implement this slot.
[[noreturn]] void trap(const char* slot);

// Ends the process if the slot is newer than the played version. The real library would have called whatever
// follows its vtable.
void require(const char* slot, Version first);

}  // namespace stand_in
