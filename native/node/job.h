// A piece of work that takes long, such as a build, on a thread of its own.
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

// Until the thread has ended, it and the environment own the job.
class Job final : public Stoppable, public std::enable_shared_from_this<Job> {
 public:
  // The work on the thread: it throws, or delivers an answer.
  using Work = std::function<void(std::stop_token stop, Job& job)>;
  // The answer of a job, from which the JavaScript thread makes its result.
  using Answer = std::function<Napi::Value(Napi::Env)>;

  // `onProgress`: a function that hears of progress(), or anything else for none.
  explicit Job(Napi::Env env, Napi::Value onProgress = {});

  // JavaScript thread. The promise resolves with undefined where the work threw Cancelled.
  Napi::Promise start(Napi::Env env, Work work);

  // Any thread. The work notices when it looks at its stop token.
  void cancel() { stop_.request_stop(); }

  // JavaScript thread: the environment ends. Waits for the thread, but not for long.
  void stop() override;

  // Any thread. A slow JavaScript thread finds one event per phase, the newest, rather than a backlog.
  void progress(std::string_view phase, int step, int steps) noexcept;

  // The job's thread. Settles the promise, whatever the thread still has to do.
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

  Environment* environment_;  // null once it has ended
  const Napi::Promise::Deferred deferred_;
  Napi::FunctionReference onProgress_;  // JavaScript thread only, as is thrown_
  Napi::Error thrown_;
  const bool reports_;
  std::stop_source stop_;
  std::thread thread_;
  std::mutex mutex_;
  std::condition_variable endedCondition_;
  bool ended_ = false;
  bool held_ = false;               // the thread was still at work when the environment ended
  std::vector<Progress> progress_;  // not yet reported
};

}  // namespace node_tensorrt
