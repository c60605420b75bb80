// Which operations fail, and when. STAND_IN_FAULTS lists faults, separated by commas, each with a number:
// usually the occurrence that fails, beginning with 1, as in `allocation:3,slow:5`. README.md lists them.
// Their state exists once per process, in the stand-in CUDA driver, which the stand-in TensorRT links to.
#pragma once

#define STAND_IN_EXPORT __attribute__((visibility("default")))

extern "C" {

// Replaces the faults with those in `list` (null: none), as if the process had begun with them.
STAND_IN_EXPORT void standInSetFaults(const char* list);

// Counts an occurrence of `kind`. Returns true if this is the one that fails.
STAND_IN_EXPORT bool standInFaultOccurs(const char* kind);

// Counts an occurrence of `kind`. Returns true for every occurrence after the number given with the fault.
STAND_IN_EXPORT bool standInFaultHolds(const char* kind);

// How often `kind` was counted since the faults were set; 0 if it isn't among them.
STAND_IN_EXPORT long standInFaultCount(const char* kind);

// The number given with `kind`; -1 if it isn't among the faults.
STAND_IN_EXPORT long standInFaultNumber(const char* kind);
}
