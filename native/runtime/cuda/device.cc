#include "runtime/cuda/device.h"

#include <cstdlib>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <map>
#include <mutex>
#include <optional>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "core/error.h"

namespace node_tensorrt::cuda {
namespace {

// Constants from cuda.h.
constexpr unsigned kStreamNonBlocking = 1;  // CU_STREAM_NON_BLOCKING
constexpr unsigned kEventDefault = 0;       // CU_EVENT_DEFAULT
constexpr unsigned kHostAllocPortable = 1;  // CU_MEMHOSTALLOC_PORTABLE: pinned for all contexts
constexpr int kCaptureModeThreadLocal = 1;  // CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
constexpr unsigned long long kNoGraphFlags = 0;

DevicePointer toDevicePointer(const void* address) {
  return reinterpret_cast<DevicePointer>(address);
}

}  // namespace

// The GPU's own thread. Never destroyed: it is detached, and may be in a call to the driver when the process
// exits.
class Device::Thread {
 public:
  using Job = std::function<void()>;

  explicit Thread(const Device& device) : device_(device) {
    try {
      std::thread thread([this] { run(); });
      id_ = thread.get_id();
      thread.detach();
    } catch (const std::system_error& error) {
      throw Error("ERR_OUT_OF_MEMORY",
                  "The system has no thread left for the GPU (" + error.code().message() + ").");
    }
    // Exit handlers run in reverse order, so this one runs before the driver's.
    ::on_exit([](int, void* self) { static_cast<Thread*>(self)->rest(); }, this);
  }

  void post(Job job) {
    if (isCurrent()) return job();
    std::lock_guard lock(mutex_);
    add(std::move(job));
  }

  void settle() {
    if (isCurrent()) return;
    std::unique_lock lock(mutex_);
    add([] {});
    ended_.wait(lock, [this, last = posted_] { return done_ >= last || resting_; });
  }

  void free(const Function<DevicePointer>& call, DevicePointer address) { freeLater(call, address); }
  void free(const Function<void*>& call, void* address) { freeLater(call, address); }

  // Number of blocks freed so far.
  uint64_t freed() const noexcept { return freed_; }

  Memory memory() const {
    std::lock_guard lock(mutex_);
    return memory_;
  }

 private:
  bool isCurrent() const noexcept { return std::this_thread::get_id() == id_; }

  template <class Address>
  void freeLater(const Function<Address>& call, Address address) {
    post([this, &call, address] {
      call(address);
      ++freed_;
    });
  }

  // Call with the lock held.
  void add(Job job) {
    jobs_.push_back(std::move(job));
    ++posted_;
    wake_.notify_one();
  }

  void run() {
    std::optional<Current> current;
    try {
      current.emplace(device_);
    } catch (const Error&) {
      // The GPU is lost, so every call will fail.
    }
    std::unique_lock lock(mutex_);
    for (;;) {
      wake_.wait(lock, [this] { return !jobs_.empty() && !resting_; });
      std::vector<Job> jobs = std::exchange(jobs_, {});
      const uint64_t last = posted_;
      working_ = true;
      lock.unlock();
      for (const Job& job : jobs) job();
      jobs.clear();  // frees what the jobs hold before memory is measured
      Memory memory;
      if (device_.driver_.memGetInfo(&memory.free, &memory.total) != 0) memory = {};
      lock.lock();
      memory_ = memory;
      done_ = last;
      working_ = false;
      ended_.notify_all();
    }
  }

  // Called when the process exits. The driver must not be called while its exit handlers run.
  void rest() {
    std::unique_lock lock(mutex_);
    resting_ = true;
    ended_.notify_all();
    ended_.wait_for(lock, kGrace, [this] { return !working_; });
  }

  static constexpr std::chrono::seconds kGrace{2};

  const Device& device_;
  std::thread::id id_;
  std::atomic<uint64_t> freed_ = 0;
  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::condition_variable ended_;
  std::vector<Job> jobs_;
  uint64_t posted_ = 0;
  uint64_t done_ = 0;  // how many of the posted jobs are done
  bool working_ = false;
  bool resting_ = false;
  Memory memory_;
};

const Device& Device::open(int ordinal) {
  // Never destroyed, because a device's memory may be released until the process ends.
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
  thread_ = std::make_unique<Thread>(*this);
  settle();
}

Device::~Device() = default;

Device::Memory Device::memory() const {
  return thread_->memory();
}

void Device::post(std::function<void()> job) const {
  thread_->post(std::move(job));
}

void Device::settle() const {
  thread_->settle();
}

template <class Allocate>
void* Device::allocate(Allocate call) const {
  const Current current(*this);
  const uint64_t freed = thread_->freed();
  void* address = nullptr;
  try {
    address = call();
  } catch (const Error& error) {
    if (std::string_view(error.code()) != "ERR_OUT_OF_MEMORY") throw;
    settle();
    if (thread_->freed() == freed) throw;
    address = call();
  }
  post([] {});  // updates memory()
  return address;
}

MemorySource Device::deviceMemory() const {
  return {[this](size_t bytes) {
            return allocate([&] {
              DevicePointer address = 0;
              driver_.call(driver_.memAlloc, &address, bytes);
              return reinterpret_cast<void*>(address);
            });
          },
          [this](void* address) { thread_->free(driver_.memFree, toDevicePointer(address)); },
          [this](std::function<void()> job) { post(std::move(job)); }};
}

MemorySource Device::pinnedMemory() const {
  return {[this](size_t bytes) {
            return allocate([&] {
              void* address = nullptr;
              driver_.call(driver_.memHostAlloc, &address, bytes, kHostAllocPortable);
              return address;
            });
          },
          [this](void* address) { thread_->free(driver_.memFreeHost, address); },
          [this](std::function<void()> job) { post(std::move(job)); }};
}

Current::Current(const Device& device) : device_(device), captureMode_(kCaptureModeThreadLocal) {
  device.driver_.call(device.driver_.ctxPushCurrent, device.context_);
  device.driver_.threadExchangeStreamCaptureMode(&captureMode_);
}

Current::~Current() {
  device_.driver_.threadExchangeStreamCaptureMode(&captureMode_);
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
    memory.pitch = std::max(rows.pitch, bytes);  // a single block may have any pitch
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

void Event::synchronize() const {
  driver_.call(driver_.eventSynchronize, event_);
}

double Event::since(const Event& earlier) const {
  float milliseconds = 0;
  driver_.call(driver_.eventElapsedTime, &milliseconds, earlier.event_, event_);
  return milliseconds;
}

std::unique_ptr<Graph> Graph::capture(const Device& device, const Stream& stream,
                                      const std::function<bool()>& enqueue) {
  const Driver& driver = device.driver();
  // Other threads may still do what a capture forbids.
  if (driver.streamBeginCapture(stream.get(), kCaptureModeThreadLocal) != 0) return nullptr;
  const bool enqueued = enqueue();
  // End the capture even after a failure, because the stream can't be used before.
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
