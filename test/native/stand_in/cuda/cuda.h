// Functions that the stand-in CUDA driver exports in addition to the driver's own. They are for tests and for
// the stand-in TensorRT, whose kernels are functions on the host.
#pragma once

#include <cstddef>
#include <cstdint>

#include "../fault.h"

struct CUstream_st;

extern "C" {

// Work for a stream. `run` is called on the stream's thread, once each time the work is launched (a graph can
// launch it many times). It must not call the driver. It returns a kernel's status: anything but 0 breaks the
// context permanently, as on a GPU. `destroy` is called once, when nothing can launch the work again.
struct StandInWork {
  int (*run)(void*);
  void (*destroy)(void*);
  void* data;
};
STAND_IN_EXPORT int standInLaunch(CUstream_st* stream, StandInWork work);

// Holds all kernels that haven't begun, and so their streams, until the same thread calls it with false. That
// thread may go on launching work. If it waits for something that a held kernel must do first, the stand-in
// aborts, because the wait would never end.
STAND_IN_EXPORT void standInHoldKernels(bool hold);

// Blocks until the stream is idle. If the stream is being captured, fails and invalidates the capture.
STAND_IN_EXPORT int standInSynchronize(CUstream_st* stream);

// Returns the kind of memory at an address: device memory, pinned host memory, or memory unknown to the
// driver, such as pageable host memory. Aborts if the range begins in an allocation but ends outside it.
enum StandInMemory { kStandInUnknown = 0, kStandInDevice = 1, kStandInPinned = 2 };
STAND_IN_EXPORT StandInMemory standInMemoryAt(const void* address, size_t bytes);

// Says if the calling thread is JavaScript's. On such a thread, every function of the driver aborts.
STAND_IN_EXPORT void standInSetJavaScript(bool is);

// Return the compute capability of a device (89 for sm_89), and the calling thread's current device; -1
// without any.
STAND_IN_EXPORT int standInComputeCapability(int device);
STAND_IN_EXPORT int standInCurrentDevice();

// Counts of objects that exist in all contexts. Tests check that they return to zero.
struct StandInLive {
  size_t deviceAllocations, pinnedAllocations, streams, events, graphs, contexts;
};
STAND_IN_EXPORT StandInLive standInLive();
}
