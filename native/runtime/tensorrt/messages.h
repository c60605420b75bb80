// Collects TensorRT's messages. TensorRT logs to one logger per process, also from threads of its own. Only
// sources that are compiled once per flavour include this: see flavour.h.
#pragma once

#include <algorithm>
#include <initializer_list>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/tensorrt/api.h"

namespace node_tensorrt::tensorrt::NODE_TENSORRT_FLAVOUR {

// A message of TensorRT's or its parser's without what only their authors can use.
std::string readable(std::string_view text);

// `text` as the end of a sentence.
std::string ended(std::string text);

// How many things of one kind an error or a warning lists.
inline constexpr int kListed = 8;

// The first kListed of `texts`, as sentences, and how many more there are.
std::string joined(const std::vector<std::string>& texts);

// The messages of one build. TensorRT logs from threads of its own.
class Messages {
 public:
  void add(nvinfer1::ILogger::Severity severity, std::string_view text) {
    std::lock_guard lock(mutex_);
    std::vector<std::string>& list = severity == nvinfer1::ILogger::Severity::kWARNING ? warnings_ : errors_;
    // A build can repeat one message per layer.
    if (list.size() < kMaxMessages && std::find(list.begin(), list.end(), text) == list.end()) {
      list.emplace_back(text);
    }
  }

  std::vector<std::string> warnings() const {
    std::lock_guard lock(mutex_);
    std::vector<std::string> readableWarnings;
    for (const std::string& warning : warnings_) {
      // Said of every int64 input, whatever the caller does.
      if (warning.find("Make sure input ") == std::string::npos)
        readableWarnings.push_back(readable(warning));
    }
    return readableWarnings;
  }
  std::vector<std::string> errors() const {
    std::lock_guard lock(mutex_);
    return errors_;
  }

  // True if any of these texts is in an error.
  bool hasError(std::initializer_list<std::string_view> parts) const {
    std::lock_guard lock(mutex_);
    return std::any_of(errors_.begin(), errors_.end(), [&](const std::string& error) {
      return std::any_of(parts.begin(), parts.end(),
                         [&](std::string_view part) { return error.find(part) != std::string::npos; });
    });
  }

  // Must be called before another attempt.
  void forgetErrors() {
    std::lock_guard lock(mutex_);
    errors_.clear();
  }

  // "name [operator]" of the node that the parser began last.
  void parsing(std::string_view node) {
    std::lock_guard lock(mutex_);
    node_ = node;
  }
  std::string node() const {
    std::lock_guard lock(mutex_);
    return node_;
  }

 private:
  static constexpr size_t kMaxMessages = 256;
  mutable std::mutex mutex_;
  std::vector<std::string> warnings_;
  std::vector<std::string> errors_;
  std::string node_;
};

// "TensorRT could not load the plan. " and why, as far as it said.
std::string couldNot(const std::string& what, const Messages& messages);

// TensorRT keeps the first logger it is given as its global one for as long as any builder exists, and
// ignores others: there is one, never destroyed, which finds out whose a message is.
class Logger final : public nvinfer1::ILogger {
 public:
  static Logger& instance() {
    static Logger& logger = *new Logger;
    return logger;
  }

  void log(Severity severity, const char* text) noexcept override {
    if (text == nullptr) return;
    try {
      if (severity > Severity::kWARNING) {
        constexpr std::string_view kNode = "Parsing node: ";
        const std::string_view line = text;
        const size_t start = line.find(kNode);
        if (current_ != nullptr && start != std::string_view::npos) {
          current_->parsing(line.substr(start + kNode.size()));
        }
        return;
      }
      if (current_ != nullptr) {
        current_->add(severity, text);
        return;
      }
      // A thread of TensorRT's own: the message is of one of the builds in progress.
      std::lock_guard lock(mutex_);
      for (Messages* messages : listeners_) messages->add(severity, text);
    } catch (...) {
      // Without memory for a message, there is no message.
    }
  }

  // Collects what is logged of the build on this thread, for its own lifetime.
  class Scope {
   public:
    explicit Scope(Messages& messages) : messages_(&messages) {
      Logger& logger = instance();
      std::lock_guard lock(logger.mutex_);
      logger.listeners_.push_back(messages_);
      current_ = messages_;
    }
    Scope(const Scope&) = delete;
    ~Scope() {
      current_ = nullptr;
      Logger& logger = instance();
      std::lock_guard lock(logger.mutex_);
      std::erase(logger.listeners_, messages_);
    }

   private:
    Messages* messages_;
  };

 private:
  inline static thread_local Messages* current_ = nullptr;
  std::mutex mutex_;
  std::vector<Messages*> listeners_;
};

}  // namespace node_tensorrt::tensorrt::NODE_TENSORRT_FLAVOUR
