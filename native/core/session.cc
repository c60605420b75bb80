#include "core/session.h"

#include <algorithm>
#include <string>
#include <system_error>
#include <utility>

#include "core/error.h"
#include "core/host_memory.h"

namespace node_tensorrt {

Session::Session(SessionConfig config) : config_(config), executing_(config.concurrency) {}

Session::~Session() {
  stop();
}

void Session::start(LoadModel load, Listener loaded) {
  load_ = std::move(load);
  loadedListener_ = std::move(loaded);
  running_ = config_.concurrency;
  // Thread 0 loads the model. It is started last, because the others only wait until then and can still be
  // stopped.
  for (size_t i = config_.concurrency; i-- > 0;) {
    try {
      threads_.emplace_back([this, i] { serve(i); });
    } catch (const std::system_error& error) {
      {
        std::lock_guard lock(mutex_);
        loaded_ = closing_ = true;
        running_ = threads_.size();
      }
      stop();
      throw Error("ERR_OUT_OF_MEMORY", std::string("The system has no thread left for the session (") +
                                           error.code().message() + ").");
    }
  }
}

void Session::enqueue(std::shared_ptr<Run> run) {
  {
    std::lock_guard lock(mutex_);
    if (closing_) throw Error("ERR_DISPOSED", "The session was disposed.");
    if (queue_.size() >= config_.maxQueue) {
      throw Error("ERR_QUEUE_FULL", std::to_string(queue_.size()) +
                                        " runs are waiting already (options.maxQueue): wait for some to "
                                        "finish before starting more.");
    }
    run->enqueued = Clock::now();
    queue_.push_back(std::move(run));
  }
  wake_.notify_one();
}

void Session::finish(Run& run, std::exception_ptr error) {
  run.inputs.clear();
  if (error) run.outputs.clear();
  {
    std::lock_guard lock(mutex_);
    if (!error) {
      const double latency = std::chrono::duration<double, std::milli>(run.ended - run.enqueued).count();
      if (stats_.latencies.size() < kLatencies) {
        stats_.latencies.push_back(latency);
      } else {
        stats_.latencies[stats_.completed % kLatencies] = latency;
      }
      ++stats_.completed;
    } else if (isCancelled(error)) {
      ++stats_.cancelled;
    } else {
      ++stats_.failed;
    }
  }
  run.error = std::move(error);
  run.done();
}

void Session::cancel(const std::shared_ptr<Run>& run) {
  {
    std::lock_guard lock(mutex_);
    const auto waiting = std::find(queue_.begin(), queue_.end(), run);
    if (waiting == queue_.end()) {
      for (const Executing& executing : executing_) {
        if (executing.run == run) executing.context->cancel();
      }
      return;
    }
    queue_.erase(waiting);
  }
  finish(*run, std::make_exception_ptr(Cancelled()));
}

SessionStats Session::stats() {
  std::lock_guard lock(mutex_);
  SessionStats stats = stats_;
  stats.queued = queue_.size();
  for (const Executing& executing : executing_) stats.executing += executing.run != nullptr;
  if (model_) stats.device = model_->deviceStats();
  return stats;
}

void Session::runSync(Run& run) {
  if (!syncContext_) syncContext_ = model_->createContext();
  syncContext_->execute(run.inputs, run.outputIndices, run.outputs);
  run.inputs.clear();
}

void Session::close(Listener closed) {
  {
    std::lock_guard lock(mutex_);
    closing_ = true;
    closed_ = std::move(closed);
  }
  wake_.notify_all();
}

void Session::stop() {
  stopLoading();
  std::deque<std::shared_ptr<Run>> abandoned;
  {
    std::lock_guard lock(mutex_);
    closing_ = true;
    abandoned.swap(queue_);
    for (const Executing& executing : executing_) {
      if (executing.run) executing.context->cancel();
    }
  }
  wake_.notify_all();
  for (const auto& run : abandoned) finish(*run, std::make_exception_ptr(Cancelled()));
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

void Session::serve(size_t index) {
  std::exception_ptr failure;
  if (index == 0) {
    try {
      std::unique_ptr<Model> model = load_(loading_.get_token());
      std::lock_guard lock(mutex_);
      model_ = std::move(model);
    } catch (...) {
      failure = std::current_exception();
    }
    load_ = nullptr;
    trimHostMemory();  // loading read the weights and then copied them into the layout for computing
    {
      std::lock_guard lock(mutex_);
      loaded_ = true;
      if (failure) closing_ = true;
    }
    wake_.notify_all();
    std::exchange(loadedListener_, nullptr)(failure);
  }

  std::unique_ptr<ExecutionContext> context;
  std::unique_lock lock(mutex_);
  for (;;) {
    wake_.wait(lock, [this] { return loaded_ && (closing_ || !queue_.empty()); });
    if (queue_.empty()) break;
    std::exception_ptr error;
    if (!context) {
      // Not under the lock: this may wait for a device, and threads that enqueue runs must not.
      lock.unlock();
      try {
        context = model_->createContext();
      } catch (...) {
        error = std::current_exception();
      }
      lock.lock();
      if (queue_.empty()) continue;  // another thread took it
    }
    const std::shared_ptr<Run> run = std::move(queue_.front());
    queue_.pop_front();
    try {
      if (error) std::rethrow_exception(error);
      context->reset();
      executing_[index] = {run, context.get()};
      lock.unlock();
      run->begun = Clock::now();
      context->execute(run->inputs, run->outputIndices, run->outputs);
      run->ended = Clock::now();
      run->device = context->timing();
      if (run->persist) model_->persist();
    } catch (...) {
      error = std::current_exception();
    }
    if (!lock.owns_lock()) lock.lock();
    executing_[index] = {};
    lock.unlock();
    finish(*run, std::move(error));
    lock.lock();
  }

  // By the time the last thread frees the model, or a thread is joined, its context must be gone.
  lock.unlock();
  context.reset();
  lock.lock();
  if (--running_ > 0) return;
  std::unique_ptr<Model> model = std::move(model_);
  std::unique_ptr<ExecutionContext> syncContext = std::move(syncContext_);
  Listener closed = std::move(closed_);
  lock.unlock();
  syncContext.reset();
  model.reset();
  // A model's many small blocks lie scattered in the heap of the thread that loaded it.
  trimHostMemory();
  if (closed) closed(nullptr);
}

}  // namespace node_tensorrt
