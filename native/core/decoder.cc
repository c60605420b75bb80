#include "core/decoder.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <utility>

#include "core/error.h"
#include "core/host_memory.h"

namespace node_tensorrt {
namespace {

[[noreturn]] void unsupported(const std::string& problem) {
  throw Error("ERR_MODEL_UNSUPPORTED", "The model can't be driven as a decoder: " + problem);
}

size_t find(const std::vector<TensorInfo>& infos, const std::string& name, const char* kind) {
  const auto info =
      std::find_if(infos.begin(), infos.end(), [&](const TensorInfo& each) { return each.name == name; });
  if (info == infos.end()) {
    unsupported(std::string("it has no ").append(kind).append(" '").append(name).append("'."));
  }
  return static_cast<size_t>(info - infos.begin());
}

float halfToFloat(uint16_t bits) {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000) << 16;
  const uint32_t exponent = bits >> 10 & 0x1f;
  const uint32_t fraction = bits & 0x3ff;
  if (exponent == 0x1f) return std::bit_cast<float>(sign | 0x7f800000 | fraction << 13);
  if (exponent == 0)
    return std::ldexp(sign ? -static_cast<float>(fraction) : static_cast<float>(fraction), -24);
  return std::bit_cast<float>(sign | (exponent + 112) << 23 | fraction << 13);
}

// Returns `values` as floats: unchanged if they are floats, or else converted into `converted`.
std::span<const float> toFloats(DataType type, const void* values, size_t count,
                                std::vector<float>& converted) {
  if (type == DataType::kFloat32) return {static_cast<const float*>(values), count};
  converted.resize(count);
  const auto* bits = static_cast<const uint16_t*>(values);
  for (size_t i = 0; i < count; ++i) {
    converted[i] = type == DataType::kFloat16
                       ? halfToFloat(bits[i])
                       : std::bit_cast<float>(static_cast<uint32_t>(bits[i]) << 16);  // bfloat16
  }
  return converted;
}

bool isFloat(DataType type) {
  return type == DataType::kFloat32 || type == DataType::kFloat16 || type == DataType::kBfloat16;
}

bool isInteger(DataType type) {
  return type == DataType::kInt32 || type == DataType::kInt64;
}

// The number of tokens in a row of a cache, if the model fixes it.
std::optional<size_t> fixedLength(const TensorInfo& cache, size_t least) {
  if (cache.shape.size() < 2) return std::nullopt;
  const int64_t length = cache.shape[cache.shape.size() - 2].size;
  if (length < 0) return std::nullopt;
  if (static_cast<size_t>(length) < least) {
    unsupported("a row of the cache '" + cache.name + "' has " + std::to_string(length) + " tokens, not " +
                std::to_string(least) + ".");
  }
  return static_cast<size_t>(length);
}

// Rounds the length of a prompt up to a multiple of 64. Above 512, rounds up to a multiple of an eighth of
// the next power of two, so that large chunks have few lengths too.
size_t roundUp(size_t length) {
  const size_t step = std::max<size_t>(64, std::bit_ceil(length) / 8);
  return (length + step - 1) / step * step;
}

// Returns `value`, or throws if it is null; `problem` is a sentence that says what is missing.
template <class T>
T require(T value, const char* problem) {
  if (!value) unsupported(problem);
  return value;
}

}  // namespace

Decoder::Decoder(std::unique_ptr<Model> model, const DecoderGraph& graph, size_t rows, size_t capacity,
                 size_t chunkSize)
    : model_(std::move(model)),
      context_(model_->createContext()),
      memory_(require(model_->tensorMemory(), "its runtime has no memory for a KV cache.")),
      batches_(graph.inPlace),
      hasFewShapes_(graph.inPlace && model_->preparesShapes()),
      capacity_(capacity),
      longestPrompt_(std::min(chunkSize, capacity)),
      inputs_(model_->inputs().size()) {
  const auto& inputs = model_->inputs();
  const auto& outputs = model_->outputs();
  std::vector<bool> fed(inputs.size());

  std::vector<CacheTensor> tensors;
  size_t rowLength = capacity;
  for (const DecoderGraph::Cache& cache : graph.caches) {
    const size_t input = find(inputs, cache.input, "input");
    const TensorInfo& info = inputs[input];
    if (!isFloat(info.type)) unsupported("the cache '" + cache.input + "' is not of floats.");
    tensors.push_back({input, info.type, info.shape.size(), cache.kvHeads, cache.headDim});
    if (graph.inPlace) rowLength = fixedLength(info, capacity).value_or(rowLength);
    outputIndices_.push_back(find(outputs, cache.output, "output"));
    if (graph.inPlace && !model_->writesOver(outputIndices_.back(), input)) {
      unsupported(
          "its output '" + cache.output + "' does not share the memory of its input '" + cache.input +
          "', so that steps would read an old cache. TensorRT has KV caches in place from 10.15 on, 11 "
          "and TensorRT-RTX: choose another version with options.libraryPath, or device: 'cpu'.");
    }
    fed[input] = true;
  }
  cache_ = graph.inPlace ? inPlaceCache(std::move(tensors), rows, rowLength, memory_)
                         : copyingCache(std::move(tensors), rows, memory_);

  const std::shared_ptr<MemoryPool> pool = model_->inputMemory();
  const size_t together = batches_ ? rows : 1;
  for (const DecoderGraph::Input& each : graph.inputs) {
    const size_t input = find(inputs, each.name, "input");
    const TensorInfo& info = inputs[input];
    if (!isInteger(info.type)) unsupported("its input '" + each.name + "' is neither int32 nor int64.");
    size_t elements = together;
    if (each.role == DecoderInputRole::kInputIds || each.role == DecoderInputRole::kPositionIds) {
      elements = std::max(together, chunkSize);
    } else if (each.role == DecoderInputRole::kAttentionMask) {
      elements = together * capacity;
    }
    const size_t bytes = elements * byteSize(info.type);
    feeds_.push_back(
        {input, each.role, info.shape.size(), pool ? pool->acquire(bytes) : allocateHostMemory(bytes)});
    fed[input] = true;
    padsPrompts_ |= hasFewShapes_ && each.role == DecoderInputRole::kLogitsIndex;
  }
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (!fed[i]) unsupported("nothing is known to feed its input '" + inputs[i].name + "' with.");
  }

  logits_ = outputIndices_.size();
  outputIndices_.push_back(find(outputs, graph.logits, "output"));
  const TensorInfo& logits = outputs[outputIndices_.back()];
  if (!isFloat(logits.type)) unsupported("its logits '" + logits.name + "' are not floats.");
  if (!logits.shape.empty() && logits.shape.back().size > 0) vocabulary_ = logits.shape.back().size;
  hasTop_ = graph.top.has_value();
  if (hasTop_) {
    for (const std::string& name : {graph.top->logits, graph.top->tokens, graph.top->logSumExp}) {
      outputIndices_.push_back(find(outputs, name, "output"));
    }
  }
  outputs_.resize(outputIndices_.size());
  if (hasFewShapes_) expectShapes();
}

void Decoder::expectShapes() {
  size_t shapes = 0;
  for (size_t count = 1; count <= cache_->rows(); count = decodeRows(count) + 1) ++shapes;
  if (padsPrompts_) {
    for (size_t length = 1; length <= longestPrompt_; length = promptLength(length) + 1) ++shapes;
  }
  context_->expectShapes(shapes);
}

size_t Decoder::decodeRows(size_t rows) const noexcept {
  return hasFewShapes_ ? std::min(std::bit_ceil(rows), cache_->rows()) : rows;
}

// Prompts are read in the last row, because the rows that decode come first.
std::optional<size_t> Decoder::promptRow() const noexcept {
  if (!hasFewShapes_) return std::nullopt;
  return cache_->rows() - 1;
}

size_t Decoder::promptLength(size_t length) const noexcept {
  return padsPrompts_ ? std::min(roundUp(length), longestPrompt_) : length;
}

void Decoder::decode(size_t first, std::span<const size_t> pasts, std::span<const int32_t> tokens,
                     size_t rows) {
  run(first, pasts, tokens, 0);
  for (size_t i = 0; i < rows; ++i) {
    cache_->commit(first + i, pasts[i] + 1, std::span(outputs_).first(logits_));
  }
}

void Decoder::prefill(size_t row, std::span<const int32_t> tokens, size_t past) {
  const size_t length = promptLength(tokens.size() - past);
  // If too little of the row is left for that length, the step begins earlier and reads tokens again.
  const size_t start = std::min(past, capacity_ - length);
  prompt_.assign(tokens.begin() + static_cast<ptrdiff_t>(start), tokens.end());
  prompt_.resize(length, tokens.back());
  run(row, {&start, 1}, prompt_, tokens.size() - start - 1);
  cache_->commit(row, tokens.size(), std::span(outputs_).first(logits_));
}

void Decoder::run(size_t first, std::span<const size_t> pasts, std::span<const int32_t> tokens,
                  size_t logitsIndex) {
  logitsIndex_ = logitsIndex;
  cache_->bind(first, pasts, tokens.size() / pasts.size(), inputs_, outputs_);
  for (const Feed& feed : feeds_) fill(feed, pasts, tokens);
  for (size_t i = logits_; i < outputs_.size(); ++i) outputs_[i] = {};
  if (hasTop_) {
    // The logits stay on the device until sampling needs them.
    outputs_[logits_].location = memory_->location();
    outputs_[logits_].device = memory_->device();
  }
  context_->execute(inputs_, outputIndices_, outputs_);
}

void Decoder::fill(const Feed& feed, std::span<const size_t> pasts, std::span<const int32_t> tokens) {
  Tensor& tensor = inputs_[feed.input];
  tensor.type = model_->inputs()[feed.input].type;
  tensor.data = feed.memory;
  const auto rows = static_cast<int64_t>(pasts.size());
  const int64_t fresh = static_cast<int64_t>(tokens.size()) / rows;
  switch (feed.role) {
    case DecoderInputRole::kInputIds:
    case DecoderInputRole::kPositionIds:
      tensor.shape.assign({rows, fresh});
      break;
    case DecoderInputRole::kAttentionMask:
      tensor.shape.assign(
          {rows, static_cast<int64_t>(*std::max_element(pasts.begin(), pasts.end())) + fresh});
      break;
    case DecoderInputRole::kPastLengths:
    case DecoderInputRole::kTotalLengths:
    case DecoderInputRole::kLastIndices:
      tensor.shape.assign({rows});
      break;
    case DecoderInputRole::kLongest:
    case DecoderInputRole::kLogitsIndex:
      tensor.shape.assign(feed.rank, 1);
      break;
  }
  size_t elements = 1;
  for (const int64_t size : tensor.shape) elements *= static_cast<size_t>(size);
  tensor.byteLength = elements * byteSize(tensor.type);
  if (tensor.type == DataType::kInt64) {
    fill(feed, pasts, tokens, static_cast<int64_t*>(feed.memory.get()));
  } else {
    fill(feed, pasts, tokens, static_cast<int32_t*>(feed.memory.get()));
  }
}

template <class Integer>
void Decoder::fill(const Feed& feed, std::span<const size_t> pasts, std::span<const int32_t> tokens,
                   Integer* to) {
  const size_t fresh = tokens.size() / pasts.size();
  const size_t longest = *std::max_element(pasts.begin(), pasts.end()) + fresh;
  if (feed.role == DecoderInputRole::kInputIds) {
    std::copy(tokens.begin(), tokens.end(), to);
    return;
  }
  if (feed.role == DecoderInputRole::kLongest) {
    *to = static_cast<Integer>(longest);
    return;
  }
  if (feed.role == DecoderInputRole::kLogitsIndex) {
    *to = static_cast<Integer>(logitsIndex_);
    return;
  }
  for (const size_t past : pasts) {
    const size_t total = past + fresh;
    switch (feed.role) {
      case DecoderInputRole::kPositionIds:
        for (size_t i = 0; i < fresh; ++i) *to++ = static_cast<Integer>(past + i);
        break;
      case DecoderInputRole::kAttentionMask:
        to = std::fill_n(to, total, Integer{1});
        to = std::fill_n(to, longest - total, Integer{0});
        break;
      case DecoderInputRole::kPastLengths:
        *to++ = static_cast<Integer>(past);
        break;
      case DecoderInputRole::kTotalLengths:
        *to++ = static_cast<Integer>(total);
        break;
      case DecoderInputRole::kLastIndices:
        *to++ = static_cast<Integer>(total - 1);
        break;
      case DecoderInputRole::kInputIds:
      case DecoderInputRole::kLongest:
      case DecoderInputRole::kLogitsIndex:
        break;
    }
  }
}

std::optional<TopLogits> Decoder::top(size_t i) {
  if (!hasTop_) return std::nullopt;
  const Tensor& logits = outputs_[logits_ + 1];
  const Tensor& tokens = outputs_[logits_ + 2];
  const Tensor& logSumExp = outputs_[logits_ + 3];
  const auto count = static_cast<size_t>(logits.shape.back());
  const auto row = [&](const Tensor& tensor, size_t elements) {
    return static_cast<const std::byte*>(tensor.data.get()) + i * elements * byteSize(tensor.type);
  };
  TopLogits top = {};
  top.logSumExp = toFloats(logSumExp.type, row(logSumExp, 1), 1, topLogits_)[0];
  top.logits = toFloats(logits.type, row(logits, count), count, topLogits_);
  if (tokens.type == DataType::kInt64) {
    const auto* wide = reinterpret_cast<const int64_t*>(row(tokens, count));
    topTokens_.assign(wide, wide + count);
    top.tokens = topTokens_;
  } else {
    top.tokens = {reinterpret_cast<const int32_t*>(row(tokens, count)), count};
  }
  return top;
}

std::span<const float> Decoder::logits(size_t i) {
  const Tensor& tensor = outputs_[logits_];
  const size_t positions = tensor.shape.size() == 3 ? static_cast<size_t>(tensor.shape[1]) : 1;
  const size_t bytes = width() * byteSize(tensor.type);
  const void* row = static_cast<const std::byte*>(tensor.data.get()) + ((i + 1) * positions - 1) * bytes;
  if (tensor.location == Location::kDevice) {
    fetched_.resize(bytes);
    memory_->toHost({.to = fetched_.data(),
                     .toStride = bytes,
                     .from = row,
                     .fromStride = bytes,
                     .bytes = bytes,
                     .count = 1});
    memory_->finish();
    row = fetched_.data();
  }
  return toFloats(tensor.type, row, width(), row_);
}

}  // namespace node_tensorrt
