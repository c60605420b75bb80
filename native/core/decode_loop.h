// Generates text for many requests at once, on a thread of its own. Prompts are read in chunks between decode
// steps, a row is reused as soon as its request finishes, and the cache keeps what was read for later prompts
// that begin with the same tokens.
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

// All methods may be called from any thread. If a method throws, it has changed nothing. Callbacks are called
// on the loop's own thread. An exception on that thread, including std::bad_alloc, becomes the error of the
// requests that it affects. A callback may throw if it runs out of memory before it has done anything: it is
// then called again until it succeeds or the loop is stopped.
class DecodeLoop {
 public:
  using Completion = Sequences::Completion;
  using Saved = Sequences::Saved;
  // Receives the events of one step, in order. It may move them out of the list.
  using Listener = std::function<void(std::list<GenerationEvent>& events)>;

  DecodeLoop(DecodeLoopConfig config, Listener listener);
  ~DecodeLoop();  // calls stop()

  // Starts the thread, which loads the model and reports to `loaded`. Call once.
  void start(LoadModel load, Completion loaded);
  // Cancels a load that is in progress: it soon ends with Cancelled. Does nothing after that.
  void stopLoading() { loading_.request_stop(); }
  // Valid from a successful load until the loop is closed. All methods below need a loaded model.
  const Model& model() const { return generation_.decoder().model(); }

  // Starts a request. If `sequence` is 0, `tokens` is a new prompt, which waits for a row. Otherwise
  // `tokens`, which may be empty, is appended to that sequence. Throws Error with ERR_QUEUE_FULL,
  // ERR_CACHE_FULL (sequences hold all rows), ERR_DISPOSED or ERR_INVALID_ARG_VALUE.
  void generate(uint32_t id, uint32_t sequence, std::span<const int32_t> tokens, GenerateOptions options);
  // Cancels a request, which ends after the running step at the latest. Does nothing if the request has
  // ended.
  void cancel(uint32_t id);

  // Creates an empty sequence, which holds a row until it is disposed. Throws Error(ERR_CACHE_FULL,
  // ERR_DISPOSED).
  uint32_t createSequence();
  // Creates a copy of a sequence and calls `done` when the copy can be used. Throws Error(ERR_CACHE_FULL,
  // ERR_DISPOSED).
  uint32_t fork(uint32_t sequence, Completion done);
  // Shortens a sequence to `length` tokens. Throws Error(ERR_INVALID_ARG_VALUE) if it is shorter than that or
  // is generating.
  void truncate(uint32_t sequence, size_t length);
  // The sequence's tokens, and how many there are. Both throw Error(ERR_DISPOSED).
  std::vector<int32_t> sequenceTokens(uint32_t sequence);
  size_t sequenceLength(uint32_t sequence);
  // Passes the sequence's state to `saved`, encoded by encodeState().
  void save(uint32_t sequence, Saved saved);
  // Creates a sequence from a saved state and calls `done` when it can be used, with ERR_STATE_MISMATCH if
  // the state doesn't fit this model. Throws as fork() does.
  uint32_t restore(std::vector<std::byte> state, Completion done);
  // Disposes a sequence and cancels the request that generates into it.
  void disposeSequence(uint32_t sequence);

  // Removes all prefixes that no sequence or request uses.
  void clear();
  DecodeLoopStats stats();
  // Memory that the loaded model uses on its device; nothing for a model in host memory.
  std::optional<DeviceStats> deviceStats();

  // Accepts no more requests, finishes those accepted, frees the model and calls `closed`.
  void close(Completion closed);
  // Abandons all requests and joins the thread. May be called again. Blocks for at most about one operator of
  // a step.
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

  // mutex_ guards everything below.
  std::mutex mutex_;
  std::condition_variable wake_;
  Generation generation_;
  Sequences sequences_;
  bool closing_ = false;
  bool stopping_ = false;
  Completion closed_;
  std::optional<Request::Clock::time_point> restAt_;  // when to give back unneeded memory
};

}  // namespace node_tensorrt
