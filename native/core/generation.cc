#include "core/generation.h"

#include <algorithm>
#include <utility>

#include "core/error.h"

namespace node_tensorrt {

Generation::Generation(DecodeLoopConfig config)
    : config_(std::move(config)),
      scheduler_(config_.rows, config_.maxQueue, config_.chunkSize),
      rows_(config_.rows, config_.prefixReuse) {}

void Generation::load(std::unique_ptr<Decoder> decoder) {
  decoder_ = std::move(decoder);
  stats_.bytesReserved = decoder_->cache().bytesReserved();
}

std::unique_ptr<Decoder> Generation::unload() noexcept {
  stats_.bytesReserved = stats_.bytesUsed = 0;
  scheduler_.clear();
  rows_.clear();
  return std::move(decoder_);
}

void Generation::requireTokens(std::span<const int32_t> tokens) const {
  const std::optional<size_t> vocabulary = decoder_->vocabulary();
  if (!vocabulary) return;
  for (const int32_t token : tokens) {
    if (token >= 0 && static_cast<size_t>(token) < *vocabulary) continue;
    throw Error("ERR_INVALID_ARG_VALUE", "The prompt has the token " + std::to_string(token) +
                                             ", and the model those from 0 to " +
                                             std::to_string(*vocabulary - 1) + ".");
  }
}

void Generation::begin(const std::shared_ptr<Request>& request, const std::shared_ptr<Sequence>& sequence,
                       std::span<const int32_t> tokens) {
  const size_t total = sequence->tokens.size() + tokens.size();
  if (total == 0) throw Error("ERR_INVALID_ARG_VALUE", "There is no token to begin with.");
  if (total > config_.maxLength) {
    throw Error("ERR_INVALID_ARG_VALUE", std::to_string(total) + " tokens don't fit into the " +
                                             std::to_string(config_.maxLength) +
                                             " of a row of the KV cache (options.kvCache.maxLength).");
  }
  const std::string& salt = request->options.cacheSalt;
  const bool isNew = sequence->tokens.empty();
  if (isNew) sequence->salt = salt;
  request->sequence = sequence;
  request->before = sequence->tokens.size();
  request->promptTokens = total;
  request->generates = request->options.maxTokens > 0 && total < config_.maxLength;
  sequence->tokens.insert(sequence->tokens.end(), tokens.begin(), tokens.end());
  try {
    scheduler_.add(request);
  } catch (...) {
    sequence->tokens.resize(request->before);
    throw;
  }
  sequence->shared = isNew || (sequence->shared && sequence->salt == salt);
  sequence->request = request->id;
}

void Generation::step(size_t held, Lock& lock) noexcept {
  try {
    dropCancelled();
    scheduler_.admit(held);
    prefill(lock);
    decode(lock);
  } catch (...) {
    failAll(std::current_exception());
  }
  stats_.bytesReserved = decoder_->cache().bytesReserved();
  stats_.bytesUsed = decoder_->cache().bytesUsed();
}

void Generation::dropCancelled() noexcept {
  if (!scheduler_.takeCancels()) return;
  const auto& requests = scheduler_.requests();
  for (auto next = requests.begin(); next != requests.end();) {
    const std::shared_ptr<Request>& request = (next++)->second;
    if (request->cancelled) finish(request, FinishReason::kCancelled);
  }
}

void Generation::prefill(Lock& lock) {
  for (PromptBudget budget = scheduler_.promptBudget(); !budget.isSpent() && !stopping_;) {
    const std::shared_ptr<Request> request = scheduler_.nextPrompt();
    if (!request) return;
    std::optional<SampledToken> sampled;
    try {
      if (!request->placed) place(*request, lock);
      const size_t rest = request->sequence->tokens.size() - request->sequence->cached;
      const std::optional<size_t> count = budget.share(rest);
      if (!count) return;
      if (*count > 0) {
        sampled = read(*request, *count, lock);
        budget.spend(*count);
        if (*count < rest) return;
      }
    } catch (...) {
      if (!stopping_) finish(request, FinishReason::kFailed, std::current_exception());
      continue;
    }
    request->decoding = true;
    if (sampled) {
      accept(request, std::move(*sampled));
    } else {
      finish(request, FinishReason::kLength);
    }
  }
}

// Gives the request a row and reuses what other rows have of its prompt.
void Generation::place(Request& request, Lock& lock) {
  Sequence& sequence = *request.sequence;
  request.placed = true;
  if (!sequence.row) {
    const RowTable::Beginning beginning = rows_.place(request.sequence, decoder_->promptRow());
    if (beginning.length > 0 && beginning.row != *sequence.row) {
      copy(beginning.row, *sequence.row, beginning.length, lock);
    }
    sequence.cached = beginning.length;
    if (beginning.length > 0) ++stats_.hits;
    stats_.cachedTokens += beginning.length;
  }
  if (sequence.cached == sequence.tokens.size() && request.generates) --sequence.cached;
  request.cachedTokens = sequence.cached;
}

// Reads the next `count` tokens of a prompt. If they are the last ones, returns the first token of the
// answer.
std::optional<SampledToken> Generation::read(Request& request, size_t count, Lock& lock) {
  Sequence& sequence = *request.sequence;
  if (const auto row = decoder_->promptRow()) move(*sequence.row, *row, lock);
  const size_t past = sequence.cached;
  const size_t length = past + count;
  std::optional<SampledToken> sampled;
  {
    const Unlocked unlocked(lock);
    decoder_->prefill(*sequence.row, std::span(sequence.tokens).first(length), past);
    const bool isLast = length == sequence.tokens.size();
    if (isLast && request.generates) {
      sampled = sample(request, 0);
    } else if (isLast) {
      // The token drawn is discarded. But a prompt whose logits are unusable must fail here, rather than be
      // kept as the beginning of other prompts.
      Sampler greedy({}, decoder_->width());
      draw(greedy, 0, sequence, {});
    }
  }
  sequence.cached = length;
  ++stats_.prefillSteps;
  stats_.prefilledTokens += count;
  return sampled;
}

void Generation::copy(size_t from, size_t to, size_t length, Lock& lock) {
  const Unlocked unlocked(lock);
  decoder_->cache().copy(from, to, length);
}

// Moves a sequence to another row. A sequence in that row moves to the row that it leaves.
void Generation::move(size_t from, size_t to, Lock& lock) {
  if (from == to) return;
  const size_t length = rows_.kept(from);
  const size_t residentLength = rows_.kept(to);
  {
    const Unlocked unlocked(lock);
    KvCache& cache = decoder_->cache();
    if (residentLength == 0) {
      cache.copy(from, to, length);
    } else if (length == 0) {
      cache.copy(to, from, residentLength);
    } else {
      cache.exchange(from, length, to, residentLength);
    }
  }
  rows_.exchange(from, to);
}

void Generation::decode(Lock& lock) {
  if (stopping_) return;
  scheduler_.listDecoding(batch_);
  try {
    if (decoder_->batches()) {
      arrange(batch_, moves_);
      for (const auto [from, to] : moves_) move(from, to, lock);
    }
  } catch (...) {
    return fail(batch_, std::current_exception());
  }
  const size_t together = decoder_->batches() ? batch_.size() : 1;
  for (size_t first = 0; first < batch_.size() && !stopping_; first += together) {
    decodeRows(std::span(batch_).subspan(first, together), lock);
  }
  batch_.clear();
}

// Runs one step for requests whose rows are adjacent.
void Generation::decodeRows(std::span<const std::shared_ptr<Request>> requests, Lock& lock) {
  pasts_.clear();
  tokens_.clear();
  for (const auto& request : requests) {
    pasts_.push_back(request->sequence->cached);
    tokens_.push_back(request->sequence->tokens.back());
  }
  // Rows that only fill the step up read their last token once more. Its keys and values are written after
  // the row's tokens, where nothing reads them. In a full row they replace the last token's, with the same
  // values.
  for (size_t row = requests.size(); row < decoder_->decodeRows(requests.size()); ++row) {
    const size_t kept = rows_.kept(row);
    pasts_.push_back(std::min(kept, config_.maxLength - 1));
    // If a sequence was truncated in the meantime, its last kept token is unknown. In a full row, that
    // token's place is then in doubt.
    const bool isKnown = kept > 0 && kept == rows_[row]->cached;
    tokens_.push_back(isKnown ? rows_[row]->tokens[kept - 1] : tokens_[0]);
  }
  drawn_.assign(requests.size(), {});
  try {
    const Unlocked unlocked(lock);
    decoder_->decode(*requests[0]->sequence->row, pasts_, tokens_, requests.size());
    for (size_t i = 0; i < requests.size(); ++i) {
      try {
        drawn_[i].sampled = sample(*requests[i], i);
      } catch (...) {
        drawn_[i].error = std::current_exception();
      }
    }
  } catch (...) {
    if (!stopping_) fail(requests, std::current_exception());
    return;
  }
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

// Returns the next token for the request in the i-th row of the last step.
SampledToken Generation::sample(Request& request, size_t i) {
  if (!request.sampler) {
    request.sampler.emplace(request.options.sampling, decoder_->width());
    request.sampler->observe(request.sequence->tokens);
  }
  return draw(*request.sampler, i, *request.sequence, request.bannedTokens());
}

// Draws a token from the logits of the i-th row of the last step, which has read all tokens of `sequence`. If
// a token can be drawn, the logits are finite, and so are the keys and values they depend on.
SampledToken Generation::draw(Sampler& sampler, size_t i, const Sequence& sequence,
                              std::span<const int32_t> banned) {
  std::optional<SampledToken> drawn;
  if (const auto top = decoder_->top(i)) drawn = sampler.sample(*top, banned);
  if (!drawn) drawn = sampler.sample(decoder_->logits(i), banned);
  decoder_->cache().trust(*sequence.row, sequence.tokens.size());
  return std::move(*drawn);
}

// Records a token. If there isn't enough memory for it, the request fails.
void Generation::accept(const std::shared_ptr<Request>& request, SampledToken sampled) noexcept {
  try {
    if (const auto reason = request->append(std::move(sampled), config_.maxLength)) {
      finish(request, *reason);
    } else if (request->hasNews()) {
      events_.push_back(request->news());
    }
  } catch (...) {
    finish(request, FinishReason::kFailed, std::current_exception());
  }
}

void Generation::fail(std::span<const std::shared_ptr<Request>> requests,
                      const std::exception_ptr& error) noexcept {
  for (const auto& request : requests) finish(request, FinishReason::kFailed, error);
}

// Fails all requests, after an exception that any of them could have caused.
void Generation::failAll(const std::exception_ptr& error) noexcept {
  const auto& requests = scheduler_.requests();
  while (!requests.empty()) finish(requests.begin()->second, FinishReason::kFailed, error);
}

void Generation::finish(std::shared_ptr<Request> request, FinishReason reason,
                        std::exception_ptr error) noexcept {
  events_.splice(events_.end(), request->end(reason, std::move(error)));
  reason = events_.back().end->reason;
  scheduler_.remove(request);
  const bool failed = reason == FinishReason::kFailed;
  const bool broke = failed || reason == FinishReason::kCancelled;
  stats_.failed += failed;
  stats_.cancelled += broke && !failed;
  stats_.completed += !broke;

  Sequence& sequence = *request->sequence;
  sequence.request.reset();
  if (failed) forgetDoubtful(sequence);
  if (sequence.held) {
    // The request has produced nothing, so leave the sequence as it was before.
    if (failed || (broke && request->completionTokens == 0)) sequence.tokens.resize(request->before);
    sequence.cached = std::min(sequence.cached, sequence.tokens.size());
    if (sequence.cached == 0) rows_.release(sequence);
  } else {
    rows_.retire(sequence, !failed);
  }
  rows_.noteSurplus();
}

// Drops keys and values that no logits have shown to be finite: they would make other requests fail too.
void Generation::forgetDoubtful(const Sequence& failed) noexcept {
  KvCache& cache = decoder_->cache();
  if (failed.row) cache.distrust(*failed.row);
  for (size_t row = 0; row < rows_.size(); ++row) rows_.forgetDoubtful(row, cache.trusted(row), failed);
}

void Generation::stop() noexcept {
  stopping_ = true;
  if (decoder_) decoder_->cancel();
}

void Generation::rest(Lock& lock) noexcept {
  rows_.clearSurplus();
  KvCache& cache = decoder_->cache();
  for (size_t row = 0; row < rows_.size(); ++row) {
    const size_t needed = rows_.kept(row);
    if (cache.held(row) <= needed) continue;
    try {
      const Unlocked unlocked(lock);
      cache.truncate(row, needed);
    } catch (...) {
      rows_.noteSurplus();  // there isn't enough memory to do it now
    }
  }
  stats_.bytesUsed = cache.bytesUsed();
}

DecodeLoopStats Generation::stats() const noexcept {
  DecodeLoopStats stats = stats_;
  stats.rowsUsed = scheduler_.occupied();
  stats.waiting = scheduler_.waiting();
  stats.active = scheduler_.requests().size() - stats.waiting;
  return stats;
}

}  // namespace node_tensorrt
