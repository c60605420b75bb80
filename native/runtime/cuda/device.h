// A GPU and its resources: its primary context, memory, streams, events and graphs.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>

#include "core/memory_pool.h"
#include "runtime/cuda/driver.h"

namespace node_tensorrt::cuda {

// A GPU. There is one Device per GPU, and it lives until the process ends, because the CUDA runtime inside
// TensorRT keeps the primary context that long.
//
// Calls to the driver may block. cuMemFree and cuMemFreeHost wait until the GPU has finished all its work,
// and any other call waits while another thread is in one of these. So JavaScript's thread makes no calls to
// the driver. It may only release memory, which the GPU's own thread then frees, and call memory().
// Everything else here is for threads that may block. The GPU's thread doesn't wait for other threads.
class Device {
 public:
  // Returns the GPU with this CUDA ordinal, which depends on CUDA_VISIBLE_DEVICES. Throws Error(ERR_NO_GPU),
  // the errors of Driver::call, or ERR_OUT_OF_MEMORY if the system has no thread left.
  static const Device& open(int ordinal);
  ~Device();

  const Driver& driver() const noexcept { return driver_; }
  int ordinal() const noexcept { return ordinal_; }
  const Gpu& gpu() const noexcept { return gpu_; }

  // Bytes of the GPU's memory.
  struct Memory {
    size_t free = 0;
    size_t total = 0;
  };
  // The state when this process last allocated or freed memory through this object, or called settle(). Zeros
  // if the GPU is lost. Any thread; doesn't block.
  Memory memory() const;

  // Sources of memory for pools. Memory may be released on any thread; the GPU's thread frees it soon after.
  // If an allocation fails, it waits for that and tries once more. Memory that is released after the GPU was
  // lost is not freed.
  MemorySource deviceMemory() const;
  MemorySource pinnedMemory() const;

  // Runs `job` on the GPU's thread; at once if called on that thread. `job` must not throw. Any thread.
  void post(std::function<void()> job) const;
  // Waits until everything posted or released before is done, and memory() reflects it.
  void settle() const;

 private:
  friend class Current;
  class Thread;
  Device(const Driver& driver, int ordinal);
  template <class Allocate>
  void* allocate(Allocate call) const;

  const Driver& driver_;
  const int ordinal_;
  Gpu gpu_;
  CUctx_st* context_ = nullptr;
  std::unique_ptr<Thread> thread_;
};

// Makes the device's context current on the calling thread for as long as this object lives. While it does,
// graph captures of other threads don't restrict this thread, and its allocations don't invalidate them.
// Everything below requires one.
class Current {
 public:
  explicit Current(const Device& device);
  Current(const Current&) = delete;
  ~Current();

 private:
  const Device& device_;
  int captureMode_;  // the thread's previous mode
};

// A non-blocking stream. On the default stream, TensorRT would synchronize the whole device. The copies below
// are asynchronous.
class Stream {
 public:
  explicit Stream(const Device& device);
  Stream(const Stream&) = delete;
  ~Stream();

  CUstream_st* get() const noexcept { return stream_; }
  void synchronize() const;

  void copyToDevice(void* to, const void* from, size_t bytes) const;
  void copyToHost(void* to, const void* from, size_t bytes) const;
  void copyOnDevice(void* to, const void* from, size_t bytes) const;

  // Blocks of memory, whose beginnings are `pitch` bytes apart.
  struct Rows {
    void* data;
    MemoryKind kind;
    size_t pitch;
  };
  // Copies `count` blocks of `bytes` each.
  void copyRows(const Rows& to, const Rows& from, size_t bytes, size_t count) const;
  void clear(void* memory, size_t bytes) const;
  // Zeros `count` blocks of `bytes` each, whose beginnings are `pitch` bytes apart.
  void clearRows(void* rows, size_t pitch, size_t bytes, size_t count) const;

 private:
  const Driver& driver_;
  CUstream_st* stream_ = nullptr;
};

// Copies from the device to host memory and waits until it is done. Any thread, whatever context is current.
void download(const Device& device, void* to, const void* from, size_t bytes);

// Marks a point in a stream and records when the stream reached it.
class Event {
 public:
  explicit Event(const Device& device);
  Event(const Event&) = delete;
  ~Event();

  void record(const Stream& stream) const;
  // Waits until the stream has reached the recorded point.
  void synchronize() const;
  // Milliseconds since `earlier`. The stream must have passed both events.
  double since(const Event& earlier) const;

 private:
  const Driver& driver_;
  CUevent_st* event_ = nullptr;
};

// Work that was recorded from a stream once, and can be launched as a whole.
class Graph {
 public:
  // Records the work that `enqueue` gives to the stream. Returns null if `enqueue` returns false or does
  // something that can't be captured.
  static std::unique_ptr<Graph> capture(const Device& device, const Stream& stream,
                                        const std::function<bool()>& enqueue);
  Graph(const Graph&) = delete;
  ~Graph();

  void launch(const Stream& stream) const;

 private:
  Graph(const Driver& driver, CUgraphExec_st* graph) : driver_(driver), graph_(graph) {}

  const Driver& driver_;
  CUgraphExec_st* graph_;
};

}  // namespace node_tensorrt::cuda
