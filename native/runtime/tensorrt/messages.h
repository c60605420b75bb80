// Collects TensorRT's messages and finds the caller they belong to. TensorRT logs to one logger per process,
// also from its own threads. Included only by sources that are compiled once per flavour: see flavour.h.
#pragma once

#include <algorithm>
#include <initializer_list>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/tensorrt/api.h"

namespace node_tensorrt::tensorrt::NODE_TENSORRT_FLAVOUR {

// Returns a message from TensorRT or its parser without the parts that only their developers can use.
std::string readable(std::string_view text);

// Returns `text` with punctuation, so that it ends a sentence.
std::string ended(std::string text);

// How many items of a kind an error or warning lists.
inline constexpr int kListed = 8;

// The first kListed of `texts` as sentences, and how many more there are.
std::string joined(const std::vector<std::string>& texts);

// The messages of one operation, such as a build. Thread-safe, because TensorRT also logs from its own
// threads.
class Messages {
 public:
  void add(nvinfer1::ILogger::Severity severity, std::string_view text) {
    std::lock_guard lock(mutex_);
    std::vector<std::string>& list = severity == nvinfer1::ILogger::Severity::kWARNING ? warnings_ : errors_;
    // A build can repeat the same message for each layer.
    if (list.size() < kMaxMessages && std::find(list.begin(), list.end(), text) == list.end()) {
      list.emplace_back(text);
    }
  }

  std::vector<std::string> warnings() const {
    std::lock_guard lock(mutex_);
    std::vector<std::string> readableWarnings;
    for (const std::string& warning : warnings_) {
      // TensorRT warns about every int64 input, whatever the caller does.
      if (warning.find("Make sure input ") == std::string::npos)
        readableWarnings.push_back(readable(warning));
    }
    return readableWarnings;
  }
  std::vector<std::string> errors() const {
    std::lock_guard lock(mutex_);
    return errors_;
  }

  // True if an error contains any of these texts.
  bool hasError(std::initializer_list<std::string_view> parts) const {
    std::lock_guard lock(mutex_);
    return std::any_of(errors_.begin(), errors_.end(), [&](const std::string& error) {
      return std::any_of(parts.begin(), parts.end(),
                         [&](std::string_view part) { return error.find(part) != std::string::npos; });
    });
  }

  // Call this before another attempt.
  void forgetErrors() {
    std::lock_guard lock(mutex_);
    errors_.clear();
  }

  // Records a line about sparse kernels. TensorRT 10 and 11 log how many layers could use them and how many
  // do.
  void aboutSparsity(std::string_view line) {
    std::lock_guard lock(mutex_);
    if (sparsity_.size() < kMaxMessages) sparsity_.emplace_back(line);
  }
  std::vector<std::string> sparsity() const {
    std::lock_guard lock(mutex_);
    return sparsity_;
  }

  // Records the node that the parser began last, as "name [operator]".
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
  std::vector<std::string> sparsity_;
  std::string node_;
};

// Returns "TensorRT could not load the plan. " and the reasons that TensorRT gave; `what` is "load the plan".
std::string couldNot(const std::string& what, const Messages& messages);

// The only logger. TensorRT keeps the first logger it gets as its global one while any builder exists, and
// ignores others. So there is just this one, which is never destroyed and passes each message on to the
// operation it belongs to.
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
        if (line.find("(Sparsity)") != std::string_view::npos) {
          std::lock_guard lock(mutex_);
          for (Messages* messages : listeners_) {
            if (current_ == nullptr || current_ == messages) messages->aboutSparsity(line);
          }
        }
        return;
      }
      if (current_ != nullptr) {
        current_->add(severity, text);
        return;
      }
      // A thread of TensorRT's own. The message could belong to any build in progress.
      std::lock_guard lock(mutex_);
      for (Messages* messages : listeners_) messages->add(severity, text);
    } catch (...) {
      // Without enough memory, the message is lost.
    }
  }

  // Collects the messages that are logged on this thread while this object lives.
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
