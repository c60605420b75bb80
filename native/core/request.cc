#include "core/request.h"

#include <algorithm>
#include <utility>

namespace node_tensorrt {

Request::Request(uint32_t id, GenerateOptions given, std::shared_ptr<const TokenPieces> pieces)
    : id(id), options(std::move(given)), text(std::move(pieces), options.stop), end_(1) {}

bool Request::precedes(const Request& other) const noexcept {
  if (options.priority != other.options.priority) return options.priority > other.options.priority;
  return arrival < other.arrival;
}

std::span<const int32_t> Request::bannedTokens() const noexcept {
  if (completionTokens >= options.minTokens) return {};
  return options.stopTokens;
}

std::optional<FinishReason> Request::append(SampledToken sampled, size_t maxLength) {
  const auto& stopTokens = options.stopTokens;
  if (std::find(stopTokens.begin(), stopTokens.end(), sampled.token) != stopTokens.end()) {
    return FinishReason::kStop;
  }
  if (!firstToken) firstToken = Clock::now();
  sequence->tokens.push_back(sampled.token);
  ++completionTokens;
  TextStream::Progress progress = text.append(sampled.token);
  untold.push_back({std::move(sampled), std::move(progress.text)});
  if (progress.stopped) {
    stopped = true;
    return FinishReason::kStop;
  }
  const bool isFull = completionTokens == options.maxTokens || sequence->tokens.size() == maxLength;
  if (isFull) return FinishReason::kLength;
  return std::nullopt;
}

GenerationEvent Request::news() {
  return {id, std::exchange(untold, {}), std::nullopt};
}

std::list<GenerationEvent> Request::end(FinishReason reason, std::exception_ptr error) noexcept {
  const Clock::time_point now = Clock::now();
  const auto since = [&](Clock::time_point point) {
    return std::chrono::duration<double, std::milli>(point - arrived).count();
  };
  std::string rest;
  try {
    if (!stopped) rest = text.finish();
  } catch (...) {
    reason = FinishReason::kFailed;
    if (!error) error = std::current_exception();
  }
  end_.front() = {id, std::move(untold),
                  GenerationEnd{.reason = reason,
                                .text = std::move(rest),
                                .error = std::move(error),
                                .promptTokens = promptTokens,
                                .cachedTokens = cachedTokens,
                                .completionTokens = completionTokens,
                                .queueMs = since(begun.value_or(now)),
                                .firstTokenMs = since(firstToken.value_or(now)),
                                .totalMs = since(now)}};
  return std::move(end_);
}

}  // namespace node_tensorrt
