#include "core/scheduler.h"

#include <algorithm>
#include <string>
#include <utility>

#include "core/error.h"

namespace node_tensorrt {
namespace {

// While others answer, prompts get this part of a chunk between two steps of those answers. The last chunks
// of a long prompt take longer than the first, and readers notice pauses more than a prompt notices a few
// more steps.
constexpr size_t kShareBesideAnswers = 4;

bool takesRow(const std::shared_ptr<Request>& request) {
  return !request->sequence->held;
}

}  // namespace

std::optional<size_t> PromptBudget::share(size_t rest) const noexcept {
  if (left_ < tokens_ && rest > left_) return std::nullopt;
  return std::min(rest, left_);
}

Scheduler::Scheduler(size_t rows, size_t maxQueue, size_t chunkSize)
    : rows_(rows), maxQueue_(maxQueue), chunkSize_(chunkSize) {
  running_.reserve(rows);
}

size_t Scheduler::freeRows(size_t held) const noexcept {
  return rows_ - std::min(held + occupied_, rows_);
}

void Scheduler::requireRow(size_t held) const {
  const auto waiting = std::count_if(waiting_.begin(), waiting_.end(), takesRow);
  if (held + occupied_ + static_cast<size_t>(waiting) < rows_) return;
  throw Error("ERR_CACHE_FULL", "All " + std::to_string(rows_) +
                                    " rows of the KV cache are in use: dispose of a sequence, wait for a "
                                    "request to finish, or load the model with a larger "
                                    "options.kvCache.maxBatchSize.");
}

void Scheduler::requirePlace(size_t held) const {
  if (held >= rows_) requireRow(held);
  // This many of the waiting requests get a free row in the next step.
  const size_t free = freeRows(held);
  if (waiting_.size() < maxQueue_ + free) return;
  throw Error("ERR_QUEUE_FULL", std::to_string(waiting_.size() - free) +
                                    " requests are waiting already (options.maxQueue): wait for some to "
                                    "finish before starting more.");
}

void Scheduler::add(const std::shared_ptr<Request>& request) {
  std::list<std::shared_ptr<Request>> entry = {request};
  requests_.emplace(request->id, request);
  request->arrival = ++arrivals_;
  const auto behind = std::find_if(waiting_.begin(), waiting_.end(),
                                   [&](const auto& other) { return request->precedes(*other); });
  waiting_.splice(behind, entry);
}

void Scheduler::cancel(uint32_t id) noexcept {
  const auto entry = requests_.find(id);
  if (entry != requests_.end()) entry->second->cancelled = cancels_ = true;
}

bool Scheduler::takeCancels() noexcept {
  return std::exchange(cancels_, false);
}

void Scheduler::admit(size_t held) {
  for (auto next = waiting_.begin(); next != waiting_.end();) {
    const std::shared_ptr<Request> request = *next;
    if (takesRow(request) && freeRows(held) == 0) {
      ++next;
      continue;
    }
    running_.push_back(request);
    occupied_ += takesRow(request);
    next = waiting_.erase(next);
    request->begun = Request::Clock::now();
  }
}

void Scheduler::remove(std::shared_ptr<Request> request) noexcept {
  const auto running = std::find(running_.begin(), running_.end(), request);
  if (running != running_.end()) {
    occupied_ -= takesRow(request);
    running_.erase(running);
  } else {
    waiting_.remove(request);
  }
  requests_.erase(request->id);
}

void Scheduler::clear() noexcept {
  waiting_.clear();
  running_.clear();
  requests_.clear();
  occupied_ = 0;
}

PromptBudget Scheduler::promptBudget() const noexcept {
  const bool othersAnswer =
      std::any_of(running_.begin(), running_.end(), [](const auto& request) { return request->decoding; });
  return PromptBudget(othersAnswer ? std::max<size_t>(chunkSize_ / kShareBesideAnswers, 1) : chunkSize_);
}

std::shared_ptr<Request> Scheduler::nextPrompt() const noexcept {
  std::shared_ptr<Request> first;
  for (const auto& request : running_) {
    if (!request->decoding && (!first || request->precedes(*first))) first = request;
  }
  return first;
}

void Scheduler::listDecoding(Requests& decoding) const {
  decoding.clear();
  for (const auto& request : running_) {
    if (request->decoding) decoding.push_back(request);
  }
}

void arrange(Scheduler::Requests& decoding, std::vector<RowMove>& moves) {
  moves.clear();
  const auto rowOf = [](const std::shared_ptr<Request>& request) { return *request->sequence->row; };
  std::sort(decoding.begin(), decoding.end(),
            [&](const auto& a, const auto& b) { return rowOf(a) < rowOf(b); });
  const auto behind = std::find_if(decoding.begin(), decoding.end(),
                                   [&](const auto& request) { return rowOf(request) >= decoding.size(); });
  std::sort(behind, decoding.end(),
            [](const auto& a, const auto& b) { return a->sequence->cached > b->sequence->cached; });
  for (size_t row = 0; row < decoding.size(); ++row) {
    if (rowOf(decoding[row]) == row) continue;
    moves.push_back({rowOf(decoding.back()), row});
    std::rotate(decoding.begin() + static_cast<ptrdiff_t>(row), decoding.end() - 1, decoding.end());
  }
}

}  // namespace node_tensorrt
