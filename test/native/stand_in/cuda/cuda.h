// What the stand-in CUDA driver exports beyond the driver's own functions: for the stand-in TensorRT, whose
// kernels are functions on the host, and for tests.
#pragma once

#include <cstddef>
#include <cstdint>

#include "../fault.h"

struct CUstream_st;

extern "C" {

// Work for a stream: `run` is called on the stream's thread, once each time that the work is launched (a
// graph launches it often), and may not call the driver. What it returns is the status of a kernel: anything
// but 0 breaks the context for good, as on a GPU. `destroy` is called once, when nothing can launch the work
// again.
struct StandInWork {
  int (*run)(void*);
  void (*destroy)(void*);
  void* data;
};
STAND_IN_EXPORT int standInLaunch(CUstream_st* stream, StandInWork work);

// Holds every kernel that has not begun, and with it its stream, until the same thread calls it with false.
// The thread may go on launching; where it waits for what only a held kernel can bring about, it aborts, for
// that wait would not end.
STAND_IN_EXPORT void standInHoldKernels(bool hold);

// Blocks until the stream is idle. Fails while it is captured, which this invalidates.
STAND_IN_EXPORT int standInSynchronize(CUstream_st* stream);

// What `bytes` bytes at an address are: device memory, pinned host memory, or unknown to the driver (pageable
// host memory, unless the range begins in an allocation and leaves it, which aborts).
enum StandInMemory { kStandInUnknown = 0, kStandInDevice = 1, kStandInPinned = 2 };
STAND_IN_EXPORT StandInMemory standInMemoryAt(const void* address, size_t bytes);

// Makes the calling thread JavaScript's, or not: on one that is, each of the driver's functions aborts.
STAND_IN_EXPORT void standInSetJavaScript(bool is);

// Compute capability of a device (89 for sm_89), and of the calling thread's current one; -1 without any.
STAND_IN_EXPORT int standInComputeCapability(int device);
STAND_IN_EXPORT int standInCurrentDevice();

// What is alive in all contexts: tests compare it with nothing.
struct StandInLive {
  size_t deviceAllocations, pinnedAllocations, streams, events, graphs, contexts;
};
STAND_IN_EXPORT StandInLive standInLive();
}
