// Runs a decoder's graph. One step feeds new tokens to rows of the KV cache and computes their logits.
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

// The roles of a decoder's inputs. lib/base/decoder-graph.ts (DecoderGraph) explains them.
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

// The names and sizes of a decoder's inputs, outputs and caches. Mirrors DecoderGraph in
// lib/base/decoder-graph.ts.
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

// Runs one model's steps on one KV cache. One thread at a time may call it, but any thread may call cancel().
//
// If the model prepares work for each shape and address (Model::preparesShapes), its steps use few of them:
// all prompts are read in one row, and prompt lengths and row counts are rounded up. Tokens that were read
// before fill a step up. What they write lies beyond the rows' lengths.
class Decoder {
 public:
  // Creates a cache of `rows` rows with at most `capacity` tokens each. A step reads at most `chunkSize`
  // tokens of a prompt. Throws Error(ERR_MODEL_UNSUPPORTED) if the model differs from its graph, and
  // Error(ERR_OUT_OF_MEMORY).
  Decoder(std::unique_ptr<Model> model, const DecoderGraph& graph, size_t rows, size_t capacity,
          size_t chunkSize);

  const Model& model() const noexcept { return *model_; }
  KvCache& cache() noexcept { return *cache_; }
  // True if neighbouring rows can run in one step.
  bool batches() const noexcept { return batches_; }
  // Number of tokens in the vocabulary, if the model says. Any thread.
  std::optional<size_t> vocabulary() const noexcept { return vocabulary_; }

  // The row that all prompts must be read in, or nothing if any row will do.
  std::optional<size_t> promptRow() const noexcept;
  // Number of rows that a step needs in order to decode `rows` rows.
  size_t decodeRows(size_t rows) const noexcept;

  // Reads one token into each row from `first` on. `pasts` holds how many tokens each row has. Afterwards the
  // first `rows` of these rows are one token longer; the others only fill the step up. Throws Error, or
  // Cancelled after cancel(); then no row has become longer.
  void decode(size_t first, std::span<const size_t> pasts, std::span<const int32_t> tokens, size_t rows);
  // Reads `tokens` into a row that already has the first `past` of them. Throws as decode() does.
  void prefill(size_t row, std::span<const int32_t> tokens, size_t past);

  // The logits that follow the last token of the i-th row in the last step. Both results are valid until the
  // next call. top() returns nothing if the graph has no top-k head.
  std::optional<TopLogits> top(size_t i);
  std::span<const float> logits(size_t i);

  // Number of logits in a row of the last step.
  size_t width() const noexcept { return static_cast<size_t>(outputs_[logits_].shape.back()); }

  // Ends the running step and all later ones. Any thread.
  void cancel() noexcept { context_->cancel(); }

 private:
  // An input other than the caches.
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
  const size_t longestPrompt_;  // most prompt tokens in a step
  std::unique_ptr<KvCache> cache_;
  std::vector<Feed> feeds_;
  // The model's inputs.
  std::vector<Tensor> inputs_;
  // The model's outputs: the caches, the logits, and those of a top-k head.
  std::vector<size_t> outputIndices_;
  std::vector<Tensor> outputs_;
  size_t logits_ = 0;         // index in outputs_
  bool padsPrompts_ = false;  // the graph has an input that marks the end of a prompt
  size_t logitsIndex_ = 0;    // which new token of this step the logits belong to
  std::vector<int32_t> prompt_;
  bool hasTop_ = false;
  std::optional<size_t> vocabulary_;
  // A row of logits, if the model's aren't floats in host memory.
  std::vector<float> row_;
  // A row copied from a device.
  std::vector<std::byte> fetched_;
  std::vector<float> topLogits_;
  std::vector<int32_t> topTokens_;
};

}  // namespace node_tensorrt
