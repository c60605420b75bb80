// A GPU and what belongs to it: its primary context, memory, streams, events and graphs.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>

#include "core/memory_pool.h"
#include "runtime/cuda/driver.h"

namespace node_tensorrt::cuda {

// One per GPU and process, for the life of the process: the CUDA runtime inside TensorRT keeps the primary
// context as long.
//
// A call of the driver's may wait: cuMemFree and cuMemFreeHost until the GPU has done all that it was given,
// any other for a thread that is in such a call. JavaScript's thread therefore makes none. It may let go of
// memory, which the GPU has a thread of its own to free, and ask memory(). Everything else here is for
// threads that may wait. The GPU's thread waits for no other.
class Device {
 public:
  // The GPU with this ordinal (of CUDA_VISIBLE_DEVICES, as CUDA counts). Throws Error(ERR_NO_GPU), another
  // of Driver::call's, or ERR_OUT_OF_MEMORY where the system has no thread left.
  static const Device& open(int ordinal);
  ~Device();

  const Driver& driver() const noexcept { return driver_; }
  int ordinal() const noexcept { return ordinal_; }
  const Gpu& gpu() const noexcept { return gpu_; }

  struct Memory {
    size_t free = 0;
    size_t total = 0;
  };
  // The memory as it was when this process last allocated or freed through this object, or called settle();
  // zeros if the GPU is lost. May be called from any thread, and returns at once.
  Memory memory() const;

  // Sources for pools. What they release, on any thread, the GPU's thread frees soon; an allocation that
  // finds no memory waits for that, and tries once more. What is released after the GPU was lost is lost with
  // it.
  MemorySource deviceMemory() const;
  MemorySource pinnedMemory() const;

  // Has the GPU's thread do `job`, which must not throw; on that thread itself it is done at once. Any
  // thread.
  void post(std::function<void()> job) const;
  // Waits until all that was posted or released before is done, and memory() tells of it.
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

// Makes the device's context the calling thread's, for its own lifetime. What other threads capture meanwhile
// is neither in this one's way nor broken by what it allocates. Everything below needs one.
class Current {
 public:
  explicit Current(const Device& device);
  Current(const Current&) = delete;
  ~Current();

 private:
  const Device& device_;
  int captureMode_;  // what the thread had before
};

// A non-blocking stream: TensorRT synchronizes the whole device on the default one.
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

  // Blocks of memory, whose beginnings lie `pitch` bytes apart.
  struct Rows {
    void* data;
    MemoryKind kind;
    size_t pitch;
  };
  // Copies `bytes` of each of `count` blocks.
  void copyRows(const Rows& to, const Rows& from, size_t bytes, size_t count) const;
  void clear(void* memory, size_t bytes) const;
  // Zeros `bytes` of each of `count` blocks, whose beginnings lie `pitch` bytes apart.
  void clearRows(void* rows, size_t pitch, size_t bytes, size_t count) const;

 private:
  const Driver& driver_;
  CUstream_st* stream_ = nullptr;
};

// Copies from the device and waits for it. Any thread, whatever context is current.
void download(const Device& device, void* to, const void* from, size_t bytes);

// A point in a stream, with its time.
class Event {
 public:
  explicit Event(const Device& device);
  Event(const Event&) = delete;
  ~Event();

  void record(const Stream& stream) const;
  // Waits until the stream has come to where this was recorded.
  void synchronize() const;
  // Milliseconds from `earlier`; both were recorded, and the stream has passed them.
  double since(const Event& earlier) const;

 private:
  const Driver& driver_;
  CUevent_st* event_ = nullptr;
};

// Work of a stream, recorded once and launched at once.
class Graph {
 public:
  // Records the work that `enqueue` gives to the stream; null if it returns false or does something that
  // can't be captured.
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
