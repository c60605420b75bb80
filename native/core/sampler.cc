#include "core/sampler.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "core/error.h"

namespace node_tensorrt {

Sampler::Sampler(SamplingOptions options, size_t vocabulary)
    : options_(std::move(options)), vocabulary_(vocabulary) {
  for (const auto& [token, bias] : options_.logitBias) {
    if (token < 0 || static_cast<size_t>(token) >= vocabulary_) {
      throw Error("ERR_INVALID_ARG_VALUE", "options.logitBias names token " + std::to_string(token) +
                                               ", and the model's are 0 to " +
                                               std::to_string(vocabulary_ - 1));
    }
  }
}

void Sampler::observe(std::span<const int32_t>) {}

SampledToken Sampler::sample(std::span<const float> logits, std::span<const int32_t> banned) {
  std::vector<float> row(logits.begin(), logits.end());
  for (const int32_t token : banned) row.at(static_cast<size_t>(token)) = -INFINITY;
  SampledToken sampled;
  sampled.token = static_cast<int32_t>(std::max_element(row.begin(), row.end()) - row.begin());
  return sampled;
}

std::optional<SampledToken> Sampler::sample(const TopLogits&, std::span<const int32_t>) {
  return std::nullopt;
}

}  // namespace node_tensorrt
