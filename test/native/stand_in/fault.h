// What goes wrong, and when. STAND_IN_FAULTS lists faults, separated by commas, each with the number of the
// occurrence that fails (the first is 1) or another number: `allocation:3,slow:5`. README.md lists them.
// The state is one per process and lives in the stand-in CUDA driver, which the stand-in TensorRT links to.
#pragma once

#define STAND_IN_EXPORT __attribute__((visibility("default")))

extern "C" {

// Replaces the faults by those of `list` (null: by none), as if the process had begun with them.
STAND_IN_EXPORT void standInSetFaults(const char* list);

// Counts one occurrence of `kind`; true if this is the one that fails.
STAND_IN_EXPORT bool standInFaultOccurs(const char* kind);

// Counts one occurrence of `kind`; true for all after those that the number given allows.
STAND_IN_EXPORT bool standInFaultHolds(const char* kind);

// How often `kind` was counted since the faults were set; 0 where there is no such fault.
STAND_IN_EXPORT long standInFaultCount(const char* kind);

// The number given with `kind`; -1 where there is no such fault.
STAND_IN_EXPORT long standInFaultNumber(const char* kind);
}
