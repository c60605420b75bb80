// A CUDA driver without a GPU. Device memory is host memory with bookkeeping, a stream is a thread, and a
// kernel is a function (standInLaunch). It is stricter than the real driver: what that leaves undefined, such
// as a copy from freed memory or freeing twice, aborts with a message.
#include <dlfcn.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "cuda.h"
#include "devices.h"
#include "javascript.h"

namespace {

enum Status : int {
  kSuccess = 0,
  kInvalidValue = 1,
  kOutOfMemory = 2,
  kNotInitialized = 3,
  kNoDevice = 100,
  kInvalidDevice = 101,
  kInvalidContext = 201,
  kInvalidHandle = 400,
  kNotFound = 500,
  kNotReady = 600,
  kIllegalAddress = 700,
  kContextIsDestroyed = 709,
  kLaunchFailed = 719,
  kNotPermitted = 800,
  kSystemDriverMismatch = 803,
  kCaptureUnsupported = 900,
  kCaptureInvalidated = 901,
  kCaptureUnmatched = 903,
  kCaptureUnjoined = 904,
  kCapturedEvent = 907,
  kUnknown = 999,
};

struct StatusName {
  int status;
  const char* name;
  const char* text;
};
constexpr StatusName kStatusNames[] = {
    {kSuccess, "CUDA_SUCCESS", "no error"},
    {kInvalidValue, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {kOutOfMemory, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {kNotInitialized, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
    {kNoDevice, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"},
    {kInvalidDevice, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {kInvalidContext, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {kInvalidHandle, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"},
    {kNotFound, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
    {kNotReady, "CUDA_ERROR_NOT_READY", "device not ready"},
    {kIllegalAddress, "CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"},
    {kContextIsDestroyed, "CUDA_ERROR_CONTEXT_IS_DESTROYED", "context is destroyed"},
    {kLaunchFailed, "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"},
    {kNotPermitted, "CUDA_ERROR_NOT_PERMITTED", "operation not permitted"},
    {kSystemDriverMismatch, "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH",
     "system has unsupported display driver / cuda driver combination"},
    {kCaptureUnsupported, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED",
     "operation not permitted when stream is capturing"},
    {kCaptureInvalidated, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED",
     "operation failed due to a previous error during capture"},
    {kCaptureUnmatched, "CUDA_ERROR_STREAM_CAPTURE_UNMATCHED",
     "capture was not ended in the same stream as it began"},
    {kCaptureUnjoined, "CUDA_ERROR_STREAM_CAPTURE_UNJOINED", "capturing stream has unjoined work"},
    {kCapturedEvent, "CUDA_ERROR_CAPTURED_EVENT",
     "operation not permitted on an event last recorded in a capturing stream"},
    {kUnknown, "CUDA_ERROR_UNKNOWN", "unknown error"},
};

[[noreturn]] __attribute__((format(printf, 1, 2))) void misuse(const char* format, ...) {
  std::fputs("stand-in CUDA: ", stderr);
  va_list arguments;
  va_start(arguments, format);
  std::vfprintf(stderr, format, arguments);
  va_end(arguments);
  std::fputc('\n', stderr);
  std::abort();
}

// ---- devices ----

std::vector<Device>& devices() {
  // cuInit reads the list again, so that one test process can play several machines.
  static std::vector<Device>& all = *new std::vector<Device>(readDevices());
  return all;
}

}  // namespace

// ---- what handles point to ----

struct CUctx_st {
  explicit CUctx_st(int ordinal) : device(ordinal) {}

  const int device;
  int references = 0;
  std::atomic<int> broken{kSuccess};  // the status that every call returns once a kernel has failed
  std::map<CUstream_st*, std::shared_ptr<CUstream_st>> streams;  // shared with threads that wait for a stream
  size_t events = 0;
  size_t graphs = 0;
};

namespace {

using Work = std::function<int()>;

// One recording of an event. A new recording replaces it.
struct Recording {
  std::mutex mutex;
  std::condition_variable changed;
  bool done = false;
  std::chrono::steady_clock::time_point time;

  void finish() {
    std::lock_guard lock(mutex);
    done = true;
    time = std::chrono::steady_clock::now();
    changed.notify_all();
  }
  void wait() {
    std::unique_lock lock(mutex);
    changed.wait(lock, [this] { return done; });
  }
  bool isDone() {
    std::lock_guard lock(mutex);
    return done;
  }
};

// Every kernel passes this gate first. One thread can close it; streams then stay busy until that thread
// opens it again.
struct Gate {
  static Gate& instance() {
    static Gate& gate = *new Gate;
    return gate;
  }

  void close(bool closing) {
    std::lock_guard lock(mutex);
    closer = closing ? std::this_thread::get_id() : std::thread::id();
    changed.notify_all();
  }
  bool isOpen() {
    std::lock_guard lock(mutex);
    return closer == std::thread::id();
  }
  bool isClosedByThisThread() {
    std::lock_guard lock(mutex);
    return closer == std::this_thread::get_id();
  }
  void wait() {
    std::unique_lock lock(mutex);
    changed.wait(lock, [this] { return closer == std::thread::id(); });
  }

 private:
  std::mutex mutex;
  std::condition_variable changed;
  std::thread::id closer;
};

enum CaptureMode : int { kGlobal = 0, kThreadLocal = 1, kRelaxed = 2 };

// The captured work in the order of the calls, which is a valid order for the graph that they make.
struct Capture {
  CUstream_st* origin = nullptr;
  CaptureMode mode = kGlobal;
  std::thread::id thread;
  std::set<CUstream_st*> streams;   // streams that take part, including the origin
  std::set<CUstream_st*> unjoined;  // streams with work that the origin doesn't wait for
  bool invalid = false;
  std::vector<Work> nodes;
};

}  // namespace

struct CUevent_st {
  CUctx_st* context;
  bool timed;
  std::shared_ptr<Recording> recording;
  std::weak_ptr<CUstream_st> stream;  // the recording's stream
  std::weak_ptr<Capture> capture;     // the capture it was last recorded in
  CUstream_st* capturedIn = nullptr;
};

struct CUstream_st {
  explicit CUstream_st(CUctx_st* owner) : context(owner), thread([this] { run(); }) {}

  ~CUstream_st() {
    {
      std::lock_guard lock(mutex);
      ending = true;
      changed.notify_all();
    }
    thread.join();
  }

  void push(Work work) {
    std::lock_guard lock(mutex);
    queue.push_back(std::move(work));
    changed.notify_all();
  }

  // Waits for something that this stream's work will do. Aborts if the thread holds kernels, because it would
  // wait for itself.
  void waitUntil(const char* call, const std::function<bool()>& done) {
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return done() || (atGate && Gate::instance().isClosedByThisThread()); });
    if (!done()) misuse("%s waits for a kernel that this thread holds", call);
  }

  void drain(const char* call = __builtin_FUNCTION()) {
    waitUntil(call, [this] { return queue.empty() && !busy; });
  }

  // Called on the stream's thread before a kernel.
  void passGate() {
    if (Gate::instance().isOpen()) return;
    setAtGate(true);
    Gate::instance().wait();
    setAtGate(false);
  }

  bool isIdle() {
    std::lock_guard lock(mutex);
    return queue.empty() && !busy;
  }

  CUctx_st* const context;
  std::shared_ptr<Capture> capture;  // guarded by the driver's mutex

 private:
  void run();
  void setAtGate(bool is) {
    std::lock_guard lock(mutex);
    atGate = is;
    changed.notify_all();
  }

  std::mutex mutex;
  std::condition_variable changed;
  std::deque<Work> queue;
  bool busy = false;
  bool atGate = false;
  bool ending = false;
  std::thread thread;
};

struct CUgraph_st {
  std::shared_ptr<const std::vector<Work>> nodes;
  CUctx_st* context;
};
struct CUgraphExec_st {
  std::shared_ptr<const std::vector<Work>> nodes;
  CUctx_st* context;
};

namespace {

// The stream whose thread this is. Its functions may not call the driver.
thread_local CUstream_st* thisStream = nullptr;
thread_local std::vector<CUctx_st*> currentContexts;

struct Allocation {
  size_t size;
  StandInMemory kind;
  CUctx_st* context;
  bool freed = false;  // by cuMemFreeAsync: work that was launched earlier may still use it
};

// State shared by all calls. Never destroyed, because streams may still be running when the process exits.
struct Driver {
  static Driver& instance() {
    static Driver& driver = *new Driver;
    return driver;
  }

  std::mutex mutex;
  bool initialized = false;
  std::map<int, std::unique_ptr<CUctx_st>> contexts;
  std::map<uintptr_t, Allocation> allocations;
  std::set<CUevent_st*> events;
  std::set<std::shared_ptr<Capture>> captures;
};

// Returns the allocation that contains all of [address, address + bytes). Call with the mutex held.
Allocation* findAllocation(uintptr_t address, size_t bytes) {
  auto& allocations = Driver::instance().allocations;
  auto next = allocations.upper_bound(address);
  if (next == allocations.begin()) return nullptr;
  auto& [start, allocation] = *--next;
  if (address >= start + allocation.size) return nullptr;
  if (address + bytes > start + allocation.size) {
    misuse("%zu bytes at %#lx leave their allocation of %zu bytes", bytes,
           static_cast<unsigned long>(address), allocation.size);
  }
  return &allocation;
}

void requireDevice(const char* call, uintptr_t address, size_t bytes, bool launching) {
  if (bytes == 0) return;
  std::lock_guard lock(Driver::instance().mutex);
  const Allocation* allocation = findAllocation(address, bytes);
  if (allocation == nullptr || allocation->kind != kStandInDevice || (launching && allocation->freed)) {
    misuse("%s: %#lx is not live device memory", call, static_cast<unsigned long>(address));
  }
}

// Returns true if the memory is pinned.
bool requireHost(const char* call, const void* address, size_t bytes) {
  if (bytes == 0) return true;
  std::lock_guard lock(Driver::instance().mutex);
  const Allocation* allocation = findAllocation(reinterpret_cast<uintptr_t>(address), bytes);
  if (allocation == nullptr) return false;
  if (allocation->kind != kStandInPinned) misuse("%s: %p is device memory, not host memory", call, address);
  return true;
}

void invalidateCaptures(const std::function<bool(const Capture&)>& concerned) {
  for (const std::shared_ptr<Capture>& capture : Driver::instance().captures) {
    if (concerned(*capture)) capture->invalid = true;
  }
}

// JavaScript's thread must make no calls, because any call may have to wait for another thread's call or for
// the GPU.
thread_local bool isJavaScript = isMainThreadOfJavaScript();

void requireNotJavaScript(const char* call) {
  if (isJavaScript) misuse("%s on JavaScript's thread", call);
}

// Every call begins with this. Returns the status that the call must return at once, if any.
int begin(const char* call = __builtin_FUNCTION()) {
  requireNotJavaScript(call);
  if (thisStream) return kNotPermitted;
  Driver& driver = Driver::instance();
  {
    std::lock_guard lock(driver.mutex);
    if (!driver.initialized) return kNotInitialized;
  }
  return standInFaultHolds("lost") ? kUnknown : kSuccess;
}

// Begins a call that needs a context.
int begin(CUctx_st*& context, const char* call = __builtin_FUNCTION()) {
  const int status = begin(call);
  if (status != kSuccess) return status;
  if (currentContexts.empty()) return kInvalidContext;
  std::lock_guard lock(Driver::instance().mutex);
  for (const auto& [ordinal, each] : Driver::instance().contexts) {
    if (each.get() != currentContexts.back()) continue;
    context = each.get();
    return context->broken;
  }
  return kContextIsDestroyed;
}

// The mode set by cuThreadExchangeStreamCaptureMode.
thread_local CaptureMode threadMode = kGlobal;

// Begins a call that waits or allocates. A capture on this thread forbids that, and so does a global capture
// on another thread, unless this thread has another mode.
int beginUnsafe(CUctx_st*& context, const char* call = __builtin_FUNCTION()) {
  const int status = begin(context, call);
  if (status != kSuccess) return status;
  std::lock_guard lock(Driver::instance().mutex);
  const auto forbids = [](const Capture& capture) {
    const bool isOwn = capture.thread == std::this_thread::get_id();
    return threadMode != kRelaxed && capture.mode != kRelaxed &&
           (isOwn || (threadMode == kGlobal && capture.mode == kGlobal));
  };
  bool forbidden = false;
  for (const auto& capture : Driver::instance().captures) forbidden |= forbids(*capture);
  if (forbidden) invalidateCaptures(forbids);
  return forbidden ? kCaptureUnsupported : kSuccess;
}

// Begins a call on a stream.
int begin(const char* call, CUstream_st* stream, CUctx_st*& context) {
  const int status = begin(context, call);
  if (status != kSuccess) return status;
  // The default streams wait for all others, so using them counts as the caller's error here.
  if (reinterpret_cast<uintptr_t>(stream) <= 2) misuse("%s on the default stream", call);
  std::lock_guard lock(Driver::instance().mutex);
  for (const auto& [ordinal, each] : Driver::instance().contexts) {
    if (each->streams.count(stream) > 0) {
      if (each.get() != context) misuse("%s on a stream of another context", call);
      return kSuccess;
    }
  }
  misuse("%s on a stream that does not exist", call);
}

// Launches work, or adds it to the stream's capture.
int launch(CUstream_st* stream, Work work) {
  {
    std::lock_guard lock(Driver::instance().mutex);
    if (const std::shared_ptr<Capture>& capture = stream->capture) {
      if (capture->invalid) return kCaptureInvalidated;
      if (stream != capture->origin) capture->unjoined.insert(stream);
      capture->nodes.push_back(std::move(work));
      return kSuccess;
    }
  }
  stream->push(std::move(work));
  return kSuccess;
}

bool isCapturing(CUstream_st* stream) {
  std::lock_guard lock(Driver::instance().mutex);
  return stream->capture != nullptr;
}

// Fails if the stream is being captured, because then it can't be waited for.
int requireNoCapture(CUstream_st* stream) {
  std::lock_guard lock(Driver::instance().mutex);
  if (!stream->capture) return kSuccess;
  stream->capture->invalid = true;
  return kCaptureUnsupported;
}

void drainContext(CUctx_st* context, const char* call = __builtin_FUNCTION()) {
  std::vector<std::shared_ptr<CUstream_st>> streams;
  {
    std::lock_guard lock(Driver::instance().mutex);
    for (const auto& [handle, stream] : context->streams) streams.push_back(stream);
  }
  for (const auto& stream : streams) stream->drain(call);
}

size_t usedMemory(int device) {
  size_t used = 0;
  for (const auto& [address, allocation] : Driver::instance().allocations) {
    if (allocation.kind == kStandInDevice && allocation.context->device == device) used += allocation.size;
  }
  return used;
}

constexpr size_t kAlignment = 512;

int allocate(CUctx_st* context, size_t bytes, StandInMemory kind, void** address) {
  if (bytes == 0) return kInvalidValue;
  if (standInFaultOccurs(kind == kStandInDevice ? "allocation" : "pinned")) return kOutOfMemory;
  Driver& driver = Driver::instance();
  std::lock_guard lock(driver.mutex);
  const size_t total = devices()[static_cast<size_t>(context->device)].memory;
  if (kind == kStandInDevice && bytes > total - std::min(total, usedMemory(context->device))) {
    return kOutOfMemory;
  }
  void* memory = nullptr;
  if (::posix_memalign(&memory, kAlignment, bytes) != 0) return kOutOfMemory;
  // Filled, so that reads of uninitialized memory are noticed.
  std::memset(memory, 0xcd, bytes);
  driver.allocations.insert_or_assign(reinterpret_cast<uintptr_t>(memory), Allocation{bytes, kind, context});
  *address = memory;
  return kSuccess;
}

void release(const char* call, uintptr_t address, StandInMemory kind) {
  Driver& driver = Driver::instance();
  std::lock_guard lock(driver.mutex);
  const auto entry = driver.allocations.find(address);
  if (entry == driver.allocations.end() || entry->second.kind != kind || entry->second.freed) {
    misuse("%s: %#lx is not the start of a live allocation", call, static_cast<unsigned long>(address));
  }
  driver.allocations.erase(entry);
  std::free(reinterpret_cast<void*>(address));
}

}  // namespace

void CUstream_st::run() {
  thisStream = this;
  std::unique_lock lock(mutex);
  while (true) {
    changed.wait(lock, [this] { return !queue.empty() || ending; });
    if (queue.empty()) return;
    Work work = std::move(queue.front());
    queue.pop_front();
    busy = true;
    lock.unlock();
    if (const long delay = standInFaultNumber("slow"); delay > 0) {
      std::this_thread::sleep_for(std::chrono::milliseconds(delay));
    }
    const int status = work();
    if (status != kSuccess) {
      int none = kSuccess;
      context->broken.compare_exchange_strong(none, status);
    }
    work = nullptr;
    lock.lock();
    busy = false;
    changed.notify_all();
  }
}

using CUdevice = int;
using CUdeviceptr = unsigned long long;
using CUcontext = CUctx_st*;
using CUstream = CUstream_st*;
using CUevent = CUevent_st*;
using CUgraph = CUgraph_st*;
using CUgraphExec = CUgraphExec_st*;

// After a kernel has failed, the rest of its context's work is skipped. Events are still signalled.
#define STAND_IN_SKIP_IF_BROKEN(context) \
  if (const int broken = (context)->broken) return broken

extern "C" {

// ---- devices ----

STAND_IN_EXPORT int cuInit(unsigned) {
  requireNotJavaScript("cuInit");
  if (thisStream) return kNotPermitted;
  if (standInFaultNumber("uninitialized") >= 0) return kSystemDriverMismatch;
  Driver& driver = Driver::instance();
  std::lock_guard lock(driver.mutex);
  if (driver.contexts.empty()) devices() = readDevices();
  if (devices().empty()) return kNoDevice;
  driver.initialized = true;
  return kSuccess;
}

STAND_IN_EXPORT int cuDriverGetVersion(int* version) {
  const char* value = std::getenv("STAND_IN_CUDA_VERSION");
  *version = value != nullptr ? std::atoi(value) : 13010;
  return kSuccess;
}

STAND_IN_EXPORT int cuDeviceGetCount(int* count) {
  if (const int status = begin()) return status;
  *count = static_cast<int>(devices().size());
  return kSuccess;
}

STAND_IN_EXPORT int cuDeviceGet(CUdevice* device, int ordinal) {
  if (const int status = begin()) return status;
  if (ordinal < 0 || ordinal >= static_cast<int>(devices().size())) return kInvalidDevice;
  *device = ordinal;
  return kSuccess;
}

STAND_IN_EXPORT int cuDeviceGetName(char* name, int length, CUdevice device) {
  if (const int status = begin()) return status;
  std::snprintf(name, static_cast<size_t>(length), "%s",
                devices().at(static_cast<size_t>(device)).name.c_str());
  return kSuccess;
}

STAND_IN_EXPORT int cuDeviceGetAttribute(int* value, int attribute, CUdevice device) {
  if (const int status = begin()) return status;
  const Device& found = devices().at(static_cast<size_t>(device));
  switch (attribute) {
    case 75:  // compute capability
      *value = found.capability / 10;
      return kSuccess;
    case 76:
      *value = found.capability % 10;
      return kSuccess;
    case 16:  // multiprocessors
      *value = 4;
      return kSuccess;
    case 115:  // memory pools
      *value = 1;
      return kSuccess;
    default:
      misuse("cuDeviceGetAttribute: attribute %d", attribute);
  }
}

STAND_IN_EXPORT int cuDeviceTotalMem_v2(size_t* bytes, CUdevice device) {
  if (const int status = begin()) return status;
  if (standInFaultOccurs("query")) return kUnknown;
  *bytes = devices().at(static_cast<size_t>(device)).memory;
  return kSuccess;
}

STAND_IN_EXPORT int cuDeviceGetUuid_v2(unsigned char* uuid, CUdevice device) {
  if (const int status = begin()) return status;
  for (int i = 0; i < 16; ++i) uuid[i] = static_cast<unsigned char>(i * 16 + device);
  return kSuccess;
}

STAND_IN_EXPORT int cuDeviceGetPCIBusId(char* id, int length, CUdevice device) {
  if (const int status = begin()) return status;
  std::snprintf(id, static_cast<size_t>(length), "0000:%02X:00.0", 0x1b + device);
  return kSuccess;
}

STAND_IN_EXPORT int cuDeviceCanAccessPeer(int* can, CUdevice, CUdevice) {
  if (const int status = begin()) return status;
  *can = 0;
  return kSuccess;
}

STAND_IN_EXPORT int cuGetErrorName(int status, const char** name) {
  for (const StatusName& each : kStatusNames) {
    if (each.status == status) return *name = each.name, kSuccess;
  }
  return *name = nullptr, kInvalidValue;
}

STAND_IN_EXPORT int cuGetErrorString(int status, const char** text) {
  for (const StatusName& each : kStatusNames) {
    if (each.status == status) return *text = each.text, kSuccess;
  }
  return *text = nullptr, kInvalidValue;
}

// ---- contexts ----

STAND_IN_EXPORT int cuDevicePrimaryCtxRetain(CUcontext* context, CUdevice device) {
  if (const int status = begin()) return status;
  if (device < 0 || device >= static_cast<int>(devices().size())) return kInvalidDevice;
  Driver& driver = Driver::instance();
  std::lock_guard lock(driver.mutex);
  std::unique_ptr<CUctx_st>& found = driver.contexts[device];
  if (!found) found = std::make_unique<CUctx_st>(device);
  ++found->references;
  *context = found.get();
  return kSuccess;
}

STAND_IN_EXPORT int cuDevicePrimaryCtxRelease_v2(CUdevice device) {
  // Works on a lost device too.
  if (thisStream) return kNotPermitted;
  Driver& driver = Driver::instance();
  std::lock_guard lock(driver.mutex);
  const auto entry = driver.contexts.find(device);
  if (entry == driver.contexts.end()) misuse("cuDevicePrimaryCtxRelease: no reference is held");
  CUctx_st& context = *entry->second;
  if (--context.references > 0) return kSuccess;
  for (const auto& [address, allocation] : driver.allocations) {
    if (allocation.context == &context) {
      misuse("cuDevicePrimaryCtxRelease: %zu bytes of %s memory at %#lx were not freed", allocation.size,
             allocation.kind == kStandInDevice ? "device" : "pinned", static_cast<unsigned long>(address));
    }
  }
  if (!context.streams.empty() || context.events > 0 || context.graphs > 0) {
    misuse("cuDevicePrimaryCtxRelease: %zu streams, %zu events, %zu graphs were not destroyed",
           context.streams.size(), context.events, context.graphs);
  }
  driver.contexts.erase(entry);
  return kSuccess;
}

STAND_IN_EXPORT int cuCtxSetCurrent(CUcontext context) {
  if (const int status = begin()) return status;
  if (!currentContexts.empty()) currentContexts.pop_back();
  if (context != nullptr) currentContexts.push_back(context);
  return kSuccess;
}

STAND_IN_EXPORT int cuCtxPushCurrent_v2(CUcontext context) {
  if (const int status = begin()) return status;
  if (context == nullptr) return kInvalidContext;
  currentContexts.push_back(context);
  return kSuccess;
}

STAND_IN_EXPORT int cuCtxPopCurrent_v2(CUcontext* context) {
  if (thisStream) return kNotPermitted;
  if (currentContexts.empty()) return kInvalidContext;
  if (context != nullptr) *context = currentContexts.back();
  currentContexts.pop_back();
  return kSuccess;
}

STAND_IN_EXPORT int cuCtxGetCurrent(CUcontext* context) {
  if (const int status = begin()) return status;
  *context = currentContexts.empty() ? nullptr : currentContexts.back();
  return kSuccess;
}

STAND_IN_EXPORT int cuCtxGetDevice(CUdevice* device) {
  CUcontext context = nullptr;
  if (const int status = begin(context)) return status;
  *device = context->device;
  return kSuccess;
}

STAND_IN_EXPORT int cuCtxSynchronize() {
  CUcontext context = nullptr;
  if (const int status = beginUnsafe(context)) return status;
  drainContext(context);
  return context->broken;
}

STAND_IN_EXPORT int cuCtxGetStreamPriorityRange(int* least, int* greatest) {
  CUcontext context = nullptr;
  if (const int status = begin(context)) return status;
  if (least != nullptr) *least = 0;
  if (greatest != nullptr) *greatest = -5;
  return kSuccess;
}

// ---- memory ----

STAND_IN_EXPORT int cuMemGetInfo_v2(size_t* free, size_t* total) {
  CUcontext context = nullptr;
  if (const int status = begin(context)) return status;
  std::lock_guard lock(Driver::instance().mutex);
  *total = devices()[static_cast<size_t>(context->device)].memory;
  *free = *total - std::min(*total, usedMemory(context->device));
  return kSuccess;
}

STAND_IN_EXPORT int cuMemAlloc_v2(CUdeviceptr* address, size_t bytes) {
  CUcontext context = nullptr;
  if (const int status = beginUnsafe(context)) return status;
  void* memory = nullptr;
  if (const int status = allocate(context, bytes, kStandInDevice, &memory)) return status;
  *address = reinterpret_cast<CUdeviceptr>(memory);
  return kSuccess;
}

STAND_IN_EXPORT int cuMemFree_v2(CUdeviceptr address) {
  CUcontext context = nullptr;
  const int status = beginUnsafe(context);
  if (address == 0) return status;
  // Even on a broken or lost device, the bookkeeping of this memory ends here.
  if (context == nullptr || status == kCaptureUnsupported) return status;
  drainContext(context);
  release("cuMemFree", address, kStandInDevice);
  return status;
}

STAND_IN_EXPORT int cuMemAllocAsync(CUdeviceptr* address, size_t bytes, CUstream stream) {
  CUcontext context = nullptr;
  if (const int status = begin("cuMemAllocAsync", stream, context)) return status;
  if (isCapturing(stream)) misuse("cuMemAllocAsync while capturing: the stand-in has no allocation nodes");
  void* memory = nullptr;
  if (const int status = allocate(context, bytes, kStandInDevice, &memory)) return status;
  *address = reinterpret_cast<CUdeviceptr>(memory);
  return kSuccess;
}

STAND_IN_EXPORT int cuMemFreeAsync(CUdeviceptr address, CUstream stream) {
  CUcontext context = nullptr;
  if (const int status = begin("cuMemFreeAsync", stream, context)) return status;
  if (isCapturing(stream)) misuse("cuMemFreeAsync while capturing: the stand-in has no allocation nodes");
  {
    std::lock_guard lock(Driver::instance().mutex);
    auto& allocations = Driver::instance().allocations;
    const auto entry = allocations.find(address);
    if (entry == allocations.end() || entry->second.kind != kStandInDevice || entry->second.freed) {
      misuse("cuMemFreeAsync: %#llx is not the start of a live allocation", address);
    }
    entry->second.freed = true;
  }
  stream->push([address] {
    std::lock_guard lock(Driver::instance().mutex);
    Driver::instance().allocations.erase(address);
    std::free(reinterpret_cast<void*>(address));
    return kSuccess;
  });
  return kSuccess;
}

STAND_IN_EXPORT int cuMemHostAlloc(void** address, size_t bytes, unsigned) {
  CUcontext context = nullptr;
  if (const int status = beginUnsafe(context)) return status;
  return allocate(context, bytes, kStandInPinned, address);
}

STAND_IN_EXPORT int cuMemAllocHost_v2(void** address, size_t bytes) {
  return cuMemHostAlloc(address, bytes, 0);
}

STAND_IN_EXPORT int cuMemFreeHost(void* address) {
  CUcontext context = nullptr;
  const int status = beginUnsafe(context);
  if (context == nullptr || status == kCaptureUnsupported) return status;
  drainContext(context);
  release("cuMemFreeHost", reinterpret_cast<uintptr_t>(address), kStandInPinned);
  return status;
}

STAND_IN_EXPORT int cuPointerGetAttribute(void* value, int attribute, CUdeviceptr address) {
  CUcontext context = nullptr;
  if (const int status = begin(context)) return status;
  std::lock_guard lock(Driver::instance().mutex);
  const Allocation* allocation = findAllocation(address, 1);
  if (allocation == nullptr) return kInvalidValue;
  switch (attribute) {
    case 2:  // memory type: 1 host, 2 device
      *static_cast<unsigned*>(value) = allocation->kind == kStandInDevice ? 2 : 1;
      return kSuccess;
    case 9:  // device ordinal
      *static_cast<int*>(value) = allocation->context->device;
      return kSuccess;
    default:
      misuse("cuPointerGetAttribute: attribute %d", attribute);
  }
}

// ---- copies ----

STAND_IN_EXPORT int cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void* from, size_t bytes, CUstream stream) {
  CUcontext context = nullptr;
  if (const int status = begin("cuMemcpyHtoDAsync", stream, context)) return status;
  requireDevice("cuMemcpyHtoDAsync", to, bytes, true);
  const bool pinned = requireHost("cuMemcpyHtoDAsync", from, bytes);
  // Pageable memory is read before the call returns, except in a graph.
  std::shared_ptr<std::vector<char>> staged;
  if (!pinned && !isCapturing(stream)) {
    const char* data = static_cast<const char*>(from);
    staged = std::make_shared<std::vector<char>>(data, data + bytes);
  }
  return launch(stream, [=] {
    STAND_IN_SKIP_IF_BROKEN(context);
    requireDevice("cuMemcpyHtoDAsync", to, bytes, false);
    if (pinned) requireHost("cuMemcpyHtoDAsync", from, bytes);
    if (bytes > 0) std::memcpy(reinterpret_cast<void*>(to), staged ? staged->data() : from, bytes);
    return 0;
  });
}

STAND_IN_EXPORT int cuMemcpyDtoHAsync_v2(void* to, CUdeviceptr from, size_t bytes, CUstream stream) {
  CUcontext context = nullptr;
  if (const int status = begin("cuMemcpyDtoHAsync", stream, context)) return status;
  requireDevice("cuMemcpyDtoHAsync", from, bytes, true);
  const bool pinned = requireHost("cuMemcpyDtoHAsync", to, bytes);
  const int status = launch(stream, [=] {
    STAND_IN_SKIP_IF_BROKEN(context);
    requireDevice("cuMemcpyDtoHAsync", from, bytes, false);
    if (pinned) requireHost("cuMemcpyDtoHAsync", to, bytes);
    if (bytes > 0) std::memcpy(to, reinterpret_cast<const void*>(from), bytes);
    return 0;
  });
  // Pageable memory is written before the call returns, except in a graph.
  if (status == kSuccess && !pinned && !isCapturing(stream)) {
    stream->drain();
    return context->broken;
  }
  return status;
}

STAND_IN_EXPORT int cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream) {
  CUcontext context = nullptr;
  if (const int status = begin("cuMemcpyDtoDAsync", stream, context)) return status;
  requireDevice("cuMemcpyDtoDAsync", to, bytes, true);
  requireDevice("cuMemcpyDtoDAsync", from, bytes, true);
  return launch(stream, [=] {
    STAND_IN_SKIP_IF_BROKEN(context);
    requireDevice("cuMemcpyDtoDAsync", to, bytes, false);
    requireDevice("cuMemcpyDtoDAsync", from, bytes, false);
    if (bytes > 0) std::memmove(reinterpret_cast<void*>(to), reinterpret_cast<const void*>(from), bytes);
    return 0;
  });
}

// CUDA_MEMCPY2D. Only host and device memory are played.
struct CopySide {
  size_t xInBytes, y;
  unsigned memoryType;  // 1 host, 2 device
  const void* host;
  CUdeviceptr device;
  void* array;
  size_t pitch;
};
struct Copy2D {
  CopySide from, to;
  size_t widthInBytes, height;
};

STAND_IN_EXPORT int cuMemcpy2DAsync_v2(const Copy2D* parameters, CUstream stream) {
  CUcontext context = nullptr;
  if (const int status = begin("cuMemcpy2DAsync", stream, context)) return status;
  const Copy2D copy = *parameters;
  if (copy.widthInBytes == 0 || copy.height == 0) return kSuccess;
  // Checks both sides. Returns true unless one is pageable.
  const auto check = [copy](bool launching) {
    bool pinned = true;
    for (const CopySide& side : {copy.from, copy.to}) {
      const size_t bytes = (copy.height - 1) * side.pitch + copy.widthInBytes;
      if (side.memoryType == 2) {
        requireDevice("cuMemcpy2DAsync", side.device, bytes, launching);
      } else {
        pinned = requireHost("cuMemcpy2DAsync", side.host, bytes) && pinned;
      }
    }
    return pinned;
  };
  for (const CopySide& side : {copy.from, copy.to}) {
    if (side.xInBytes != 0 || side.y != 0 || (side.memoryType != 1 && side.memoryType != 2)) {
      misuse("cuMemcpy2DAsync: the stand-in plays whole host and device memory");
    }
    constexpr size_t kMaxPitch = 0x7fffffff;
    if (side.pitch < copy.widthInBytes || side.pitch > kMaxPitch) return kInvalidValue;
  }
  const bool pinned = check(true);
  if (!pinned && isCapturing(stream)) misuse("cuMemcpy2DAsync of pageable memory while capturing");
  const auto addressOf = [](const CopySide& side) {
    return side.memoryType == 2 ? reinterpret_cast<char*>(side.device)
                                : static_cast<char*>(const_cast<void*>(side.host));
  };
  const int status = launch(stream, [=] {
    STAND_IN_SKIP_IF_BROKEN(context);
    check(false);
    for (size_t i = 0; i < copy.height; ++i) {
      std::memcpy(addressOf(copy.to) + i * copy.to.pitch, addressOf(copy.from) + i * copy.from.pitch,
                  copy.widthInBytes);
    }
    return 0;
  });
  // Pageable memory is read or written before the call returns.
  if (status == kSuccess && !pinned) {
    stream->drain();
    return context->broken;
  }
  return status;
}

STAND_IN_EXPORT int cuMemcpyPeerAsync(CUdeviceptr to, CUcontext, CUdeviceptr from, CUcontext, size_t bytes,
                                      CUstream stream) {
  return cuMemcpyDtoDAsync_v2(to, from, bytes, stream);
}

STAND_IN_EXPORT int cuMemcpyHtoD_v2(CUdeviceptr to, const void* from, size_t bytes) {
  CUcontext context = nullptr;
  if (const int status = beginUnsafe(context)) return status;
  requireDevice("cuMemcpyHtoD", to, bytes, true);
  requireHost("cuMemcpyHtoD", from, bytes);
  if (bytes > 0) std::memcpy(reinterpret_cast<void*>(to), from, bytes);
  return kSuccess;
}

STAND_IN_EXPORT int cuMemcpyDtoH_v2(void* to, CUdeviceptr from, size_t bytes) {
  CUcontext context = nullptr;
  if (const int status = beginUnsafe(context)) return status;
  requireDevice("cuMemcpyDtoH", from, bytes, true);
  requireHost("cuMemcpyDtoH", to, bytes);
  if (bytes > 0) std::memcpy(to, reinterpret_cast<const void*>(from), bytes);
  return kSuccess;
}

STAND_IN_EXPORT int cuMemsetD8Async(CUdeviceptr to, unsigned char value, size_t bytes, CUstream stream) {
  CUcontext context = nullptr;
  if (const int status = begin("cuMemsetD8Async", stream, context)) return status;
  requireDevice("cuMemsetD8Async", to, bytes, true);
  return launch(stream, [=] {
    STAND_IN_SKIP_IF_BROKEN(context);
    requireDevice("cuMemsetD8Async", to, bytes, false);
    if (bytes > 0) std::memset(reinterpret_cast<void*>(to), value, bytes);
    return 0;
  });
}

STAND_IN_EXPORT int cuMemsetD2D8Async(CUdeviceptr to, size_t pitch, unsigned char value, size_t width,
                                      size_t height, CUstream stream) {
  CUcontext context = nullptr;
  if (const int status = begin("cuMemsetD2D8Async", stream, context)) return status;
  if (width == 0 || height == 0) return kSuccess;
  if (pitch < width) return kInvalidValue;
  const size_t bytes = (height - 1) * pitch + width;
  requireDevice("cuMemsetD2D8Async", to, bytes, true);
  return launch(stream, [=] {
    STAND_IN_SKIP_IF_BROKEN(context);
    requireDevice("cuMemsetD2D8Async", to, bytes, false);
    for (size_t i = 0; i < height; ++i) std::memset(reinterpret_cast<char*>(to) + i * pitch, value, width);
    return 0;
  });
}

// ---- streams ----

STAND_IN_EXPORT int cuStreamCreateWithPriority(CUstream* stream, unsigned, int) {
  CUcontext context = nullptr;
  if (const int status = begin(context)) return status;
  auto made = std::make_shared<CUstream_st>(context);
  std::lock_guard lock(Driver::instance().mutex);
  *stream = made.get();
  context->streams.emplace(*stream, std::move(made));
  return kSuccess;
}

STAND_IN_EXPORT int cuStreamCreate(CUstream* stream, unsigned flags) {
  return cuStreamCreateWithPriority(stream, flags, 0);
}

STAND_IN_EXPORT int cuStreamDestroy_v2(CUstream stream) {
  if (thisStream) return kNotPermitted;
  Driver& driver = Driver::instance();
  std::shared_ptr<CUstream_st> destroyed;
  {
    std::lock_guard lock(driver.mutex);
    for (const auto& [ordinal, context] : driver.contexts) {
      if (auto node = context->streams.extract(stream)) destroyed = std::move(node.mapped());
    }
    if (!destroyed) misuse("cuStreamDestroy: the stream does not exist");
    if (stream->capture) {
      stream->capture->streams.erase(stream);
      if (stream->capture->origin == stream) driver.captures.erase(stream->capture);
    }
  }
  if (Gate::instance().isClosedByThisThread()) destroyed->drain();
  return kSuccess;
}

STAND_IN_EXPORT int cuStreamSynchronize(CUstream stream) {
  CUcontext context = nullptr;
  if (const int status = begin("cuStreamSynchronize", stream, context)) return status;
  if (const int status = requireNoCapture(stream)) return status;
  stream->drain();
  return context->broken;
}

STAND_IN_EXPORT int cuStreamQuery(CUstream stream) {
  CUcontext context = nullptr;
  if (const int status = begin("cuStreamQuery", stream, context)) return status;
  if (const int status = requireNoCapture(stream)) return status;
  const bool idle = stream->isIdle();
  return context->broken ? context->broken.load() : idle ? kSuccess : kNotReady;
}

STAND_IN_EXPORT int cuLaunchHostFunc(CUstream stream, void (*function)(void*), void* data) {
  CUcontext context = nullptr;
  if (const int status = begin("cuLaunchHostFunc", stream, context)) return status;
  return launch(stream, [=] {
    STAND_IN_SKIP_IF_BROKEN(context);
    function(data);
    return 0;
  });
}

// ---- events ----

STAND_IN_EXPORT int cuEventCreate(CUevent* event, unsigned flags) {
  CUcontext context = nullptr;
  if (const int status = begin(context)) return status;
  constexpr unsigned kDisableTiming = 2;
  auto made = std::make_unique<CUevent_st>();
  made->context = context;
  made->timed = (flags & kDisableTiming) == 0;
  std::lock_guard lock(Driver::instance().mutex);
  ++context->events;
  Driver::instance().events.insert(made.get());
  *event = made.release();
  return kSuccess;
}

STAND_IN_EXPORT int cuEventDestroy_v2(CUevent event) {
  if (thisStream) return kNotPermitted;
  std::lock_guard lock(Driver::instance().mutex);
  if (Driver::instance().events.erase(event) == 0) misuse("cuEventDestroy: the event does not exist");
  --event->context->events;
  delete event;
  return kSuccess;
}

STAND_IN_EXPORT int cuEventRecord(CUevent event, CUstream stream) {
  CUcontext context = nullptr;
  if (const int status = begin("cuEventRecord", stream, context)) return status;
  auto recording = std::make_shared<Recording>();
  {
    std::lock_guard lock(Driver::instance().mutex);
    if (Driver::instance().events.count(event) == 0) misuse("cuEventRecord: the event does not exist");
    if (event->context != context) return kInvalidHandle;
    event->capture = stream->capture;
    if (stream->capture) {
      event->capturedIn = stream;
      return stream->capture->invalid ? kCaptureInvalidated : kSuccess;
    }
    event->recording = recording;
    event->stream = context->streams.at(stream);
  }
  stream->push([recording] {
    recording->finish();
    return kSuccess;
  });
  return kSuccess;
}

STAND_IN_EXPORT int cuStreamWaitEvent(CUstream stream, CUevent event, unsigned) {
  CUcontext context = nullptr;
  if (const int status = begin("cuStreamWaitEvent", stream, context)) return status;
  std::shared_ptr<Recording> recording;
  {
    std::lock_guard lock(Driver::instance().mutex);
    if (Driver::instance().events.count(event) == 0) misuse("cuStreamWaitEvent: the event does not exist");
    if (const std::shared_ptr<Capture> capture = event->capture.lock()) {
      if (stream->capture && stream->capture != capture) return kInvalidHandle;
      stream->capture = capture;
      capture->streams.insert(stream);
      if (stream == capture->origin) capture->unjoined.erase(event->capturedIn);
      return kSuccess;
    }
    if (stream->capture) {
      // The work is outside the graph, so the graph can't wait for it.
      stream->capture->invalid = true;
      return kInvalidHandle;
    }
    recording = event->recording;
  }
  if (!recording) return kSuccess;
  stream->push([recording] {
    recording->wait();
    return kSuccess;
  });
  return kSuccess;
}

STAND_IN_EXPORT int cuEventSynchronize(CUevent event) {
  CUcontext context = nullptr;
  if (const int status = begin(context)) return status;
  std::shared_ptr<Recording> recording;
  std::shared_ptr<CUstream_st> stream;
  {
    std::lock_guard lock(Driver::instance().mutex);
    if (Driver::instance().events.count(event) == 0) misuse("cuEventSynchronize: the event does not exist");
    if (!event->capture.expired()) return kCapturedEvent;
    recording = event->recording;
    stream = event->stream.lock();
  }
  // A stream that was destroyed has finished its work.
  if (recording && stream) stream->waitUntil("cuEventSynchronize", [&] { return recording->isDone(); });
  return context->broken;
}

STAND_IN_EXPORT int cuEventQuery(CUevent event) {
  CUcontext context = nullptr;
  if (const int status = begin(context)) return status;
  std::lock_guard lock(Driver::instance().mutex);
  if (Driver::instance().events.count(event) == 0) misuse("cuEventQuery: the event does not exist");
  if (!event->capture.expired()) return kCapturedEvent;
  return !event->recording || event->recording->isDone() ? kSuccess : kNotReady;
}

STAND_IN_EXPORT int cuEventElapsedTime_v2(float* milliseconds, CUevent start, CUevent end) {
  CUcontext context = nullptr;
  if (const int status = begin(context)) return status;
  std::lock_guard lock(Driver::instance().mutex);
  for (CUevent event : {start, end}) {
    if (Driver::instance().events.count(event) == 0) misuse("cuEventElapsedTime: the event does not exist");
    if (!event->timed || !event->recording) return kInvalidHandle;
    if (!event->recording->isDone()) return kNotReady;
  }
  const std::chrono::duration<float, std::milli> elapsed = end->recording->time - start->recording->time;
  *milliseconds = elapsed.count();
  return kSuccess;
}

STAND_IN_EXPORT int cuEventElapsedTime(float* milliseconds, CUevent start, CUevent end) {
  return cuEventElapsedTime_v2(milliseconds, start, end);
}

// ---- graphs ----

STAND_IN_EXPORT int cuStreamBeginCapture_v2(CUstream stream, int mode) {
  CUcontext context = nullptr;
  if (const int status = begin("cuStreamBeginCapture", stream, context)) return status;
  std::lock_guard lock(Driver::instance().mutex);
  if (stream->capture) return kInvalidValue;
  auto capture = std::make_shared<Capture>();
  capture->origin = stream;
  capture->mode = static_cast<CaptureMode>(mode);
  capture->thread = std::this_thread::get_id();
  capture->streams.insert(stream);
  stream->capture = capture;
  Driver::instance().captures.insert(std::move(capture));
  return kSuccess;
}

STAND_IN_EXPORT int cuStreamEndCapture(CUstream stream, CUgraph* graph) {
  CUcontext context = nullptr;
  if (const int status = begin("cuStreamEndCapture", stream, context)) return status;
  *graph = nullptr;
  std::lock_guard lock(Driver::instance().mutex);
  const std::shared_ptr<Capture> capture = stream->capture;
  if (!capture) return kInvalidValue;
  if (capture->origin != stream) return kCaptureUnmatched;
  if (capture->mode == kThreadLocal && capture->thread != std::this_thread::get_id()) return kInvalidValue;
  for (CUstream each : capture->streams) each->capture = nullptr;
  Driver::instance().captures.erase(capture);
  if (standInFaultOccurs("capture")) capture->invalid = true;
  if (capture->invalid) return kCaptureInvalidated;
  if (!capture->unjoined.empty()) return kCaptureUnjoined;
  ++context->graphs;
  *graph = new CUgraph_st{std::make_shared<const std::vector<Work>>(std::move(capture->nodes)), context};
  return kSuccess;
}

STAND_IN_EXPORT int cuThreadExchangeStreamCaptureMode(int* mode) {
  if (const int status = begin()) return status;
  *mode = std::exchange(threadMode, static_cast<CaptureMode>(*mode));
  return kSuccess;
}

STAND_IN_EXPORT int cuStreamIsCapturing(CUstream stream, int* state) {
  CUcontext context = nullptr;
  if (const int status = begin("cuStreamIsCapturing", stream, context)) return status;
  std::lock_guard lock(Driver::instance().mutex);
  *state = !stream->capture ? 0 : stream->capture->invalid ? 2 : 1;
  return kSuccess;
}

STAND_IN_EXPORT int cuGraphGetNodes(CUgraph graph, void**, size_t* count) {
  CUcontext context = nullptr;
  if (const int status = begin(context)) return status;
  *count = graph->nodes->size();
  return kSuccess;
}

STAND_IN_EXPORT int cuGraphInstantiateWithFlags(CUgraphExec* executable, CUgraph graph, unsigned long long) {
  CUcontext context = nullptr;
  if (const int status = begin(context)) return status;
  if (standInFaultOccurs("launch")) return kOutOfMemory;
  std::lock_guard lock(Driver::instance().mutex);
  ++context->graphs;
  *executable = new CUgraphExec_st{graph->nodes, context};
  return kSuccess;
}

STAND_IN_EXPORT int cuGraphLaunch(CUgraphExec executable, CUstream stream) {
  CUcontext context = nullptr;
  if (const int status = begin("cuGraphLaunch", stream, context)) return status;
  return launch(stream, [nodes = executable->nodes] {
    for (const Work& node : *nodes) {
      if (const int status = node()) return status;
    }
    return static_cast<int>(kSuccess);
  });
}

STAND_IN_EXPORT int cuGraphExecDestroy(CUgraphExec executable) {
  if (thisStream) return kNotPermitted;
  std::lock_guard lock(Driver::instance().mutex);
  --executable->context->graphs;
  delete executable;
  return kSuccess;
}

STAND_IN_EXPORT int cuGraphDestroy(CUgraph graph) {
  if (thisStream) return kNotPermitted;
  std::lock_guard lock(Driver::instance().mutex);
  --graph->context->graphs;
  delete graph;
  return kSuccess;
}

// ---- entry points ----

// Names without a version stand for the newest version that this driver has.
STAND_IN_EXPORT int cuGetProcAddress_v2(const char* name, void** function, int, uint64_t, int* found) {
  // A handle for this library's own symbols, which may not be global.
  static void* const self = [] {
    Dl_info info = {};
    ::dladdr(reinterpret_cast<void*>(&standInLaunch), &info);
    return ::dlopen(info.dli_fname, RTLD_NOW | RTLD_NOLOAD);
  }();
  *function = nullptr;
  for (const char* version : {"_v2", ""}) {
    if (*function == nullptr) *function = ::dlsym(self, std::string(name).append(version).c_str());
  }
  if (found != nullptr) *found = *function != nullptr ? 0 : 1;
  return *function != nullptr ? kSuccess : kNotFound;
}

// ---- the stand-in's own ----

STAND_IN_EXPORT int standInLaunch(CUstream_st* stream, StandInWork work) {
  const std::shared_ptr<void> data(work.data, work.destroy);
  CUcontext context = nullptr;
  if (const int status = begin("a kernel", stream, context)) return status;
  return launch(stream, [context, data, run = work.run]() -> int {
    thisStream->passGate();
    STAND_IN_SKIP_IF_BROKEN(context);
    if (standInFaultOccurs("kernel")) return kIllegalAddress;
    return run(data.get());
  });
}

STAND_IN_EXPORT void standInHoldKernels(bool hold) {
  Gate::instance().close(hold);
}

STAND_IN_EXPORT void standInSetJavaScript(bool is) {
  isJavaScript = is;
}

STAND_IN_EXPORT int standInSynchronize(CUstream_st* stream) {
  return cuStreamSynchronize(stream);
}

STAND_IN_EXPORT StandInMemory standInMemoryAt(const void* address, size_t bytes) {
  std::lock_guard lock(Driver::instance().mutex);
  const Allocation* allocation = findAllocation(reinterpret_cast<uintptr_t>(address), bytes);
  return allocation == nullptr || allocation->freed ? kStandInUnknown : allocation->kind;
}

STAND_IN_EXPORT int standInComputeCapability(int device) {
  return device < 0 || device >= static_cast<int>(devices().size())
             ? -1
             : devices()[static_cast<size_t>(device)].capability;
}

STAND_IN_EXPORT int standInCurrentDevice() {
  // Without a current context, the CUDA runtime uses the first device.
  if (currentContexts.empty()) return devices().empty() ? -1 : 0;
  CUcontext context = nullptr;
  return begin(context) == kSuccess ? context->device : -1;
}

STAND_IN_EXPORT StandInLive standInLive() {
  Driver& driver = Driver::instance();
  std::lock_guard lock(driver.mutex);
  StandInLive live = {};
  for (const auto& [address, allocation] : driver.allocations) {
    ++(allocation.kind == kStandInDevice ? live.deviceAllocations : live.pinnedAllocations);
  }
  for (const auto& [ordinal, context] : driver.contexts) {
    live.streams += context->streams.size();
    live.graphs += context->graphs;
  }
  live.events = driver.events.size();
  live.contexts = driver.contexts.size();
  return live;
}
}
