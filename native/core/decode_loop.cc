#include "core/decode_loop.h"

#include <algorithm>
#include <string>
#include <system_error>
#include <utility>

#include "core/error.h"
#include "core/host_memory.h"

namespace node_tensorrt {

struct DecodeLoop::Sequence {
  std::vector<int32_t> tokens;
  size_t cached = 0;          // of them, in the row; 0 without one
  size_t promised = 0;        // tokens that were cached when a fork or save was asked for that still waits
  size_t promises = 0;        // forks and saves that wait
  std::optional<size_t> row;  // the thread's
  std::string salt;
  bool shared = true;          // with requests of its salt, as far as it is cached
  bool held = false;           // by a caller's handle
  Request* request = nullptr;  // that generates into it
  uint64_t used = 0;           // when last, counted by uses_; the thread's

  bool isPrefix() const { return !held && request == nullptr; }
  // Tokens whose keys and values the row must keep: a sequence may be cut while a fork of it waits.
  size_t kept() const { return std::max(cached, promised); }
};

struct DecodeLoop::Request {
  Request(uint32_t id, GenerateOptions given, const DecodeLoopConfig& config)
      : id(id), options(std::move(given)), text(config.pieces, options.stop) {}

  const uint32_t id;
  const GenerateOptions options;
  TextStream text;
  std::optional<Sampler> sampler;  // from the first token on
  uint64_t arrival = 0;
  std::shared_ptr<Sequence> sequence;
  size_t before = 0;  // tokens of the sequence
  size_t promptTokens = 0;
  size_t cachedTokens = 0;
  size_t completionTokens = 0;
  bool placed = false;    // has a row
  bool decoding = false;  // the prompt was read
  bool cancelled = false;
  bool stopped = false;    // by a stop string
  bool generates = false;  // has room for a token
  std::vector<GeneratedToken> untold;
  Clock::time_point arrived;
  Clock::time_point begun;
  Clock::time_point firstToken;

  // Who goes first.
  bool precedes(const Request& other) const {
    if (options.priority != other.options.priority) return options.priority > other.options.priority;
    return arrival < other.arrival;
  }
};

namespace {

// What a row held is given back after that long: until then the next one has its memory warm.
constexpr std::chrono::seconds kRest(1);

// While others answer, prompts get this part of a chunk between two of their steps: the last chunks of a long
// prompt take longer than the first, and readers notice pauses more than a prompt notices a few more steps.
constexpr size_t kShareBesideAnswers = 4;

size_t commonPrefix(std::span<const int32_t> a, std::span<const int32_t> b) {
  const size_t limit = std::min(a.size(), b.size());
  return static_cast<size_t>(std::mismatch(a.begin(), a.begin() + limit, b.begin()).first - a.begin());
}

}  // namespace

DecodeLoop::DecodeLoop(DecodeLoopConfig config, Listener listener)
    : config_(std::move(config)), listener_(std::move(listener)), rows_(config_.rows) {}

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

void DecodeLoop::requireRow() const {
  // Requests that wait come first.
  const auto waits = [](const std::shared_ptr<Request>& request) { return !request->sequence->held; };
  const size_t waiting = static_cast<size_t>(std::count_if(waiting_.begin(), waiting_.end(), waits));
  if (sequences_.size() + occupied_ + waiting < config_.rows) return;
  throw Error("ERR_CACHE_FULL", "All " + std::to_string(config_.rows) +
                                    " rows of the KV cache are in use: dispose of a sequence, wait for a "
                                    "request to finish, or load the model with a larger "
                                    "options.kvCache.maxBatchSize.");
}

std::shared_ptr<DecodeLoop::Sequence> DecodeLoop::find(uint32_t sequence) const {
  const auto entry = sequences_.find(sequence);
  if (entry == sequences_.end()) throw Error("ERR_DISPOSED", "The sequence was disposed.");
  return entry->second;
}

// Enqueues a command that reads the tokens of the sequence that are cached now: `read` gets how many there
// are when it runs. A step that failed meanwhile may have taken some, or all with the row.
void DecodeLoop::enqueueRead(const std::shared_ptr<Sequence>& source, Read read) {
  enqueue([this, source, length = source->cached, read = std::move(read)](Lock& lock) {
    read(source->row ? std::min(length, decoder_->cache().trusted(*source->row)) : 0, lock);
    if (--source->promises == 0) source->promised = 0;
  });
  source->promised = source->kept();
  ++source->promises;
}

void DecodeLoop::enqueue(Command command) {
  commands_.push_back(std::move(command));
  wake_.notify_one();
}

void DecodeLoop::generate(uint32_t id, uint32_t sequence, std::span<const int32_t> tokens,
                          GenerateOptions options) {
  auto request = std::make_shared<Request>(id, std::move(options), config_);
  request->arrived = Clock::now();
  Lock lock(mutex_);
  requireOpen();
  if (const auto vocabulary = decoder_->vocabulary()) {
    for (const int32_t token : tokens) {
      if (token < 0 || static_cast<size_t>(token) >= *vocabulary) {
        throw Error("ERR_INVALID_ARG_VALUE", "The prompt has the token " + std::to_string(token) +
                                                 ", and the model those from 0 to " +
                                                 std::to_string(*vocabulary - 1) + ".");
      }
    }
  }
  std::shared_ptr<Sequence> target;
  if (sequence != 0) {
    target = find(sequence);
    if (target->request != nullptr) {
      throw Error("ERR_INVALID_ARG_VALUE", "The sequence is generating already: wait for that to finish.");
    }
  } else {
    if (sequences_.size() >= config_.rows) requireRow();
    const size_t free =
        config_.rows - sequences_.size() - std::min(occupied_, config_.rows - sequences_.size());
    if (waiting_.size() >= config_.maxQueue + free) {
      // Of those that wait, so many get a free row in the next step.
      throw Error("ERR_QUEUE_FULL", std::to_string(waiting_.size() - free) +
                                        " requests are waiting already (options.maxQueue): wait for some to "
                                        "finish before starting more.");
    }
    target = std::make_shared<Sequence>();
  }
  const size_t total = target->tokens.size() + tokens.size();
  if (total == 0) throw Error("ERR_INVALID_ARG_VALUE", "There is no token to begin with.");
  if (total > config_.maxLength) {
    throw Error("ERR_INVALID_ARG_VALUE", std::to_string(total) + " tokens don't fit into the " +
                                             std::to_string(config_.maxLength) +
                                             " of a row of the KV cache (options.kvCache.maxLength).");
  }
  if (target->tokens.empty()) {
    target->salt = request->options.cacheSalt;
    target->shared = true;
  } else if (target->salt != request->options.cacheSalt) {
    target->shared = false;
  }
  request->before = target->tokens.size();
  target->tokens.insert(target->tokens.end(), tokens.begin(), tokens.end());
  target->request = request.get();
  request->sequence = std::move(target);
  request->promptTokens = total;
  request->generates = request->options.maxTokens > 0 && total < config_.maxLength;
  request->arrival = ++arrivals_;
  requests_[id] = request;
  const auto behind = std::find_if(waiting_.begin(), waiting_.end(),
                                   [&](const auto& other) { return request->precedes(*other); });
  waiting_.insert(behind, std::move(request));
  wake_.notify_one();
}

void DecodeLoop::cancel(uint32_t id) {
  Lock lock(mutex_);
  const auto entry = requests_.find(id);
  if (entry != requests_.end()) entry->second->cancelled = cancels_ = true;
}

uint32_t DecodeLoop::createSequence() {
  Lock lock(mutex_);
  requireOpen();
  requireRow();
  const auto sequence = std::make_shared<Sequence>();
  sequence->held = true;
  sequences_.emplace(++lastSequence_, sequence);
  return lastSequence_;
}

uint32_t DecodeLoop::fork(uint32_t sequence, Completion done) {
  Lock lock(mutex_);
  requireOpen();
  const std::shared_ptr<Sequence> source = find(sequence);
  requireRow();
  // As it is now, whatever becomes of the source: its row, up to here, changes only after commands that come
  // later.
  const auto copy = std::make_shared<Sequence>();
  copy->tokens = source->tokens;
  copy->salt = source->salt;
  copy->shared = source->shared;
  copy->held = true;
  const uint32_t id = ++lastSequence_;
  sequences_.emplace(id, copy);
  enqueueRead(source, [this, id, source, copy, done = std::move(done)](size_t cached, Lock& lock) {
    std::exception_ptr error;
    try {
      if (cached > 0) {
        const size_t row = takeRow();
        rows_[row] = copy;
        copy->row = row;
        lock.unlock();
        decoder_->cache().copy(*source->row, row, cached);
        lock.lock();
        copy->cached = cached;
      }
    } catch (...) {
      error = std::current_exception();
      if (!lock.owns_lock()) lock.lock();
      sequences_.erase(id);
      release(*copy);
    }
    done(error);
  });
  return id;
}

void DecodeLoop::truncate(uint32_t sequence, size_t length) {
  Lock lock(mutex_);
  requireOpen();
  const std::shared_ptr<Sequence> target = find(sequence);
  if (target->request != nullptr) {
    throw Error("ERR_INVALID_ARG_VALUE",
                "The sequence is generating: wait for that to finish, or cancel it.");
  }
  if (length > target->tokens.size()) {
    throw Error("ERR_INVALID_ARG_VALUE", "The sequence has " + std::to_string(target->tokens.size()) +
                                             " tokens, not " + std::to_string(length) + ".");
  }
  target->tokens.resize(length);
  target->cached = std::min(target->cached, length);
  enqueue([this, target](Lock&) {
    // The next prompt looks for its beginning in other rows.
    const bool isIdle = target->request == nullptr || !target->request->placed;
    if (target->cached == 0 && isIdle) release(*target);
    restLater();
  });
}

std::vector<int32_t> DecodeLoop::sequenceTokens(uint32_t sequence) {
  Lock lock(mutex_);
  return find(sequence)->tokens;
}

size_t DecodeLoop::sequenceLength(uint32_t sequence) {
  Lock lock(mutex_);
  return find(sequence)->tokens.size();
}

void DecodeLoop::save(uint32_t sequence, Saved saved) {
  Lock lock(mutex_);
  requireOpen();
  const std::shared_ptr<Sequence> source = find(sequence);
  enqueueRead(source, [this, source, tokens = source->tokens, saved = std::move(saved)](size_t cached,
                                                                                        Lock& lock) {
    lock.unlock();
    EncodedState state;
    std::exception_ptr error;
    try {
      KvCache& cache = decoder_->cache();
      state = encodeState({config_.fingerprint, cache.bytesPerToken()}, tokens, cached, [&](std::byte* to) {
        if (cached > 0) cache.read(*source->row, cached, to);
      });
    } catch (...) {
      error = std::current_exception();
    }
    saved(std::move(state), error);
    lock.lock();
  });
}

uint32_t DecodeLoop::restore(std::vector<std::byte> state, Completion done) {
  Lock lock(mutex_);
  requireOpen();
  requireRow();
  const auto sequence = std::make_shared<Sequence>();
  sequence->held = true;
  // Nobody vouches for its keys and values.
  sequence->shared = false;
  const uint32_t id = ++lastSequence_;
  sequences_.emplace(id, sequence);
  enqueue([this, id, sequence, state = std::move(state), done = std::move(done)](Lock& lock) {
    std::exception_ptr error;
    try {
      KvCache& cache = decoder_->cache();
      lock.unlock();
      DecodedState decoded =
          decodeState({config_.fingerprint, cache.bytesPerToken(), decoder_->vocabulary()}, state);
      if (!cache.isFinite(decoded.cached, decoded.cache)) {
        throw Error(
            "ERR_STATE_MISMATCH",
            "The saved sequence can't be restored: some of its keys and values are not finite numbers. "
            "Give its tokens to a new sequence.");
      }
      lock.lock();
      if (decoded.tokens.size() > config_.maxLength) {
        throw Error("ERR_STATE_MISMATCH", "The saved sequence has " + std::to_string(decoded.tokens.size()) +
                                              " tokens, and a row of the KV cache takes " +
                                              std::to_string(config_.maxLength) +
                                              " (options.kvCache.maxLength).");
      }
      if (decoded.cached > 0) {
        const size_t row = takeRow();
        rows_[row] = sequence;
        sequence->row = row;
        lock.unlock();
        cache.write(row, decoded.cached, decoded.cache);
        lock.lock();
      }
      sequence->tokens = std::move(decoded.tokens);
      sequence->cached = decoded.cached;
    } catch (...) {
      error = std::current_exception();
      if (!lock.owns_lock()) lock.lock();
      sequences_.erase(id);
      release(*sequence);
    }
    done(error);
  });
  return id;
}

void DecodeLoop::disposeSequence(uint32_t sequence) {
  Lock lock(mutex_);
  const auto entry = sequences_.find(sequence);
  if (entry == sequences_.end()) return;
  enqueue([this, disposed = entry->second](Lock&) {
    try {
      if (disposed->request != nullptr) {
        finish(requests_.at(disposed->request->id), FinishReason::kCancelled);
      }
    } catch (...) {
      failAll(std::current_exception());
    }
    release(*disposed);
  });
  sequences_.erase(entry);
}

void DecodeLoop::clear() {
  Lock lock(mutex_);
  enqueue([this](Lock&) {
    for (size_t row = 0; row < rows_.size(); ++row) {
      const std::shared_ptr<Sequence> resident = rows_[row];
      if (resident && resident->isPrefix()) release(*resident);
    }
  });
}

DecodeLoopStats DecodeLoop::stats() {
  Lock lock(mutex_);
  DecodeLoopStats stats = stats_;
  stats.rowsUsed = sequences_.size() + occupied_;
  stats.waiting = waiting_.size();
  stats.active = requests_.size() - waiting_.size();
  return stats;
}

std::optional<DeviceStats> DecodeLoop::deviceStats() {
  Lock lock(mutex_);
  if (!decoder_) return std::nullopt;
  return model().deviceStats();
}

void DecodeLoop::close(Completion closed) {
  {
    Lock lock(mutex_);
    closing_ = true;
    closed_ = std::move(closed);
  }
  wake_.notify_one();
}

void DecodeLoop::stop() {
  stopLoading();
  {
    Lock lock(mutex_);
    closing_ = stopping_ = true;
    if (decoder_) decoder_->cancel();
  }
  wake_.notify_one();
  if (thread_.joinable()) thread_.join();
}

void DecodeLoop::serve(LoadModel load, Completion loaded) {
  std::exception_ptr failure;
  try {
    auto decoder = std::make_unique<Decoder>(load(loading_.get_token()), config_.graph, config_.rows,
                                             config_.maxLength, config_.chunkSize);
    Lock lock(mutex_);
    decoder_ = std::move(decoder);
    stats_.bytesReserved = decoder_->cache().bytesReserved();
  } catch (...) {
    failure = std::current_exception();
  }
  load = nullptr;
  trimHostMemory();  // weights were read before they were laid out for computing
  std::exchange(loaded, nullptr)(failure);

  Lock lock(mutex_);
  if (!failure) loop(lock);
  closing_ = true;
  std::unique_ptr<Decoder> decoder = std::move(decoder_);
  stats_.bytesReserved = stats_.bytesUsed = 0;
  Completion closed = std::move(closed_);
  const auto commands = std::exchange(commands_, {});
  waiting_.clear();
  requests_.clear();
  sequences_.clear();
  lock.unlock();
  running_.clear();
  rows_.clear();
  decoder.reset();
  // A model's many small blocks lie between others, in the heap of this thread.
  trimHostMemory();
  if (closed) closed(nullptr);
}

void DecodeLoop::loop(Lock& lock) {
  for (;;) {
    const auto hasWork = [this] {
      return closing_ || !commands_.empty() || !waiting_.empty() || !running_.empty();
    };
    if (restAt_) {
      wake_.wait_until(lock, *restAt_, hasWork);
    } else {
      wake_.wait(lock, hasWork);
    }
    while (!stopping_ && !commands_.empty()) {
      const Command command = std::move(commands_.front());
      commands_.pop_front();
      command(lock);
    }
    if (stopping_) return;
    try {
      dropCancelled();
      admit();
      prefill(lock);
      decode(lock);
    } catch (...) {
      if (!lock.owns_lock()) lock.lock();
      failAll(std::current_exception());
    }
    publish(lock);
    if (stopping_) return;
    if (closing_ && running_.empty() && waiting_.empty() && commands_.empty()) return;
    if (restAt_ && Clock::now() >= *restAt_) rest(lock);
  }
}

void DecodeLoop::dropCancelled() {
  if (!std::exchange(cancels_, false)) return;
  for (auto next = requests_.begin(); next != requests_.end();) {
    const std::shared_ptr<Request> request = (next++)->second;
    if (request->cancelled) finish(request, FinishReason::kCancelled);
  }
}

// Those whose turn it is, while there are rows; those of sequences have theirs.
void DecodeLoop::admit() {
  for (auto next = waiting_.begin(); next != waiting_.end();) {
    const std::shared_ptr<Request> request = *next;
    const bool takesRow = !request->sequence->held;
    if (takesRow && sequences_.size() + occupied_ >= config_.rows) {
      ++next;
      continue;
    }
    running_.push_back(request);
    occupied_ += takesRow;
    next = waiting_.erase(next);
    request->begun = Clock::now();
  }
}

// A row that nobody needs: the preferred one, another free one, else that of the prefix that was of no use
// for the longest time. Whoever lies in the preferred row will have to move into the row that this returns:
// one at the end, where nothing disturbs it, unless it is about to decode.
size_t DecodeLoop::takeRow(std::optional<size_t> preferred) {
  if (preferred && !rows_[*preferred]) return *preferred;
  const bool takesLast = preferred && rows_[*preferred]->request == nullptr;
  std::optional<size_t> free;
  std::shared_ptr<Sequence> oldest;
  for (size_t row = 0; row < rows_.size(); ++row) {
    const std::shared_ptr<Sequence>& resident = rows_[row];
    if (!resident) {
      if (!free || takesLast) free = row;
    } else if (resident->isPrefix() && (!oldest || resident->used < oldest->used)) {
      oldest = resident;
    }
  }
  if (free) return *free;
  if (!oldest) throw Error("ERR_CACHE_FULL", "All rows of the KV cache are in use.");
  const size_t row = *oldest->row;
  release(*oldest);
  return row;
}

void DecodeLoop::restLater() {
  if (!restAt_) restAt_ = Clock::now() + kRest;
}

// Empties its row.
void DecodeLoop::release(Sequence& sequence) {
  restLater();
  sequence.cached = 0;
  if (sequence.row) rows_[*std::exchange(sequence.row, std::nullopt)] = nullptr;
}

// Finds a row, and in others what can be saved of reading the prompt.
void DecodeLoop::place(Request& request, Lock& lock) {
  Sequence& sequence = *request.sequence;
  request.placed = true;
  if (!sequence.row) {
    std::shared_ptr<Sequence> source;
    size_t length = 0;
    for (const std::shared_ptr<Sequence>& resident : rows_) {
      if (!config_.prefixReuse || !sequence.shared || !resident || !resident->shared ||
          resident->salt != sequence.salt) {
        continue;
      }
      // The last token is always read again: its logits choose the next one.
      const size_t limit = std::min(resident->cached, sequence.tokens.size() - 1);
      const size_t common = commonPrefix(std::span(resident->tokens).first(limit), sequence.tokens);
      const bool isWhole = resident->isPrefix() && common == resident->cached;
      if (common > length || (common == length && length > 0 && isWhole)) {
        source = resident;
        length = common;
      }
    }
    std::optional<size_t> from;
    if (source) {
      source->used = ++uses_;
      from = *source->row;
      // In place where nothing of it is lost.
      if (source->isPrefix() && source->cached == length) release(*source);
    }
    const size_t row = source && !source->row ? *from : takeRow(decoder_->promptRow());
    rows_[row] = request.sequence;
    sequence.row = row;
    if (from && *from != row) {
      lock.unlock();
      decoder_->cache().copy(*from, row, length);
      lock.lock();
    }
    sequence.cached = length;
    if (length > 0) ++stats_.hits;
    stats_.cachedTokens += length;
  }
  if (sequence.cached == sequence.tokens.size() && request.generates) --sequence.cached;
  request.cachedTokens = sequence.cached;
}

// One chunk of prompts, or a part of one while others answer: of the first in line, and of others as far as
// their whole rest fits in.
void DecodeLoop::prefill(Lock& lock) {
  const bool othersAnswer =
      std::any_of(running_.begin(), running_.end(), [](const auto& request) { return request->decoding; });
  const size_t chunk =
      othersAnswer ? std::max<size_t>(config_.chunkSize / kShareBesideAnswers, 1) : config_.chunkSize;
  for (size_t budget = chunk; budget > 0 && !stopping_;) {
    std::shared_ptr<Request> request;
    for (const auto& each : running_) {
      if (!each->decoding && (!request || each->precedes(*request))) request = each;
    }
    if (!request) return;
    Sequence& sequence = *request->sequence;
    std::optional<SampledToken> sampled;
    try {
      if (!request->placed) place(*request, lock);
      const size_t past = sequence.cached;
      const size_t rest = sequence.tokens.size() - past;
      if (budget < chunk && rest > budget) return;
      const size_t count = std::min(rest, budget);
      if (count > 0) {
        const bool isLast = count == rest;
        if (const auto row = decoder_->promptRow()) move(request->sequence, *row, lock);
        lock.unlock();
        decoder_->prefill(*sequence.row, std::span(sequence.tokens).first(past + count), past);
        if (isLast && request->generates) {
          sampled = sample(*request, 0);
        } else if (isLast) {
          // What it draws is of no use, but that it can: a prompt that gives no logits is no beginning.
          Sampler greedy({}, decoder_->width());
          draw(greedy, 0, sequence, {});
        }
        lock.lock();
        sequence.cached += count;
        ++stats_.prefillSteps;
        stats_.prefilledTokens += count;
        budget -= count;
        if (!isLast) return;
      }
    } catch (...) {
      if (!lock.owns_lock()) lock.lock();
      if (!stopping_) finish(request, FinishReason::kFailed, std::current_exception());
      continue;
    }
    request->decoding = true;
    if (!sampled) {
      finish(request, FinishReason::kLength);
    } else {
      accept(request, std::move(*sampled));
    }
  }
}

// Moves a sequence into another row. Whoever lies there moves into the row that it leaves.
void DecodeLoop::move(const std::shared_ptr<Sequence>& sequence, size_t to, Lock& lock) {
  const size_t from = *sequence->row;
  if (from == to) return;
  const std::shared_ptr<Sequence> resident = rows_[to];
  const size_t length = sequence->kept();
  const size_t residentLength = resident ? resident->kept() : 0;
  KvCache& cache = decoder_->cache();
  lock.unlock();
  if (residentLength == 0) {
    cache.copy(from, to, length);
  } else if (length == 0) {
    cache.copy(to, from, residentLength);
  } else {
    cache.exchange(from, length, to, residentLength);
  }
  lock.lock();
  rows_[to] = sequence;
  sequence->row = to;
  rows_[from] = resident;
  if (resident) resident->row = from;
}

// Moves the sequences that decode into the first rows, and lists them in batch_.
void DecodeLoop::arrange(Lock& lock) {
  batch_.clear();
  for (const auto& request : running_) {
    if (request->decoding) batch_.push_back(request);
  }
  if (!decoder_->batches()) return;
  const auto rowOf = [](const std::shared_ptr<Request>& request) { return *request->sequence->row; };
  std::sort(batch_.begin(), batch_.end(), [&](const auto& a, const auto& b) { return rowOf(a) < rowOf(b); });
  // Those that are in place already stay; holes among them take the shortest from behind.
  const auto behind = std::find_if(batch_.begin(), batch_.end(),
                                   [&](const auto& request) { return rowOf(request) >= batch_.size(); });
  std::sort(behind, batch_.end(),
            [](const auto& a, const auto& b) { return a->sequence->cached > b->sequence->cached; });
  std::vector<bool> taken(batch_.size());
  for (auto request = batch_.begin(); request != behind; ++request) taken[rowOf(*request)] = true;
  for (size_t hole = 0; hole < taken.size(); ++hole) {
    if (taken[hole]) continue;
    move(batch_.back()->sequence, hole, lock);
    std::rotate(batch_.begin() + hole, batch_.end() - 1, batch_.end());
  }
}

void DecodeLoop::decode(Lock& lock) {
  if (stopping_) return;
  try {
    arrange(lock);
  } catch (...) {
    if (!lock.owns_lock()) lock.lock();
    return fail(batch_, std::current_exception());
  }
  const size_t together = decoder_->batches() ? batch_.size() : 1;
  for (size_t first = 0; first < batch_.size() && !stopping_; first += together) {
    decodeRows(std::span(batch_).subspan(first, together), lock);
  }
  batch_.clear();
}

// One step of requests whose rows lie side by side.
void DecodeLoop::decodeRows(std::span<const std::shared_ptr<Request>> requests, Lock& lock) {
  pasts_.clear();
  tokens_.clear();
  for (const auto& request : requests) {
    pasts_.push_back(request->sequence->cached);
    tokens_.push_back(request->sequence->tokens.back());
  }
  // The rows that fill the step up read their last token once more. Its keys and values go behind what the
  // row holds, where nobody looks; in a full row they take their own place, with the same numbers.
  for (size_t row = requests.size(); row < decoder_->decodeRows(requests.size()); ++row) {
    const Sequence* resident = rows_[row].get();
    const size_t kept = resident ? resident->kept() : 0;
    pasts_.push_back(std::min(kept, config_.maxLength - 1));
    // The last token of a sequence that was cut meanwhile is unknown: in a full row its place is then in
    // doubt.
    tokens_.push_back(kept > 0 && kept == resident->cached ? resident->tokens[kept - 1] : tokens_[0]);
  }
  drawn_.assign(requests.size(), {});
  lock.unlock();
  try {
    decoder_->decode(*requests[0]->sequence->row, pasts_, tokens_, requests.size());
  } catch (...) {
    lock.lock();
    if (!stopping_) fail(requests, std::current_exception());
    return;
  }
  for (size_t i = 0; i < requests.size(); ++i) {
    try {
      drawn_[i].sampled = sample(*requests[i], i);
    } catch (...) {
      drawn_[i].error = std::current_exception();
    }
  }
  lock.lock();
  ++stats_.decodeSteps;
  stats_.decodedRows += requests.size();
  for (size_t i = 0; i < requests.size(); ++i) {
    ++requests[i]->sequence->cached;
    if (drawn_[i].error) {
      finish(requests[i], FinishReason::kFailed, drawn_[i].error);
    } else {
      accept(requests[i], std::move(drawn_[i].sampled));
    }
  }
}

// The next token of the request in the i-th row of the last step.
SampledToken DecodeLoop::sample(Request& request, size_t i) {
  if (!request.sampler) {
    request.sampler.emplace(request.options.sampling, decoder_->width());
    request.sampler->observe(request.sequence->tokens);
  }
  std::span<const int32_t> banned;
  if (request.completionTokens < request.options.minTokens) banned = request.options.stopTokens;
  return draw(*request.sampler, i, *request.sequence, banned);
}

// A token from the logits of the i-th row of the last step, which has read all tokens of that sequence. They
// are finite where one can be drawn, and so is all that they follow from.
SampledToken DecodeLoop::draw(Sampler& sampler, size_t i, const Sequence& sequence,
                              std::span<const int32_t> banned) {
  std::optional<SampledToken> drawn;
  if (const auto top = decoder_->top(i)) drawn = sampler.sample(*top, banned);
  if (!drawn) drawn = sampler.sample(decoder_->logits(i), banned);
  decoder_->cache().trust(*sequence.row, sequence.tokens.size());
  return std::move(*drawn);
}

// Fails the request where there is no memory for its token.
void DecodeLoop::accept(const std::shared_ptr<Request>& request, SampledToken sampled) {
  try {
    add(request, std::move(sampled));
  } catch (...) {
    finish(request, FinishReason::kFailed, std::current_exception());
  }
}

void DecodeLoop::add(const std::shared_ptr<Request>& request, SampledToken sampled) {
  if (request->completionTokens == 0) request->firstToken = Clock::now();
  const auto& stopTokens = request->options.stopTokens;
  if (std::find(stopTokens.begin(), stopTokens.end(), sampled.token) != stopTokens.end()) {
    return finish(request, FinishReason::kStop);
  }
  std::vector<int32_t>& tokens = request->sequence->tokens;
  tokens.push_back(sampled.token);
  ++request->completionTokens;
  TextStream::Progress progress = request->text.append(sampled.token);
  request->untold.push_back({std::move(sampled), std::move(progress.text)});
  if (progress.stopped) {
    request->stopped = true;
    finish(request, FinishReason::kStop);
  } else if (request->completionTokens == request->options.maxTokens || tokens.size() == config_.maxLength) {
    finish(request, FinishReason::kLength);
  } else if (request->options.stream && !request->text.holdsBack()) {
    // Whoever shows text as it comes must get all of it with some token: one whose text is not decided waits.
    events_.push_back({request->id, std::exchange(request->untold, {}), std::nullopt});
  }
}

void DecodeLoop::fail(std::span<const std::shared_ptr<Request>> requests, const std::exception_ptr& error) {
  for (const auto& request : requests) finish(request, FinishReason::kFailed, error);
}

// After an exception that could be any request's.
void DecodeLoop::failAll(const std::exception_ptr& error) {
  while (!requests_.empty()) {
    const std::shared_ptr<Request> request = requests_.begin()->second;
    finish(request, FinishReason::kFailed, error);
  }
}

// Where that throws, the request goes on.
void DecodeLoop::finish(const std::shared_ptr<Request>& request, FinishReason reason,
                        std::exception_ptr error) {
  const auto now = Clock::now();
  const auto since = [&](Clock::time_point point) {
    return std::chrono::duration<double, std::milli>(point - request->arrived).count();
  };
  const auto running = std::find(running_.begin(), running_.end(), request);
  const bool ran = running != running_.end();
  std::string rest = request->stopped ? "" : request->text.finish();
  events_.push_back(
      {request->id, std::move(request->untold),
       GenerationEnd{.reason = reason,
                     .text = std::move(rest),
                     .error = std::move(error),
                     .promptTokens = request->promptTokens,
                     .cachedTokens = request->cachedTokens,
                     .completionTokens = request->completionTokens,
                     .queueMs = since(ran ? request->begun : now),
                     .firstTokenMs = since(request->completionTokens > 0 ? request->firstToken : now),
                     .totalMs = since(now)}});
  if (ran) {
    running_.erase(running);
  } else {
    waiting_.remove(request);
  }
  const bool broke = reason == FinishReason::kFailed || reason == FinishReason::kCancelled;
  stats_.failed += reason == FinishReason::kFailed;
  stats_.cancelled += reason == FinishReason::kCancelled;
  stats_.completed += !broke;

  Sequence& sequence = *request->sequence;
  sequence.request = nullptr;
  const bool failed = reason == FinishReason::kFailed;
  if (failed) forgetDoubtful(sequence);
  if (sequence.held) {
    // Nothing came of it: as if it had not been.
    if (failed || (broke && request->completionTokens == 0)) sequence.tokens.resize(request->before);
    sequence.cached = std::min(sequence.cached, sequence.tokens.size());
    if (sequence.cached == 0) release(sequence);
  } else {
    occupied_ -= ran;
    sequence.tokens.resize(sequence.cached);
    sequence.used = ++uses_;
    if (!config_.prefixReuse || failed || sequence.cached == 0) release(sequence);
  }
  restLater();
  requests_.erase(request->id);
}

// Gives up the keys and values that no logits vouch for, which would fail others too: those of the sequence
// whose request failed, and of prefixes, which it may have begun with.
void DecodeLoop::forgetDoubtful(Sequence& failed) {
  if (failed.row) decoder_->cache().distrust(*failed.row);
  for (size_t row = 0; row < rows_.size(); ++row) {
    const std::shared_ptr<Sequence> resident = rows_[row];
    if (!resident || (resident.get() != &failed && !resident->isPrefix())) continue;
    resident->cached = std::min(resident->cached, decoder_->cache().trusted(row));
    if (resident->isPrefix() && resident->cached == 0) release(*resident);
  }
}

void DecodeLoop::publish(Lock& lock) {
  stats_.bytesReserved = decoder_->cache().bytesReserved();
  stats_.bytesUsed = decoder_->cache().bytesUsed();
  if (events_.empty()) return;
  lock.unlock();
  listener_(std::exchange(events_, {}));
  lock.lock();
}

// Gives back memory that no sequence and no prefix needs.
void DecodeLoop::rest(Lock& lock) {
  restAt_.reset();
  KvCache& cache = decoder_->cache();
  for (size_t row = 0; row < rows_.size(); ++row) {
    const size_t needed = rows_[row] ? rows_[row]->kept() : 0;
    if (cache.held(row) <= needed) continue;
    lock.unlock();
    try {
      cache.truncate(row, needed);
    } catch (...) {
      restLater();  // there is no memory to do it with
    }
    lock.lock();
  }
  stats_.bytesUsed = cache.bytesUsed();
}

}  // namespace node_tensorrt
