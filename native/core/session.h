// Runs a model on threads of its own. There is one execution context per thread, and one bounded queue.
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

// One run. The owner keeps it alive until `done` is called and doesn't read it before then.
struct Run {
  std::vector<Tensor> inputs;  // all inputs in model order; released before `done`
  std::vector<size_t> outputIndices;
  std::vector<Tensor> outputs;
  bool persist = false;      // afterwards, save what the model has learned
  std::exception_ptr error;  // Error or Cancelled; null if the run succeeded

  Clock::time_point enqueued;
  Clock::time_point begun;
  Clock::time_point ended;
  std::optional<DeviceTiming> device;  // set if the run succeeded on a device

  // Called exactly once, by a session thread or by the thread that cancelled the run or closed the session.
  // Must not throw.
  std::function<void()> done;
};

// Settings of a session.
struct SessionConfig {
  size_t concurrency = 1;  // number of threads, each with a context
  size_t maxQueue = 1024;  // runs that may wait
};

// Counts of the runs that were enqueued.
struct SessionStats {
  uint64_t completed = 0;
  uint64_t failed = 0;
  uint64_t cancelled = 0;
  size_t queued = 0;
  size_t executing = 0;
  std::optional<DeviceStats> device;  // set while a model is loaded on a device
  // Milliseconds from enqueue to result, for the latest completed runs, in no particular order.
  std::vector<double> latencies;
};

// Runs one model. Each method says which threads may call it.
class Session {
 public:
  // Called on a session thread when start() has loaded the model, and when close() has finished.
  using Listener = std::function<void(std::exception_ptr error)>;

  explicit Session(SessionConfig config);
  ~Session();  // calls stop()

  // Starts the threads. The first one calls `load` and reports to `loaded`. Call once.
  void start(LoadModel load, Listener loaded);

  // Cancels a load that is in progress: it soon ends with Cancelled. Does nothing after that. Any thread.
  void stopLoading() { loading_.request_stop(); }

  // Valid from a successful load until the session is closed.
  const Model& model() const { return *model_; }

  // Adds a run to the queue. Throws Error(ERR_QUEUE_FULL or ERR_DISPOSED). Any thread.
  void enqueue(std::shared_ptr<Run> run);

  // Ends `run` with Cancelled: at once if it is still waiting, soon if it is executing. Does nothing if it is
  // done.
  void cancel(const std::shared_ptr<Run>& run);

  // Returns current counts. Any thread.
  SessionStats stats();

  // Executes a run on the calling thread, in addition to the session's own threads. One caller at a time.
  void runSync(Run& run);

  // Accepts no more runs, executes those accepted, frees the contexts and the model, and calls `closed`.
  void close(Listener closed);

  // Cancels everything, frees the model and joins the threads. May be called again. Blocks for at most about
  // one operator of a run, or one step of a load.
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
  size_t running_ = 0;  // threads that haven't ended
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
