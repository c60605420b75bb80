// The sequences that callers hold. Each has a row until it is disposed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <list>
#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

#include "core/generation.h"
#include "core/row_table.h"
#include "core/sequence_state.h"

namespace node_tensorrt {

// Implements DecodeLoop's methods for sequences. The lock that guards the generation guards this too. Work
// that changes rows is queued as a command, which the generation's thread runs between two steps.
class Sequences {
 public:
  // Called when a command has ended; `error` is null if it succeeded.
  using Completion = std::function<void(std::exception_ptr error)>;
  using Saved = std::function<void(EncodedState state, std::exception_ptr error)>;

  explicit Sequences(Generation& generation) : generation_(generation) {}

  size_t size() const noexcept { return sequences_.size(); }
  // Returns a sequence. Throws Error(ERR_DISPOSED) if there is none with this id.
  const std::shared_ptr<Sequence>& find(uint32_t id) const;

  // These work as DecodeLoop's methods do. If one throws, it has changed nothing.
  uint32_t create();
  uint32_t fork(uint32_t id, Completion done);
  void truncate(uint32_t id, size_t length);
  void save(uint32_t id, Saved saved);
  uint32_t restore(std::vector<std::byte> state, Completion done);
  void dispose(uint32_t id);
  void clear();

  bool hasCommands() const noexcept { return !commands_.empty(); }
  // How a command ended, and the callback to tell (may be null).
  struct Outcome {
    Completion done;
    std::exception_ptr error;
  };
  // Runs the next command.
  Outcome runCommand(Lock& lock) noexcept;
  // Forgets all sequences and commands.
  void abandon() noexcept;

 private:
  // Called with the lock held. It may release the lock while it works.
  using Work = std::function<void(Lock& lock)>;
  // The same, for a sequence that has `cached` tokens in the cache.
  using Read = std::function<void(size_t cached, Lock& lock)>;
  struct Command {
    Work work;
    Completion done;
    uint32_t made;  // the sequence that the command creates, which is removed if the work fails; 0: none
  };

  uint32_t add(const std::shared_ptr<Sequence>& sequence);
  void enqueue(Work work, Completion done = nullptr);
  uint32_t enqueueNew(const std::shared_ptr<Sequence>& sequence, Work work, Completion done);
  Work reading(const std::shared_ptr<Sequence>& source, Read read);
  void write(const std::shared_ptr<Sequence>& sequence, std::span<const std::byte> state, Lock& lock);

  Generation& generation_;
  std::unordered_map<uint32_t, std::shared_ptr<Sequence>> sequences_;
  uint32_t last_ = 0;
  std::list<Command> commands_;
};

}  // namespace node_tensorrt
