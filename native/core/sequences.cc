#include "core/sequences.h"

#include <algorithm>
#include <string>
#include <utility>

#include "core/error.h"

namespace node_tensorrt {

const std::shared_ptr<Sequence>& Sequences::find(uint32_t id) const {
  const auto entry = sequences_.find(id);
  if (entry == sequences_.end()) throw Error("ERR_DISPOSED", "The sequence was disposed.");
  return entry->second;
}

uint32_t Sequences::add(const std::shared_ptr<Sequence>& sequence) {
  sequence->held = true;
  sequences_.emplace(last_ + 1, sequence);
  return ++last_;
}

void Sequences::enqueue(Work work, Completion done) {
  commands_.push_back({std::move(work), std::move(done), /*made*/ 0});
}

// Adds a sequence, and enqueues the command that fills it.
uint32_t Sequences::enqueueNew(const std::shared_ptr<Sequence>& sequence, Work work, Completion done) {
  std::list<Command> command;
  command.push_back({std::move(work), std::move(done), last_ + 1});
  const uint32_t id = add(sequence);
  commands_.splice(commands_.end(), command);
  return id;
}

// Returns a command that reads the tokens that the sequence has in the cache now. They are kept until it
// runs. `read` gets the number that are left by then: a step that failed in the meantime may have dropped
// some, or all of them with the row.
Sequences::Work Sequences::reading(const std::shared_ptr<Sequence>& source, Read read) {
  return [this, source, length = source->cached, read = std::move(read)](Lock& lock) {
    source->endPromise();
    const KvCache& cache = generation_.decoder().cache();
    read(source->row ? std::min(length, cache.trusted(*source->row)) : 0, lock);
  };
}

uint32_t Sequences::create() {
  generation_.scheduler().requireRow(size());
  return add(std::make_shared<Sequence>());
}

uint32_t Sequences::fork(uint32_t sequence, Completion done) {
  const std::shared_ptr<Sequence> source = find(sequence);
  generation_.scheduler().requireRow(size());
  // Copies the tokens as they are now. Later changes to the source don't matter: its row, up to this length,
  // is only changed by commands that come later.
  const auto copy = std::make_shared<Sequence>();
  copy->tokens = source->tokens;
  copy->salt = source->salt;
  copy->shared = source->shared;
  auto read = [this, source, copy](size_t cached, Lock& lock) {
    if (cached == 0) return;
    generation_.copy(*source->row, generation_.rows().take(copy), cached, lock);
    copy->cached = cached;
  };
  const uint32_t id = enqueueNew(copy, reading(source, std::move(read)), std::move(done));
  source->promise();
  return id;
}

void Sequences::truncate(uint32_t id, size_t length) {
  const std::shared_ptr<Sequence> target = find(id);
  if (target->request) {
    throw Error("ERR_INVALID_ARG_VALUE",
                "The sequence is generating: wait for that to finish, or cancel it.");
  }
  if (length > target->tokens.size()) {
    throw Error("ERR_INVALID_ARG_VALUE", "The sequence has " + std::to_string(target->tokens.size()) +
                                             " tokens, not " + std::to_string(length) + ".");
  }
  enqueue([this, target](Lock&) {
    // The next prompt will look for its beginning in other rows.
    const bool isIdle = !target->request || !generation_.scheduler().requests().at(*target->request)->placed;
    if (target->cached == 0 && isIdle) generation_.rows().release(*target);
    generation_.rows().noteSurplus();
  });
  target->tokens.resize(length);
  target->cached = std::min(target->cached, length);
}

void Sequences::save(uint32_t id, Saved saved) {
  const std::shared_ptr<Sequence> source = find(id);
  const auto state = std::make_shared<EncodedState>();
  auto read = [this, source, state, tokens = source->tokens](size_t cached, Lock& lock) {
    const Unlocked unlocked(lock);
    KvCache& cache = generation_.decoder().cache();
    const StateFormat format = {generation_.config().fingerprint, cache.bytesPerToken()};
    *state = encodeState(format, tokens, cached, [&](std::byte* to) {
      if (cached > 0) cache.read(*source->row, cached, to);
    });
  };
  enqueue(reading(source, std::move(read)),
          [state, saved = std::move(saved)](std::exception_ptr error) { saved(*state, error); });
  source->promise();
}

uint32_t Sequences::restore(std::vector<std::byte> state, Completion done) {
  generation_.scheduler().requireRow(size());
  const auto sequence = std::make_shared<Sequence>();
  // Its keys and values come from outside and aren't trusted for others.
  sequence->shared = false;
  auto work = [this, sequence, state = std::move(state)](Lock& lock) { write(sequence, state, lock); };
  return enqueueNew(sequence, std::move(work), std::move(done));
}

void Sequences::write(const std::shared_ptr<Sequence>& sequence, std::span<const std::byte> state,
                      Lock& lock) {
  const DecodeLoopConfig& config = generation_.config();
  const Decoder& decoder = generation_.decoder();
  KvCache& cache = generation_.decoder().cache();
  DecodedState decoded;
  {
    const Unlocked unlocked(lock);
    decoded = decodeState({config.fingerprint, cache.bytesPerToken(), decoder.vocabulary()}, state);
    if (!cache.isFinite(decoded.cached, decoded.cache)) {
      throw Error("ERR_STATE_MISMATCH",
                  "The saved sequence can't be restored: some of its keys and values are not finite numbers. "
                  "Give its tokens to a new sequence.");
    }
  }
  if (decoded.tokens.size() > config.maxLength) {
    throw Error("ERR_STATE_MISMATCH", "The saved sequence has " + std::to_string(decoded.tokens.size()) +
                                          " tokens, and a row of the KV cache takes " +
                                          std::to_string(config.maxLength) + " (options.kvCache.maxLength).");
  }
  if (decoded.cached > 0) {
    const size_t row = generation_.rows().take(sequence);
    const Unlocked unlocked(lock);
    cache.write(row, decoded.cached, decoded.cache);
  }
  sequence->tokens = std::move(decoded.tokens);
  sequence->cached = decoded.cached;
}

void Sequences::dispose(uint32_t id) {
  const auto entry = sequences_.find(id);
  if (entry == sequences_.end()) return;
  enqueue([this, disposed = entry->second](Lock&) {
    if (disposed->request) {
      generation_.finish(generation_.scheduler().requests().at(*disposed->request), FinishReason::kCancelled);
    }
    generation_.rows().release(*disposed);
  });
  sequences_.erase(entry);
}

void Sequences::clear() {
  enqueue([this](Lock&) { generation_.rows().releasePrefixes(); });
}

Sequences::Outcome Sequences::runCommand(Lock& lock) noexcept {
  Command command = std::move(commands_.front());
  commands_.pop_front();
  std::exception_ptr error;
  try {
    command.work(lock);
  } catch (...) {
    error = std::current_exception();
    // If it has been disposed in the meantime, a later command releases its row.
    if (const auto made = sequences_.find(command.made); made != sequences_.end()) {
      generation_.rows().release(*made->second);
      sequences_.erase(made);
    }
  }
  return {std::move(command.done), error};
}

void Sequences::abandon() noexcept {
  sequences_.clear();
  commands_.clear();
}

}  // namespace node_tensorrt
