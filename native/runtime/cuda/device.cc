#include "runtime/cuda/device.h"

#include <algorithm>
#include <map>
#include <mutex>

#include "core/error.h"

namespace node_tensorrt::cuda {
namespace {

// From cuda.h.
constexpr unsigned kStreamNonBlocking = 1;  // CU_STREAM_NON_BLOCKING
constexpr unsigned kEventDefault = 0;       // CU_EVENT_DEFAULT
constexpr unsigned kHostAllocPortable = 1;  // CU_MEMHOSTALLOC_PORTABLE: pinned for every context
constexpr int kCaptureModeThreadLocal = 1;  // CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
constexpr unsigned long long kNoGraphFlags = 0;

DevicePointer toDevicePointer(const void* address) {
  return reinterpret_cast<DevicePointer>(address);
}

}  // namespace

const Device& Device::open(int ordinal) {
  // Not destroyed: memory of a device may be released as late as the process exits.
  static std::mutex& mutex = *new std::mutex;
  static auto& devices = *new std::map<int, std::unique_ptr<const Device>>;
  const Driver& driver = Driver::instance();
  int count = 0;
  driver.call(driver.deviceGetCount, &count);
  if (ordinal >= count) {
    throw Error("ERR_NO_GPU", count == 0
                                  ? std::string("The CUDA driver reports no GPU.")
                                  : "There is no cuda:" + std::to_string(ordinal) + ": this machine has " +
                                        std::to_string(count) + (count == 1 ? " GPU." : " GPUs."));
  }
  std::lock_guard lock(mutex);
  std::unique_ptr<const Device>& device = devices[ordinal];
  if (!device) device.reset(new Device(driver, ordinal));
  return *device;
}

Device::Device(const Driver& driver, int ordinal)
    : driver_(driver), ordinal_(ordinal), gpu_(describe(driver, ordinal)) {
  int device = 0;
  driver.call(driver.deviceGet, &device, ordinal);
  driver.call(driver.devicePrimaryCtxRetain, &context_, device);
}

Device::Memory Device::memory() const {
  const Current current(*this);
  Memory memory = {};
  driver_.call(driver_.memGetInfo, &memory.free, &memory.total);
  return memory;
}

MemorySource Device::deviceMemory() const {
  return {[this](size_t bytes) {
            const Current current(*this);
            DevicePointer address = 0;
            driver_.call(driver_.memAlloc, &address, bytes);
            return reinterpret_cast<void*>(address);
          },
          [this](void* address) {
            try {
              const Current current(*this);
              driver_.memFree(toDevicePointer(address));
            } catch (const Error&) {
              // The driver is shut down, or the GPU lost.
            }
          }};
}

MemorySource Device::pinnedMemory() const {
  return {[this](size_t bytes) {
            const Current current(*this);
            void* address = nullptr;
            driver_.call(driver_.memHostAlloc, &address, bytes, kHostAllocPortable);
            return address;
          },
          [this](void* address) {
            try {
              const Current current(*this);
              driver_.memFreeHost(address);
            } catch (const Error&) {
              // As above.
            }
          }};
}

Current::Current(const Device& device) : device_(device) {
  device.driver_.call(device.driver_.ctxPushCurrent, device.context_);
}

Current::~Current() {
  CUctx_st* context = nullptr;
  device_.driver_.ctxPopCurrent(&context);
}

Stream::Stream(const Device& device) : driver_(device.driver()) {
  driver_.call(driver_.streamCreate, &stream_, kStreamNonBlocking);
}

Stream::~Stream() {
  driver_.streamDestroy(stream_);
}

void Stream::synchronize() const {
  driver_.call(driver_.streamSynchronize, stream_);
}

void Stream::copyToDevice(void* to, const void* from, size_t bytes) const {
  if (bytes > 0) driver_.call(driver_.memcpyHtoDAsync, toDevicePointer(to), from, bytes, stream_);
}

void Stream::copyToHost(void* to, const void* from, size_t bytes) const {
  if (bytes > 0) driver_.call(driver_.memcpyDtoHAsync, to, toDevicePointer(from), bytes, stream_);
}

void Stream::copyOnDevice(void* to, const void* from, size_t bytes) const {
  if (bytes > 0) {
    driver_.call(driver_.memcpyDtoDAsync, toDevicePointer(to), toDevicePointer(from), bytes, stream_);
  }
}

void Stream::copyRows(const Rows& to, const Rows& from, size_t bytes, size_t count) const {
  if (bytes == 0 || count == 0) return;
  const auto side = [&](const Rows& rows) {
    PitchedMemory memory;
    memory.kind = rows.kind;
    memory.host = rows.kind == MemoryKind::kHost ? rows.data : nullptr;
    memory.device = rows.kind == MemoryKind::kDevice ? toDevicePointer(rows.data) : 0;
    memory.pitch = std::max(rows.pitch, bytes);  // of a single block it need not say anything
    return memory;
  };
  const PitchedCopy copy = {side(from), side(to), bytes, count};
  driver_.call(driver_.memcpy2DAsync, &copy, stream_);
}

void Stream::clear(void* memory, size_t bytes) const {
  if (bytes > 0) driver_.call(driver_.memsetD8Async, toDevicePointer(memory), '\0', bytes, stream_);
}

void Stream::clearRows(void* rows, size_t pitch, size_t bytes, size_t count) const {
  if (bytes == 0 || count == 0) return;
  driver_.call(driver_.memsetD2D8Async, toDevicePointer(rows), std::max(pitch, bytes), '\0', bytes, count,
               stream_);
}

void download(const Device& device, void* to, const void* from, size_t bytes) {
  const Current current(device);
  const Stream stream(device);
  stream.copyToHost(to, from, bytes);
  stream.synchronize();
}

Event::Event(const Device& device) : driver_(device.driver()) {
  driver_.call(driver_.eventCreate, &event_, kEventDefault);
}

Event::~Event() {
  driver_.eventDestroy(event_);
}

void Event::record(const Stream& stream) const {
  driver_.call(driver_.eventRecord, event_, stream.get());
}

double Event::since(const Event& earlier) const {
  float milliseconds = 0;
  driver_.call(driver_.eventElapsedTime, &milliseconds, earlier.event_, event_);
  return milliseconds;
}

std::unique_ptr<Graph> Graph::capture(const Device& device, const Stream& stream,
                                      const std::function<bool()>& enqueue) {
  const Driver& driver = device.driver();
  // Other threads may go on with what a capture forbids.
  if (driver.streamBeginCapture(stream.get(), kCaptureModeThreadLocal) != 0) return nullptr;
  const bool enqueued = enqueue();
  // Ended in any case: the stream is of no use before.
  CUgraph_st* graph = nullptr;
  const int status = driver.streamEndCapture(stream.get(), &graph);
  if (status != 0 || graph == nullptr) return nullptr;
  CUgraphExec_st* executable = nullptr;
  const bool instantiated =
      enqueued && driver.graphInstantiate(&executable, graph, kNoGraphFlags) == 0 && executable != nullptr;
  driver.graphDestroy(graph);
  if (!instantiated) return nullptr;
  return std::unique_ptr<Graph>(new Graph(driver, executable));
}

Graph::~Graph() {
  driver_.graphExecDestroy(graph_);
}

void Graph::launch(const Stream& stream) const {
  driver_.call(driver_.graphLaunch, graph_, stream.get());
}

}  // namespace node_tensorrt::cuda
