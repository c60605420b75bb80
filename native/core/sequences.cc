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
  sequences_.emplace(++last_, sequence);
  return last_;
}

// Enqueues a command that reads the tokens of the sequence that are cached now: `read` gets how many there
// are when it runs. A step that failed meanwhile may have taken some, or all with the row.
void Sequences::enqueueRead(const std::shared_ptr<Sequence>& source, Read read) {
  commands_.push_back([this, source, length = source->cached, read = std::move(read)](Lock& lock) {
    const KvCache& cache = generation_.decoder().cache();
    read(source->row ? std::min(length, cache.trusted(*source->row)) : 0, lock);
    source->endPromise();
  });
  source->promise();
}

uint32_t Sequences::create() {
  generation_.scheduler().requireRow(size());
  return add(std::make_shared<Sequence>());
}

uint32_t Sequences::fork(uint32_t sequence, Completion done) {
  const std::shared_ptr<Sequence> source = find(sequence);
  generation_.scheduler().requireRow(size());
  // As it is now, whatever becomes of the source: its row, up to here, changes only after commands that come
  // later.
  const auto copy = std::make_shared<Sequence>();
  copy->tokens = source->tokens;
  copy->salt = source->salt;
  copy->shared = source->shared;
  const uint32_t id = add(copy);
  enqueueRead(source, [this, id, source, copy, done = std::move(done)](size_t cached, Lock& lock) {
    std::exception_ptr error;
    try {
      if (cached > 0) {
        generation_.copy(*source->row, generation_.rows().take(copy), cached, lock);
        copy->cached = cached;
      }
    } catch (...) {
      error = std::current_exception();
      sequences_.erase(id);
      generation_.rows().release(*copy);
    }
    done(error);
  });
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
  target->tokens.resize(length);
  target->cached = std::min(target->cached, length);
  commands_.push_back([this, target](Lock&) {
    // The next prompt looks for its beginning in other rows.
    const bool isIdle = !target->request || !generation_.scheduler().requests().at(*target->request)->placed;
    if (target->cached == 0 && isIdle) generation_.rows().release(*target);
    generation_.rows().noteSurplus();
  });
}

void Sequences::save(uint32_t id, Saved saved) {
  const std::shared_ptr<Sequence> source = find(id);
  enqueueRead(source,
              [this, source, tokens = source->tokens, saved = std::move(saved)](size_t cached, Lock& lock) {
                const Unlocked unlocked(lock);
                EncodedState state;
                std::exception_ptr error;
                try {
                  KvCache& cache = generation_.decoder().cache();
                  const StateFormat format = {generation_.config().fingerprint, cache.bytesPerToken()};
                  state = encodeState(format, tokens, cached, [&](std::byte* to) {
                    if (cached > 0) cache.read(*source->row, cached, to);
                  });
                } catch (...) {
                  error = std::current_exception();
                }
                saved(std::move(state), error);
              });
}

uint32_t Sequences::restore(std::vector<std::byte> state, Completion done) {
  generation_.scheduler().requireRow(size());
  const auto sequence = std::make_shared<Sequence>();
  // Nobody vouches for its keys and values.
  sequence->shared = false;
  const uint32_t id = add(sequence);
  commands_.push_back([this, id, sequence, state = std::move(state), done = std::move(done)](Lock& lock) {
    std::exception_ptr error;
    try {
      write(sequence, state, lock);
    } catch (...) {
      error = std::current_exception();
      sequences_.erase(id);
      generation_.rows().release(*sequence);
    }
    done(error);
  });
  return id;
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
  commands_.push_back([this, disposed = entry->second](Lock&) {
    try {
      if (disposed->request) {
        generation_.finish(generation_.scheduler().requests().at(*disposed->request),
                           FinishReason::kCancelled);
      }
    } catch (...) {
      generation_.failAll(std::current_exception());
    }
    generation_.rows().release(*disposed);
  });
  sequences_.erase(entry);
}

void Sequences::clear() {
  commands_.push_back([this](Lock&) { generation_.rows().releasePrefixes(); });
}

void Sequences::runCommand(Lock& lock) {
  const Command command = std::move(commands_.front());
  commands_.pop_front();
  command(lock);
}

void Sequences::abandon() {
  sequences_.clear();
  commands_.clear();
}

}  // namespace node_tensorrt
