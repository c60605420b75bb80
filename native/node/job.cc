#include "node/job.h"

#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <system_error>
#include <utility>

#include "core/error.h"
#include "runtime/tensorrt/tensorrt.h"

namespace node_tensorrt {
namespace {

// How long an ending environment waits for cancelled work. TensorRT ends a build after its current step.
constexpr std::chrono::seconds kGrace{2};

// Number of threads that are still working after that.
std::atomic<int> g_held{0};

// An exit handler that runs before those of the libraries opened so far. These destroy what a thread that is
// still working uses, so the process ends here.
void exitBesideHeldThreads(int status, void*) {
  if (g_held > 0) _exit(status);
}

}  // namespace

Job::Job(Napi::Env env, Napi::Value onProgress)
    : environment_(&Environment::of(env)),
      deferred_(Napi::Promise::Deferred::New(env)),
      reports_(onProgress.IsFunction()) {
  if (reports_) onProgress_ = Napi::Persistent(onProgress.As<Napi::Function>());
}

size_t Job::keep(Napi::Object value) {
  kept_.push_back(Napi::Persistent(value));
  return kept_.size() - 1;
}

void Job::withKept(size_t number, std::function<void(Napi::Object)> use) {
  struct Call {
    std::mutex mutex;
    std::condition_variable_any condition;
    bool ended = false;
    bool abandoned = false;  // nobody waits any more, and what `use` refers to is gone
    std::exception_ptr error;
  };
  const auto call = std::make_shared<Call>();
  {
    std::lock_guard lock(mutex_);
    if (environment_ == nullptr) throw Cancelled();
    environment_->notify([self = shared_from_this(), call, number, use = std::move(use)](Napi::Env) {
      std::lock_guard callLock(call->mutex);
      if (call->abandoned) return;
      try {
        use(self->kept_[number].Value());
      } catch (...) {
        call->error = std::current_exception();
      }
      call->ended = true;
      call->condition.notify_all();
    });
  }
  std::unique_lock lock(call->mutex);
  if (!call->condition.wait(lock, stop_.get_token(), [&] { return call->ended; })) {
    call->abandoned = true;
    throw Cancelled();
  }
  if (call->error) std::rethrow_exception(call->error);
}

Napi::Promise Job::start(Napi::Env env, Work work) {
  environment_->add(shared_from_this());
  try {
    thread_ = std::thread([self = shared_from_this(), work = std::move(work)]() mutable {
      self->run(work);
      work = nullptr;  // frees the work's TensorRT objects while the thread still counts as held
      if (self->held_) --g_held;
    });
  } catch (const std::system_error& error) {
    environment_->remove(shared_from_this());
    onProgress_.Reset();
    kept_.clear();
    throw Error("ERR_OUT_OF_MEMORY",
                "The system has no thread left to work on (" + error.code().message() + ").");
  }
  // It isn't too late: whatever the thread has posted waits until this thread is free.
  environment_->expect(env);
  return deferred_.Promise();
}

void Job::stop() {
  cancel();
  // A process must not exit while a library is being opened, because the library's exit handlers would run at
  // the same time.
  tensorrt::Library::awaitOpening();
  std::unique_lock lock(mutex_);
  const bool ended = endedCondition_.wait_for(lock, kGrace, [this] { return ended_; });
  environment_ = nullptr;
  if (!thread_.joinable()) return;
  if (ended) {
    lock.unlock();
    thread_.join();
  } else {
    // The thread ends on its own; nobody waits for it.
    held_ = true;
    ++g_held;
    on_exit(exitBesideHeldThreads, nullptr);
    lock.unlock();
    thread_.detach();
  }
  onProgress_.Reset();
  kept_.clear();
  thrown_ = Napi::Error();
}

void Job::progress(std::string_view phase, int step, int steps) noexcept {
  if (!reports_) return;
  try {
    std::lock_guard lock(mutex_);
    if (environment_ == nullptr) return;
    for (Progress& waiting : progress_) {
      if (waiting.phase == phase && waiting.step <= step) {
        waiting.step = step;
        return;
      }
    }
    progress_.push_back({std::string(phase), step, steps});
    if (progress_.size() == 1) {
      environment_->notify([self = shared_from_this()](Napi::Env env) { self->report(env); });
    }
  } catch (...) {
    // Without enough memory, the event is dropped.
  }
}

void Job::deliver(Answer answer, std::exception_ptr error) {
  std::lock_guard lock(mutex_);
  if (environment_ == nullptr) return;
  environment_->post([self = shared_from_this(), answer = std::move(answer), error](Napi::Env env) {
    self->settle(env, answer, error);
  });
}

// The job's thread.
void Job::run(const Work& work) {
  try {
    work(stop_.get_token(), *this);
  } catch (...) {
    deliver({}, std::current_exception());
  }
  std::lock_guard lock(mutex_);
  ended_ = true;
  endedCondition_.notify_all();
  if (environment_ == nullptr) return;
  environment_->notify([self = shared_from_this()](Napi::Env) {
    self->thread_.join();
    self->environment_->remove(self);
  });
}

// JavaScript thread.
void Job::report(Napi::Env env) {
  std::vector<Progress> progress;
  {
    std::lock_guard lock(mutex_);
    progress.swap(progress_);
  }
  for (const Progress& event : progress) {
    if (!thrown_.IsEmpty() || onProgress_.IsEmpty() || stop_.stop_requested()) return;
    try {
      onProgress_.Call({Napi::String::New(env, event.phase), Napi::Number::New(env, event.step),
                        Napi::Number::New(env, event.steps)});
    } catch (const Napi::Error& error) {
      // An exception from a listener cancels the build, and the promise rejects with it.
      thrown_ = Napi::Error(error);
      cancel();
    }
  }
}

// JavaScript thread.
void Job::settle(Napi::Env env, const Answer& answer, const std::exception_ptr& error) {
  onProgress_.Reset();
  kept_.clear();
  if (!thrown_.IsEmpty()) {
    deferred_.Reject(thrown_.Value());
  } else if (isCancelled(error)) {
    deferred_.Resolve(env.Undefined());
  } else if (error) {
    deferred_.Reject(environment_->toJs(env, error));
  } else {
    try {
      deferred_.Resolve(answer(env));
    } catch (const Napi::Error& failed) {
      deferred_.Reject(failed.Value());
    }
  }
  thrown_ = Napi::Error();
}

}  // namespace node_tensorrt
