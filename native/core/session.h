// Runs a model on threads of its own: a bounded queue in front of one execution context per thread.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <stop_token>
#include <thread>
#include <vector>

#include "core/tensor.h"
#include "runtime/runtime.h"

namespace node_tensorrt {

using Clock = std::chrono::steady_clock;

// One run. The owner keeps it alive until `done` was called and reads it only from then on.
struct Run {
  std::vector<Tensor> inputs;  // all of them, in model order; released before `done`
  std::vector<size_t> outputIndices;
  std::vector<Tensor> outputs;
  bool persist = false;      // afterwards, keep what the model has learnt
  std::exception_ptr error;  // Error or Cancelled; null when the run succeeded

  Clock::time_point enqueued;
  Clock::time_point begun;
  Clock::time_point ended;
  std::optional<DeviceTiming> device;  // of a run that succeeded, where it had a device

  // Called exactly once, by a session thread, or by the thread that cancelled or closed. Must not throw.
  std::function<void()> done;
};

struct SessionConfig {
  size_t concurrency = 1;  // threads, each with a context
  size_t maxQueue = 1024;  // runs accepted and not yet begun
};

// Counters of the runs that were enqueued.
struct SessionStats {
  uint64_t completed = 0;
  uint64_t failed = 0;
  uint64_t cancelled = 0;
  size_t queued = 0;
  size_t executing = 0;
  std::optional<DeviceStats> device;  // of a loaded model that has one
  std::vector<double>
      latencies;  // ms from enqueue to the result, of the latest runs that completed, in no order
};

class Session {
 public:
  // Called on a session thread when load() ended, and when close() ended.
  using Listener = std::function<void(std::exception_ptr error)>;

  explicit Session(SessionConfig config);
  ~Session();  // closes as stop() does

  // Starts the threads; the first one runs `load` and reports to `loaded`. Call once.
  void start(LoadModel load, Listener loaded);

  // Makes a load() in progress end soon, with Cancelled. Any thread; no effect later.
  void stopLoading() { loading_.request_stop(); }

  // Valid after a successful load, until the session is closed.
  const Model& model() const { return *model_; }

  // Throws Error(ERR_QUEUE_FULL or ERR_DISPOSED). Any thread.
  void enqueue(std::shared_ptr<Run> run);

  // Ends `run` with Cancelled: at once when it still waits, soon when it executes. No effect once it is done.
  void cancel(const std::shared_ptr<Run>& run);

  // Any thread.
  SessionStats stats();

  // Executes on the calling thread, beside the session's own threads. One caller at a time.
  void runSync(Run& run);

  // No further run is accepted, those accepted are executed, then contexts and model are freed and `closed`
  // called.
  void close(Listener closed);

  // Cancels everything, frees the model and joins the threads. Idempotent. Blocks for at most about one
  // operator of a run, or one step of a load.
  void stop();

 private:
  struct Executing {
    std::shared_ptr<Run> run;
    ExecutionContext* context;
  };

  static constexpr size_t kLatencies = 1024;

  void serve(size_t index);
  void finish(Run& run, std::exception_ptr error);

  const SessionConfig config_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::shared_ptr<Run>> queue_;
  std::vector<Executing> executing_;  // one per thread
  std::vector<std::thread> threads_;
  SessionStats stats_;
  size_t running_ = 0;  // threads that have not ended
  bool closing_ = false;
  bool loaded_ = false;
  Listener closed_;
  LoadModel load_;
  std::stop_source loading_;
  Listener loadedListener_;
  std::unique_ptr<Model> model_;
  std::unique_ptr<ExecutionContext> syncContext_;
};

}  // namespace node_tensorrt
