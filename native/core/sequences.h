// The sequences that callers hold, and what they ask of them: each holds a row until it is disposed of.
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

// The lock that guards the generation guards this too. What changes rows waits as a command, until the
// thread of the generation runs it between two steps.
class Sequences {
 public:
  using Completion = std::function<void(std::exception_ptr error)>;
  using Saved = std::function<void(EncodedState state, std::exception_ptr error)>;

  explicit Sequences(Generation& generation) : generation_(generation) {}

  size_t size() const noexcept { return sequences_.size(); }
  // Throws Error(ERR_DISPOSED).
  const std::shared_ptr<Sequence>& find(uint32_t id) const;

  // All of these as DecodeLoop's. Whatever they throw, all is as before.
  uint32_t create();
  uint32_t fork(uint32_t id, Completion done);
  void truncate(uint32_t id, size_t length);
  void save(uint32_t id, Saved saved);
  uint32_t restore(std::vector<std::byte> state, Completion done);
  void dispose(uint32_t id);
  void clear();

  bool hasCommands() const noexcept { return !commands_.empty(); }
  // The callback that is told, if there is one, that a command has ended, and with which error.
  struct Outcome {
    Completion done;
    std::exception_ptr error;
  };
  // Runs the next command.
  Outcome runCommand(Lock& lock) noexcept;
  // Forgets all sequences and commands.
  void abandon() noexcept;

 private:
  // The lock is held, and may be let go of meanwhile.
  using Work = std::function<void(Lock& lock)>;
  // The same, of a sequence of which so many tokens are cached.
  using Read = std::function<void(size_t cached, Lock& lock)>;
  struct Command {
    Work work;
    Completion done;
    uint32_t made;  // the sequence that is there already, but no longer where the work fails; 0: none
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
