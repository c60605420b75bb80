// Generates text for many requests at once, on a thread of its own: prompts enter in chunks between decode
// steps, finished rows are filled again at once, and what was read stays in the cache for prompts that begin
// alike.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <list>
#include <mutex>
#include <optional>
#include <span>
#include <stop_token>
#include <thread>
#include <vector>

#include "core/generation.h"
#include "core/sequences.h"
#include "runtime/runtime.h"

namespace node_tensorrt {

// Any thread may call; whatever a call throws, all is as before. The loop's own thread calls back. An
// exception on it, std::bad_alloc too, is the error of the requests concerned. A callback may throw where it
// has no memory for what it passes on, and has done nothing: it is called again, until it has or the loop is
// stopped.
class DecodeLoop {
 public:
  using Completion = Sequences::Completion;
  using Saved = Sequences::Saved;
  // The events of a step, in order. It may take them out of the list.
  using Listener = std::function<void(std::list<GenerationEvent>& events)>;

  DecodeLoop(DecodeLoopConfig config, Listener listener);
  ~DecodeLoop();  // as stop()

  // Starts the thread, which loads the model and reports to `loaded`. Call once.
  void start(LoadModel load, Completion loaded);
  // Makes a load in progress end soon, with Cancelled. No effect later.
  void stopLoading() { loading_.request_stop(); }
  // After a successful load, until the loop is closed. Everything below needs one.
  const Model& model() const { return generation_.decoder().model(); }

  // Begins a request: `sequence` 0 is a prompt of its own, which waits for a row; else `tokens`, which may be
  // none, go to that sequence. Throws Error: ERR_QUEUE_FULL, ERR_CACHE_FULL (sequences hold all rows),
  // ERR_DISPOSED, ERR_INVALID_ARG_VALUE.
  void generate(uint32_t id, uint32_t sequence, std::span<const int32_t> tokens, GenerateOptions options);
  // Makes it finish as cancelled, after the step in progress at the latest. No effect once it has finished.
  void cancel(uint32_t id);

  // Sequences hold a row each until they are disposed. Throws Error(ERR_CACHE_FULL, ERR_DISPOSED).
  uint32_t createSequence();
  // `done` when it can be used. Throws Error(ERR_CACHE_FULL, ERR_DISPOSED).
  uint32_t fork(uint32_t sequence, Completion done);
  // Throws Error(ERR_INVALID_ARG_VALUE) where it is shorter, or generates.
  void truncate(uint32_t sequence, size_t length);
  std::vector<int32_t> sequenceTokens(uint32_t sequence);
  size_t sequenceLength(uint32_t sequence);
  void save(uint32_t sequence, Saved saved);
  // Like fork(). `done` hears of ERR_STATE_MISMATCH.
  uint32_t restore(std::vector<std::byte> state, Completion done);
  // Cancels what it generates.
  void disposeSequence(uint32_t sequence);

  // Forgets all prefixes that no sequence or request holds.
  void clear();
  DecodeLoopStats stats();
  // The memory that the model takes on a device while it is loaded; nothing for a model in host memory.
  std::optional<DeviceStats> deviceStats();

  // Nothing more is accepted; what was is finished, then the model is freed and `closed` called.
  void close(Completion closed);
  // Abandons everything and joins the thread. Idempotent. Blocks for at most about one operator of a step.
  void stop();

 private:
  void serve(LoadModel load, Completion loaded);
  void loop(Lock& lock);
  void awaitWork(Lock& lock);
  void publish(Lock& lock);
  template <class Callback>
  void tell(Lock& lock, const Callback& callback);
  void requireOpen() const;

  const Listener listener_;
  std::stop_source loading_;
  std::thread thread_;

  // All that follows is guarded.
  std::mutex mutex_;
  std::condition_variable wake_;
  Generation generation_;
  Sequences sequences_;
  bool closing_ = false;
  bool stopping_ = false;
  Completion closed_;
  std::optional<Request::Clock::time_point> restAt_;  // when memory that nobody needs is given back
};

}  // namespace node_tensorrt
