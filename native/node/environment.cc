#include "node/environment.h"

#include <filesystem>
#include <new>
#include <system_error>
#include <utility>

#include "core/error.h"

namespace node_tensorrt {

namespace {

// How often to try to remove a folder.
constexpr int kRemovals = 10;

}  // namespace

void Environment::create(Napi::Env env) {
  env.SetInstanceData<Environment>(new Environment(env));
}

Environment::Environment(Napi::Env env)
    : bridge_(Bridge::New(env, "node-tensorrt", /* unlimited queue */ 0, /* threads */ 1, this)) {
  // An idle addon doesn't keep the process alive; expect() does.
  bridge_.Unref(env);
  // Hooks run in reverse order, so this one joins our threads before the bridge is destroyed.
  env.AddCleanupHook([](Environment* self) { self->end(); }, this);
}

Environment::~Environment() = default;

void Environment::end() {
  {
    std::lock_guard lock(mutex_);
    ended_ = true;
  }
  for (const auto& stoppable : stoppables_) stoppable->stop();
  stoppables_.clear();
  posted_.clear();
  for (const auto& [path, lock] : directories_) {
    std::error_code error;
    // Workers and child processes that are still running may write into a folder while it is emptied.
    for (int attempt = 0; attempt < kRemovals; ++attempt) {
      std::filesystem::remove_all(path, error);
      if (!error) break;
    }
    // The lock's file tells other processes that the folder is to be removed.
    if (error) lock->abandon();
  }
  directories_.clear();
}

bool Environment::ownDirectory(const std::string& path) {
  auto lock = std::make_unique<FileLock>(path + ".lock");
  return lock->tryAcquire() && directories_.emplace(path, std::move(lock)).second;
}

void Environment::expect(Napi::Env env) {
  if (expected_++ == 0) bridge_.Ref(env);
}

void Environment::answer(Napi::Env env) {
  if (--expected_ == 0) bridge_.Unref(env);
}

void Environment::enqueue(Posted posted) {
  std::lock_guard lock(mutex_);
  if (ended_) return;
  posted_.push_back(std::move(posted));
  // One wake-up handles the whole list.
  if (posted_.size() == 1) bridge_.NonBlockingCall();
}

void Environment::drain(Napi::Env env, Napi::Function, Environment* self, void*) {
  if (static_cast<napi_env>(env) == nullptr) return;  // the environment is ending
  std::vector<Posted> posted;
  {
    std::lock_guard lock(self->mutex_);
    posted.swap(self->posted_);
  }
  for (const auto& [call, expected] : posted) {
    Napi::HandleScope scope(env);
    try {
      call(env);
    } catch (const Napi::Error&) {
      // A promise can only fail to settle in a worker that is being terminated.
    }
    if (expected) self->answer(env);
  }
}

Napi::Value Environment::toJs(Napi::Env env, std::exception_ptr error) const {
  const char* code = "ERR_EXECUTION_FAILED";
  std::string message;
  try {
    std::rethrow_exception(std::move(error));
  } catch (const Error& e) {
    code = e.code();
    message = e.what();
  } catch (const std::bad_alloc&) {
    code = "ERR_OUT_OF_MEMORY";
    message = "There is not enough host memory.";
  } catch (const std::exception& e) {
    message = e.what();
  }
  return errorClass_.New({Napi::String::New(env, code), Napi::String::New(env, message)});
}

}  // namespace node_tensorrt
