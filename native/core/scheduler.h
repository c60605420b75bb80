// Decides the order in which requests get rows, how much of their prompts a step reads, and the rows that the
// others decode in. It doesn't deal with threads or the model.
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

// The number of prompt tokens that one step may read. The first prompt in line may use all of it. A later
// prompt may use it only if the rest of that prompt fits.
class PromptBudget {
 public:
  explicit PromptBudget(size_t tokens) noexcept : tokens_(tokens), left_(tokens) {}

  bool isSpent() const noexcept { return left_ == 0; }
  // How many tokens to read now of a prompt with `rest` tokens left to read; nothing if the prompt must wait
  // for the next step.
  std::optional<size_t> share(size_t rest) const noexcept;
  void spend(size_t tokens) noexcept { left_ -= tokens; }

 private:
  size_t tokens_;
  size_t left_;
};

// Moves a sequence from one row to another. A sequence in the target row moves to the source row.
struct RowMove {
  size_t from;
  size_t to;
};

// The queue of requests. The lock that guards the generation guards it too.
class Scheduler {
 public:
  using Requests = std::vector<std::shared_ptr<Request>>;

  // `maxQueue` is how many requests may wait for a row. `chunkSize` is how many prompt tokens a step reads;
  // it reads a quarter of that while other requests are answering.
  Scheduler(size_t rows, size_t maxQueue, size_t chunkSize);

  // Checks that one more sequence can get a row besides the `held` ones that have one. Waiting requests come
  // first. Throws Error(ERR_CACHE_FULL).
  void requireRow(size_t held) const;
  // Checks that one more request may wait for a row. Throws Error(ERR_QUEUE_FULL), or ERR_CACHE_FULL if
  // sequences hold all rows.
  void requirePlace(size_t held) const;

  // Adds a request to the queue. If it throws, it has changed nothing.
  void add(const std::shared_ptr<Request>& request);
  // All requests that haven't ended, by id.
  const std::unordered_map<uint32_t, std::shared_ptr<Request>>& requests() const noexcept {
    return requests_;
  }
  // Marks a request as cancelled, if it hasn't ended.
  void cancel(uint32_t id) noexcept;
  // True if a request was cancelled since the last call.
  bool takeCancels() noexcept;
  // Starts the requests whose turn it is. `held` is the number of rows that sequences hold. A request for a
  // sequence uses that sequence's row.
  void admit(size_t held);
  // Removes a request that has ended.
  void remove(std::shared_ptr<Request> request) noexcept;
  void clear() noexcept;

  bool isIdle() const noexcept { return waiting_.empty() && running_.empty(); }
  size_t waiting() const noexcept { return waiting_.size(); }
  // Number of rows used by requests that don't belong to a caller's sequence.
  size_t occupied() const noexcept { return occupied_; }

  // The budget of the next step.
  PromptBudget promptBudget() const noexcept;
  // The first request in line whose prompt is to be read, or null.
  std::shared_ptr<Request> nextPrompt() const noexcept;
  // Collects the requests that are decoding, in the order in which they began.
  void listDecoding(Requests& decoding) const;

 private:
  size_t freeRows(size_t held) const noexcept;

  const size_t rows_;
  const size_t maxQueue_;
  const size_t chunkSize_;
  std::unordered_map<uint32_t, std::shared_ptr<Request>> requests_;
  std::list<std::shared_ptr<Request>> waiting_;  // in the order in which they will begin
  Requests running_;                             // in the order in which they began
  uint64_t arrivals_ = 0;
  size_t occupied_ = 0;
  bool cancels_ = false;  // a request was cancelled since takeCancels()
};

// Assigns the first rows to the decoding requests. Sorts the requests by their new rows and lists the moves
// that this takes. Requests already in those rows stay; holes are filled with the shortest sequences from the
// rows behind.
void arrange(Scheduler::Requests& decoding, std::vector<RowMove>& moves);

}  // namespace node_tensorrt
