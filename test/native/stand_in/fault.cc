#include "fault.h"

#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>
#include <string>
#include <string_view>

namespace {

struct Fault {
  long number = -1;
  long occurrences = 0;
};

constexpr std::string_view kKinds[] = {
    "uninitialized", "query",  "allocation", "pinned",      "lost",      "slow",       "capture",
    "launch",        "kernel", "enqueue",    "deserialize", "truncated", "context",    "build",
    "stuck",         "parse",  "read",       "recapture",   "unaliased", "misaliased", "opening"};

class Faults {
 public:
  static Faults& instance() {
    static Faults& faults = *new Faults;
    return faults;
  }

  void set(const char* list) {
    std::map<std::string, Fault, std::less<>> faults;
    std::string_view rest = list == nullptr ? "" : list;
    while (!rest.empty()) {
      const std::string_view entry = rest.substr(0, rest.find(','));
      rest.remove_prefix(std::min(entry.size() + 1, rest.size()));
      const size_t colon = entry.find(':');
      const std::string_view kind = entry.substr(0, colon);
      bool known = false;
      for (const std::string_view each : kKinds) known |= each == kind;
      if (!known) {
        std::fprintf(stderr, "stand-in: there is no fault \"%.*s\"\n", static_cast<int>(kind.size()),
                     kind.data());
        std::abort();
      }
      const std::string number(colon == std::string_view::npos ? "1" : entry.substr(colon + 1));
      faults[std::string(kind)].number = std::strtol(number.c_str(), nullptr, 10);
    }
    std::lock_guard lock(mutex_);
    faults_ = std::move(faults);
  }

  bool occurs(std::string_view kind) {
    std::lock_guard lock(mutex_);
    const auto fault = faults_.find(kind);
    return fault != faults_.end() && ++fault->second.occurrences == fault->second.number;
  }

  bool holds(std::string_view kind) {
    std::lock_guard lock(mutex_);
    const auto fault = faults_.find(kind);
    return fault != faults_.end() && ++fault->second.occurrences > fault->second.number;
  }

  long count(std::string_view kind) {
    std::lock_guard lock(mutex_);
    const auto fault = faults_.find(kind);
    return fault == faults_.end() ? 0 : fault->second.occurrences;
  }

  long number(std::string_view kind) {
    std::lock_guard lock(mutex_);
    const auto fault = faults_.find(kind);
    return fault == faults_.end() ? -1 : fault->second.number;
  }

 private:
  Faults() { set(std::getenv("STAND_IN_FAULTS")); }

  std::mutex mutex_;
  std::map<std::string, Fault, std::less<>> faults_;
};

}  // namespace

void standInSetFaults(const char* list) {
  Faults::instance().set(list);
}
bool standInFaultOccurs(const char* kind) {
  return Faults::instance().occurs(kind);
}
bool standInFaultHolds(const char* kind) {
  return Faults::instance().holds(kind);
}
long standInFaultCount(const char* kind) {
  return Faults::instance().count(kind);
}
long standInFaultNumber(const char* kind) {
  return Faults::instance().number(kind);
}
