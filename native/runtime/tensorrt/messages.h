// What TensorRT says, and to whom: it logs to one logger per process, also from threads of its own.
// Included only by sources that are compiled once per flavour: see flavour.h.
#pragma once

#include <algorithm>
#include <initializer_list>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/tensorrt/api.h"

namespace node_tensorrt::tensorrt::NODE_TENSORRT_FLAVOUR {

// `line` without the "ModelImporter.cpp:1071: " before it and " In validate at /_src/…/network.cpp:3424" in
// it.
inline std::string withoutSource(std::string line) {
  constexpr std::string_view kSuffix = ".cpp:";
  const size_t colon = line.find(": ");
  const size_t file = line.find(kSuffix);
  if (file != std::string::npos && colon != std::string::npos && file < colon &&
      line.find_first_not_of("0123456789", file + kSuffix.size()) == colon) {
    line.erase(0, colon + 2);
  }
  const size_t place = line.find(" at /_src/");
  const size_t in = line.rfind(" In ", place);
  if (place != std::string::npos && in != std::string::npos) {
    line.erase(in, line.find_first_of(" )", place + 4) - in);
  }
  return line;
}

// A message of TensorRT's or its parser's without what only their authors can use.
inline std::string readable(std::string_view text) {
  std::string lines;
  while (!text.empty()) {
    const size_t end = text.find('\n');
    const std::string_view line = text.substr(0, end);
    text = end == std::string_view::npos ? "" : text.substr(end + 1);
    // What any error adds on a machine without a GPU.
    if (line.empty() || line.find("catchCudaError") != std::string_view::npos) continue;
    if (!lines.empty()) lines += ' ';
    lines += withoutSource(std::string(line));
  }
  return lines;
}

// `text` as the end of a sentence.
inline std::string ended(std::string text) {
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.pop_back();
  if (!text.empty() && text.back() != '.' && text.back() != '!') text += '.';
  return text;
}

inline constexpr int kListed = 8;

inline std::string joined(const std::vector<std::string>& texts) {
  std::string all;
  const size_t listed = std::min<size_t>(texts.size(), kListed);
  for (size_t i = 0; i < listed; ++i) all.append(i > 0 ? " " : "").append(ended(texts[i]));
  if (texts.size() > listed) all += " (" + std::to_string(texts.size() - listed) + " more.)";
  return all;
}

// What one build heard. TensorRT logs from threads of its own.
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

  // Whether any of these texts is in an error.
  bool hasError(std::initializer_list<std::string_view> parts) const {
    std::lock_guard lock(mutex_);
    return std::any_of(errors_.begin(), errors_.end(), [&](const std::string& error) {
      return std::any_of(parts.begin(), parts.end(),
                         [&](std::string_view part) { return error.find(part) != std::string::npos; });
    });
  }

  // To be called before an attempt is made again.
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
inline std::string couldNot(const std::string& what, const Messages& messages) {
  std::vector<std::string> reasons;
  for (const std::string& error : messages.errors()) reasons.push_back(readable(error));
  std::erase(reasons, "");
  return std::string("TensorRT could not ")
      .append(what)
      .append(". ")
      .append(reasons.empty() ? "It gave no reason." : joined(reasons));
}

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
      // Without memory for a message there is none.
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
