// The state that one Node environment (the main thread or a worker) shares: the class of its errors, and the
// bridge on which every asynchronous result reaches its JavaScript thread.
#pragma once

#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "core/file_lock.h"
#include "node/napi_setup.h"

namespace node_tensorrt {

// Something with native threads. stop() is called on the JavaScript thread when the environment ends, must
// cancel all work and join the threads, and may be called more than once.
class Stoppable {
 public:
  virtual ~Stoppable() = default;
  virtual void stop() = 0;
};

class Environment {
 public:
  using Settle = std::function<void(Napi::Env)>;

  static Environment& of(Napi::Env env) { return *env.GetInstanceData<Environment>(); }

  // Registers itself as the environment's instance data.
  static void create(Napi::Env env);
  ~Environment();

  // JavaScript thread. Announces a result that will be posted: the process stays alive until it has been
  // settled.
  void expect(Napi::Env env);

  // JavaScript thread. Answers one expect() without a post().
  void answer(Napi::Env env);

  // Any thread. Runs `settle` on the JavaScript thread, in the order of posting. Each call answers one
  // expect(). Dropped, unrun, when the environment is ending.
  void post(Settle settle) { enqueue({std::move(settle), true}); }

  // Like post(), but it doesn't answer an expect(): for news of work whose result is still to be posted.
  void notify(Settle report) { enqueue({std::move(report), false}); }

  // JavaScript thread.
  void add(std::shared_ptr<Stoppable> stoppable) { stoppables_.insert(std::move(stoppable)); }
  void remove(const std::shared_ptr<Stoppable>& stoppable) { stoppables_.erase(stoppable); }

  // JavaScript thread. A folder to remove, with what is in it, should the environment end before it is
  // disowned: one to be made, or one that a process which was killed has left. Until then its lock is held,
  // so that others can tell that it is in use. False where another holds it. Throws Error(ERR_IO).
  bool ownDirectory(const std::string& path);
  void disownDirectory(const std::string& path) { directories_.erase(path); }

  // JavaScript thread. Abandons all work, waits for its threads, and drops what they posted. May be called
  // again.
  void end();

  // A TensorRTError, for a native Error; any other exception becomes ERR_EXECUTION_FAILED.
  Napi::Value toJs(Napi::Env env, std::exception_ptr error) const;

  void setErrorClass(Napi::Function errorClass) { errorClass_ = Napi::Persistent(errorClass); }

  // JavaScript thread. native_bytes.h's class, for what makes one of it.
  const Napi::FunctionReference& bytesClass() const { return bytesClass_; }
  void setBytesClass(Napi::Function bytesClass) { bytesClass_ = Napi::Persistent(bytesClass); }

 private:
  struct Posted {
    Settle call;
    bool expected;
  };

  explicit Environment(Napi::Env env);
  void enqueue(Posted posted);
  static void drain(Napi::Env env, Napi::Function, Environment* self, void*);

  using Bridge = Napi::TypedThreadSafeFunction<Environment, void, &Environment::drain>;

  Bridge bridge_;
  std::mutex mutex_;
  std::vector<Posted> posted_;
  bool ended_ = false;
  size_t expected_ = 0;  // JavaScript thread only
  std::set<std::shared_ptr<Stoppable>> stoppables_;
  std::map<std::string, std::unique_ptr<FileLock>> directories_;
  Napi::FunctionReference errorClass_;
  Napi::FunctionReference bytesClass_;
};

// Runs `body`, turning native errors into JavaScript exceptions.
template <class Body>
auto guarded(Napi::Env env, Body body) -> decltype(body()) {
  std::exception_ptr error;
  try {
    return body();
  } catch (const Napi::Error&) {
    throw;
  } catch (...) {
    error = std::current_exception();
  }
  throw Napi::Error(env, Environment::of(env).toJs(env, error));
}

}  // namespace node_tensorrt
