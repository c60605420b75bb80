#include "core/decode_loop.h"

#include <chrono>
#include <memory>
#include <string>
#include <system_error>
#include <utility>

#include "core/error.h"
#include "core/host_memory.h"

namespace node_tensorrt {
namespace {

using Clock = Request::Clock;

// How long a freed row keeps its memory: a request that comes before then finds the memory warm.
constexpr std::chrono::seconds kRest(1);

// How long to wait before calling a callback again that ran out of memory.
constexpr std::chrono::milliseconds kPause(10);

}  // namespace

DecodeLoop::DecodeLoop(DecodeLoopConfig config, Listener listener)
    : listener_(std::move(listener)), generation_(std::move(config)), sequences_(generation_) {}

DecodeLoop::~DecodeLoop() {
  stop();
}

void DecodeLoop::start(LoadModel load, Completion loaded) {
  try {
    thread_ = std::thread([this, load = std::move(load), loaded = std::move(loaded)]() mutable {
      serve(std::move(load), std::move(loaded));
    });
  } catch (const std::system_error& error) {
    throw Error("ERR_OUT_OF_MEMORY",
                std::string("The system has no thread left for the model (") + error.code().message() + ").");
  }
}

void DecodeLoop::requireOpen() const {
  if (closing_) throw Error("ERR_DISPOSED", "The model was disposed.");
}

void DecodeLoop::generate(uint32_t id, uint32_t sequence, std::span<const int32_t> tokens,
                          GenerateOptions options) {
  const auto request = std::make_shared<Request>(id, std::move(options), generation_.config().pieces);
  const Lock lock(mutex_);
  requireOpen();
  generation_.requireTokens(tokens);
  std::shared_ptr<Sequence> target;
  if (sequence != 0) {
    target = sequences_.find(sequence);
    if (target->request) {
      throw Error("ERR_INVALID_ARG_VALUE", "The sequence is generating already: wait for that to finish.");
    }
  } else {
    generation_.scheduler().requirePlace(sequences_.size());
    target = std::make_shared<Sequence>();
  }
  generation_.begin(request, target, tokens);
  wake_.notify_one();
}

void DecodeLoop::cancel(uint32_t id) {
  const Lock lock(mutex_);
  generation_.scheduler().cancel(id);
}

uint32_t DecodeLoop::createSequence() {
  const Lock lock(mutex_);
  requireOpen();
  return sequences_.create();
}

uint32_t DecodeLoop::fork(uint32_t sequence, Completion done) {
  const Lock lock(mutex_);
  requireOpen();
  const uint32_t id = sequences_.fork(sequence, std::move(done));
  wake_.notify_one();
  return id;
}

void DecodeLoop::truncate(uint32_t sequence, size_t length) {
  const Lock lock(mutex_);
  requireOpen();
  sequences_.truncate(sequence, length);
  wake_.notify_one();
}

std::vector<int32_t> DecodeLoop::sequenceTokens(uint32_t sequence) {
  const Lock lock(mutex_);
  return sequences_.find(sequence)->tokens;
}

size_t DecodeLoop::sequenceLength(uint32_t sequence) {
  const Lock lock(mutex_);
  return sequences_.find(sequence)->tokens.size();
}

void DecodeLoop::save(uint32_t sequence, Saved saved) {
  const Lock lock(mutex_);
  requireOpen();
  sequences_.save(sequence, std::move(saved));
  wake_.notify_one();
}

uint32_t DecodeLoop::restore(std::vector<std::byte> state, Completion done) {
  const Lock lock(mutex_);
  requireOpen();
  const uint32_t id = sequences_.restore(std::move(state), std::move(done));
  wake_.notify_one();
  return id;
}

void DecodeLoop::disposeSequence(uint32_t sequence) {
  const Lock lock(mutex_);
  sequences_.dispose(sequence);
  wake_.notify_one();
}

void DecodeLoop::clear() {
  const Lock lock(mutex_);
  sequences_.clear();
  wake_.notify_one();
}

DecodeLoopStats DecodeLoop::stats() {
  const Lock lock(mutex_);
  DecodeLoopStats stats = generation_.stats();
  stats.rowsUsed += sequences_.size();
  return stats;
}

std::optional<DeviceStats> DecodeLoop::deviceStats() {
  const Lock lock(mutex_);
  if (!generation_.isLoaded()) return std::nullopt;
  return model().deviceStats();
}

void DecodeLoop::close(Completion closed) {
  {
    const Lock lock(mutex_);
    closing_ = true;
    closed_ = std::move(closed);
  }
  wake_.notify_one();
}

void DecodeLoop::stop() {
  stopLoading();
  {
    const Lock lock(mutex_);
    closing_ = stopping_ = true;
    generation_.stop();
  }
  wake_.notify_one();
  if (thread_.joinable()) thread_.join();
}

void DecodeLoop::serve(LoadModel load, Completion loaded) {
  std::exception_ptr failure;
  try {
    const DecodeLoopConfig& config = generation_.config();
    auto decoder = std::make_unique<Decoder>(load(loading_.get_token()), config.graph, config.rows,
                                             config.maxLength, config.chunkSize);
    const Lock lock(mutex_);
    generation_.load(std::move(decoder));
  } catch (...) {
    failure = std::current_exception();
  }
  load = nullptr;
  trimHostMemory();  // loading read the weights and then copied them into the layout for computing

  Lock lock(mutex_);
  tell(lock, [&] { loaded(failure); });
  loaded = nullptr;
  if (!failure) loop(lock);
  closing_ = true;
  sequences_.abandon();
  std::unique_ptr<Decoder> decoder = generation_.unload();
  {
    const Unlocked unlocked(lock);
    decoder.reset();
    // A model's many small blocks lie scattered in the heap of this thread.
    trimHostMemory();
  }
  if (closed_) tell(lock, [this] { closed_(nullptr); });
}

void DecodeLoop::loop(Lock& lock) {
  for (;;) {
    awaitWork(lock);
    while (!stopping_ && sequences_.hasCommands()) {
      const Sequences::Outcome outcome = sequences_.runCommand(lock);
      if (outcome.done) tell(lock, [&] { outcome.done(outcome.error); });
    }
    if (stopping_) return;
    generation_.step(sequences_.size(), lock);
    publish(lock);
    if (stopping_) return;
    if (closing_ && generation_.scheduler().isIdle() && !sequences_.hasCommands()) return;
    if (restAt_ && Clock::now() >= *restAt_) {
      restAt_.reset();
      generation_.rest(lock);
    }
  }
}

void DecodeLoop::awaitWork(Lock& lock) {
  const auto hasWork = [this] {
    return closing_ || sequences_.hasCommands() || !generation_.scheduler().isIdle();
  };
  if (!restAt_ && generation_.rows().hasSurplus()) restAt_ = Clock::now() + kRest;
  if (restAt_) {
    wake_.wait_until(lock, *restAt_, hasWork);
  } else {
    wake_.wait(lock, hasWork);
  }
}

void DecodeLoop::publish(Lock& lock) {
  std::list<GenerationEvent> events = generation_.takeEvents();
  if (!events.empty()) tell(lock, [&] { listener_(events); });
}

// Calls back without holding the lock.
template <class Callback>
void DecodeLoop::tell(Lock& lock, const Callback& callback) {
  const auto isTold = [&] {
    const Unlocked unlocked(lock);
    try {
      callback();
      return true;
    } catch (...) {
      return false;
    }
  };
  while (!isTold() && !stopping_) {
    wake_.wait_for(lock, kPause, [this] { return stopping_; });
  }
}

}  // namespace node_tensorrt
