// Runs a decoder's graph: one step feeds new tokens to rows of the KV cache and leaves their logits.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/kv_cache.h"
#include "core/sampler.h"
#include "runtime/runtime.h"

namespace node_tensorrt {

// lib/base/decoder-graph.ts' DecoderGraph, which says what the roles are.
enum class DecoderInputRole : uint8_t {
  kInputIds,
  kPositionIds,
  kAttentionMask,
  kPastLengths,
  kTotalLengths,
  kLastIndices,
  kLongest,
  kLogitsIndex,
};

struct DecoderGraph {
  struct Input {
    std::string name;
    DecoderInputRole role;
  };
  struct Cache {
    std::string input;
    std::string output;
    size_t kvHeads;
    size_t headDim;
  };
  struct Top {
    std::string logits;
    std::string tokens;
    std::string logSumExp;
  };

  bool inPlace;
  std::vector<Input> inputs;
  std::vector<Cache> caches;
  std::string logits;
  std::optional<Top> top;
};

// One thread at a time, except for cancel().
//
// Where a model prepares work for shapes and addresses (Model::preparesShapes), its steps have few of them:
// all prompts are read in one row, and both their lengths and the number of rows that decode are rounded up.
// Tokens that were read before fill such a step up; what they write lies beyond the rows' lengths.
class Decoder {
 public:
  // `rows` of at most `capacity` tokens, of which a step reads at most `chunkSize`. Throws
  // Error(ERR_MODEL_UNSUPPORTED) where the model is not as the graph says, and Error(ERR_OUT_OF_MEMORY).
  Decoder(std::unique_ptr<Model> model, const DecoderGraph& graph, size_t rows, size_t capacity,
          size_t chunkSize);

  const Model& model() const noexcept { return *model_; }
  KvCache& cache() noexcept { return *cache_; }
  // Can neighbouring rows run together?
  bool batches() const noexcept { return batches_; }
  // The number of tokens in the vocabulary, if the model says it. May be called from any thread.
  std::optional<size_t> vocabulary() const noexcept { return vocabulary_; }

  // The row that prompts must be read in; nothing where they may be read in any.
  std::optional<size_t> promptRow() const noexcept;
  // The number of rows that a step must have to decode this many.
  size_t decodeRows(size_t rows) const noexcept;

  // Reads one token for each of the rows from `first` on, which have `pasts` tokens. The first `rows` of them
  // are one token longer then; the others only fill the step up. Throws Error, or Cancelled after cancel();
  // no row is longer then.
  void decode(size_t first, std::span<const size_t> pasts, std::span<const int32_t> tokens, size_t rows);
  // Reads `tokens` into a row, which has the first `past` of them. Throws likewise.
  void prefill(size_t row, std::span<const int32_t> tokens, size_t past);

  // After the last token of the i-th row of the last step; valid until the next call. `top` is nothing where
  // the graph has no top-k head.
  std::optional<TopLogits> top(size_t i);
  std::span<const float> logits(size_t i);

  // Logits in a row of the last step.
  size_t width() const noexcept { return static_cast<size_t>(outputs_[logits_].shape.back()); }

  // Ends the running step, and all that follow. Any thread.
  void cancel() noexcept { context_->cancel(); }

 private:
  // An input that is not of the cache.
  struct Feed {
    size_t input;
    DecoderInputRole role;
    size_t rank;
    std::shared_ptr<void> memory;
  };

  void expectShapes();
  size_t promptLength(size_t length) const noexcept;
  void run(size_t first, std::span<const size_t> pasts, std::span<const int32_t> tokens, size_t logitsIndex);
  void fill(const Feed& feed, std::span<const size_t> pasts, std::span<const int32_t> tokens);
  template <class Integer>
  void fill(const Feed& feed, std::span<const size_t> pasts, std::span<const int32_t> tokens, Integer* to);

  const std::unique_ptr<Model> model_;
  const std::unique_ptr<ExecutionContext> context_;
  const std::shared_ptr<TensorMemory> memory_;
  const bool batches_;
  const bool hasFewShapes_;
  const size_t capacity_;
  const size_t longestPrompt_;  // of a step
  std::unique_ptr<KvCache> cache_;
  std::vector<Feed> feeds_;
  std::vector<Tensor> inputs_;         // the model's
  std::vector<size_t> outputIndices_;  // the caches', the logits', a top-k head's
  std::vector<Tensor> outputs_;
  size_t logits_ = 0;         // among outputs_
  bool padsPrompts_ = false;  // the graph has an input that says where a prompt ends
  size_t logitsIndex_ = 0;    // which of this step's new tokens the logits are of
  std::vector<int32_t> prompt_;
  bool hasTop_ = false;
  std::optional<size_t> vocabulary_;
  std::vector<float> row_;          // logits that are not floats in host memory
  std::vector<std::byte> fetched_;  // a row from a device
  std::vector<float> topLogits_;
  std::vector<int32_t> topTokens_;
};

}  // namespace node_tensorrt
