// What the code of one Node environment (the main thread or a worker) shares: the class of its errors, and
// the queue on which asynchronous results reach its JavaScript thread.
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

// An object with native threads. stop() is called on the JavaScript thread when the environment ends. It must
// cancel all work and join the threads, and may be called more than once.
class Stoppable {
 public:
  virtual ~Stoppable() = default;
  virtual void stop() = 0;
};

// One Node environment. Each method says which threads may call it.
class Environment {
 public:
  using Settle = std::function<void(Napi::Env)>;

  static Environment& of(Napi::Env env) { return *env.GetInstanceData<Environment>(); }

  // Creates an Environment and registers it as the environment's instance data.
  static void create(Napi::Env env);
  ~Environment();

  // JavaScript thread. Announces that a result will be posted. The process stays alive until the result is
  // settled.
  void expect(Napi::Env env);

  // JavaScript thread. Ends one expect() without a post().
  void answer(Napi::Env env);

  // Any thread. Runs `settle` on the JavaScript thread, in the order of posting. Each call ends one expect().
  // If the environment is ending, `settle` is dropped.
  void post(Settle settle) { enqueue({std::move(settle), true}); }

  // Any thread. As post(), but ends no expect(): for news about work whose result is still to come.
  void notify(Settle report) { enqueue({std::move(report), false}); }

  // JavaScript thread.
  void add(std::shared_ptr<Stoppable> stoppable) { stoppables_.insert(std::move(stoppable)); }
  void remove(const std::shared_ptr<Stoppable>& stoppable) { stoppables_.erase(stoppable); }

  // JavaScript thread. Locks a folder, and removes it with its contents if the environment ends before
  // disownDirectory(). The folder may not exist yet, or may be left over from a process that was killed. The
  // lock tells others that the folder is in use. Returns false if someone else holds it. Throws
  // Error(ERR_IO).
  bool ownDirectory(const std::string& path);
  void disownDirectory(const std::string& path) { directories_.erase(path); }

  // JavaScript thread. Cancels all work, waits for its threads, and drops what they posted. May be called
  // again.
  void end();

  // Returns a TensorRTError for a native Error. Any other exception becomes ERR_EXECUTION_FAILED.
  Napi::Value toJs(Napi::Env env, std::exception_ptr error) const;

  void setErrorClass(Napi::Function errorClass) { errorClass_ = Napi::Persistent(errorClass); }

  // JavaScript thread. The class from native_bytes.h, for code that creates its objects.
  const Napi::FunctionReference& bytesClass() const { return bytesClass_; }
  void setBytesClass(Napi::Function bytesClass) { bytesClass_ = Napi::Persistent(bytesClass); }

  // JavaScript thread. The class from sparse_mask.h, for code that creates its objects.
  const Napi::FunctionReference& maskClass() const { return maskClass_; }
  void setMaskClass(Napi::Function maskClass) { maskClass_ = Napi::Persistent(maskClass); }

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
  Napi::FunctionReference maskClass_;
};

// Runs `body`, turning native exceptions into JavaScript exceptions.
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
