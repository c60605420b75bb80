// Decides whose turn it is: in which order requests get rows, how much of their prompts a step reads, and in
// which rows the others decode. It knows no thread and no model.
#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <memory>
#include <optional>
#include <unordered_map>
#include <vector>

#include "core/request.h"

namespace node_tensorrt {

// How much of a step prompts may take: the first prompt in line takes as much as there is, and the others as
// far as all of their rest fits.
class PromptBudget {
 public:
  explicit PromptBudget(size_t tokens) noexcept : tokens_(tokens), left_(tokens) {}

  bool isSpent() const noexcept { return left_ == 0; }
  // How many of a prompt's `rest` tokens enter the next step; nothing if the prompt must wait.
  std::optional<size_t> share(size_t rest) const noexcept;
  void spend(size_t tokens) noexcept { left_ -= tokens; }

 private:
  size_t tokens_;
  size_t left_;
};

// A sequence moves into another row; whoever lies there moves into the row that it leaves.
struct RowMove {
  size_t from;
  size_t to;
};

class Scheduler {
 public:
  using Requests = std::vector<std::shared_ptr<Request>>;

  // `maxQueue`: requests that wait for a row. `chunkSize`: tokens of prompts a step; a quarter while others
  // answer.
  Scheduler(size_t rows, size_t maxQueue, size_t chunkSize);

  // May one more sequence hold a row, beside `held` that do? Requests that wait come first. Throws
  // Error(ERR_CACHE_FULL).
  void requireRow(size_t held) const;
  // May one more request wait for a row? Throws Error(ERR_QUEUE_FULL), or ERR_CACHE_FULL where sequences hold
  // all rows.
  void requirePlace(size_t held) const;

  // The request waits for its turn. Where this throws, nothing has changed.
  void add(const std::shared_ptr<Request>& request);
  // The requests that haven't ended, by id.
  const std::unordered_map<uint32_t, std::shared_ptr<Request>>& requests() const noexcept {
    return requests_;
  }
  void cancel(uint32_t id) noexcept;
  // Was one of the requests cancelled since this was asked last?
  bool takeCancels() noexcept;
  // Begins the requests whose turn it is, while sequences hold `held` rows. Requests of sequences have rows
  // already.
  void admit(size_t held);
  // After its end.
  void remove(std::shared_ptr<Request> request) noexcept;
  void clear() noexcept;

  bool isIdle() const noexcept { return waiting_.empty() && running_.empty(); }
  size_t waiting() const noexcept { return waiting_.size(); }
  // Rows of requests that belong to no sequence.
  size_t occupied() const noexcept { return occupied_; }

  PromptBudget promptBudget() const noexcept;
  // The first request in line to have its prompt read; null if there is none.
  std::shared_ptr<Request> nextPrompt() const noexcept;
  // Lists those that decode, in the order in which they began.
  void listDecoding(Requests& decoding) const;

 private:
  size_t freeRows(size_t held) const noexcept;

  const size_t rows_;
  const size_t maxQueue_;
  const size_t chunkSize_;
  std::unordered_map<uint32_t, std::shared_ptr<Request>> requests_;
  std::list<std::shared_ptr<Request>> waiting_;  // in the order in which they begin
  Requests running_;                             // in the order in which they began
  uint64_t arrivals_ = 0;
  size_t occupied_ = 0;
  bool cancels_ = false;  // some request is to be cancelled
};

// Sorts requests by the rows that they decode in, which are then the first ones, and lists the moves that
// bring them there. Those that are in place already stay; holes among them take the shortest from behind.
void arrange(Scheduler::Requests& decoding, std::vector<RowMove>& moves);

}  // namespace node_tensorrt
