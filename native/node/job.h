// A long piece of work, such as a build, on a thread of its own.
#pragma once

#include <condition_variable>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <stop_token>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "node/environment.h"
#include "node/napi_setup.h"

namespace node_tensorrt {

// A job. Its thread and the environment own it until the thread has ended.
class Job final : public Stoppable, public std::enable_shared_from_this<Job> {
 public:
  // Runs on the job's thread. It must throw, or deliver an answer.
  using Work = std::function<void(std::stop_token stop, Job& job)>;
  // Creates the job's result on the JavaScript thread.
  using Answer = std::function<Napi::Value(Napi::Env)>;

  // `onProgress` is a function that receives progress(); any other value means none.
  explicit Job(Napi::Env env, Napi::Value onProgress = {});

  // JavaScript thread. Starts the work. If it throws Cancelled, the promise resolves with undefined.
  Napi::Promise start(Napi::Env env, Work work);

  // JavaScript thread, before start(). Keeps a value alive until the promise is settled. Returns its number.
  size_t keep(Napi::Object value);

  // The job's threads. Calls `use` on the JavaScript thread with a value that was kept, and waits until it
  // returns. `use` throws no Napi::Error. Throws Cancelled if the job is cancelled first.
  void withKept(size_t number, std::function<void(Napi::Object)> use);

  // Any thread. The work notices when it checks its stop token.
  void cancel() { stop_.request_stop(); }

  // JavaScript thread. Called when the environment ends. Waits for the thread, but not for long.
  void stop() override;

  // Any thread. If JavaScript is slow, it gets only the newest event of each phase instead of a backlog.
  void progress(std::string_view phase, int step, int steps) noexcept;

  // The job's thread. Settles the promise, even if the thread has more to do.
  void deliver(Answer answer, std::exception_ptr error = nullptr);

 private:
  struct Progress {
    std::string phase;
    int step;
    int steps;
  };

  void run(const Work& work);
  void report(Napi::Env env);
  void settle(Napi::Env env, const Answer& answer, const std::exception_ptr& error);

  Environment* environment_;  // null once the environment has ended
  const Napi::Promise::Deferred deferred_;
  Napi::FunctionReference onProgress_;  // used only on the JavaScript thread, as are thrown_ and kept_
  std::vector<Napi::ObjectReference> kept_;
  Napi::Error thrown_;
  const bool reports_;
  std::stop_source stop_;
  std::thread thread_;
  std::mutex mutex_;
  std::condition_variable endedCondition_;
  bool ended_ = false;
  bool held_ = false;               // the thread was still working when the environment ended
  std::vector<Progress> progress_;  // not yet reported
};

}  // namespace node_tensorrt
