// Compiling an ONNX model with one flavour of TensorRT. Compiled once per flavour, with NODE_TENSORRT_FLAVOUR
// as its name: see flavour.h.
#include <NvOnnxParser.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <fstream>
#include <iterator>
#include <map>
#include <mutex>
#include <optional>
#include <thread>
#include <unordered_map>
#include <utility>

#include "core/error.h"
#include "core/mapped_file.h"
#include "runtime/cuda/device.h"
#include "runtime/cuda/driver.h"
#include "runtime/tensorrt/api.h"
#include "runtime/tensorrt/engine.h"
#include "runtime/tensorrt/flavour.h"
#include "runtime/tensorrt/messages.h"

namespace node_tensorrt::tensorrt::NODE_TENSORRT_FLAVOUR {
namespace {

const char* layerTypeName(nvinfer1::LayerType type) {
  switch (type) {
#define NODE_TENSORRT_LAYER(name)    \
  case nvinfer1::LayerType::k##name: \
    return #name;
    NODE_TENSORRT_LAYER(CONVOLUTION)
    NODE_TENSORRT_LAYER(CAST)
    NODE_TENSORRT_LAYER(ACTIVATION)
    NODE_TENSORRT_LAYER(POOLING)
    NODE_TENSORRT_LAYER(LRN)
    NODE_TENSORRT_LAYER(SCALE)
    NODE_TENSORRT_LAYER(SOFTMAX)
    NODE_TENSORRT_LAYER(DECONVOLUTION)
    NODE_TENSORRT_LAYER(CONCATENATION)
    NODE_TENSORRT_LAYER(ELEMENTWISE)
    NODE_TENSORRT_LAYER(PLUGIN)
    NODE_TENSORRT_LAYER(UNARY)
    NODE_TENSORRT_LAYER(PADDING)
    NODE_TENSORRT_LAYER(SHUFFLE)
    NODE_TENSORRT_LAYER(REDUCE)
    NODE_TENSORRT_LAYER(TOPK)
    NODE_TENSORRT_LAYER(GATHER)
    NODE_TENSORRT_LAYER(MATRIX_MULTIPLY)
    NODE_TENSORRT_LAYER(RAGGED_SOFTMAX)
    NODE_TENSORRT_LAYER(CONSTANT)
    NODE_TENSORRT_LAYER(IDENTITY)
    NODE_TENSORRT_LAYER(PLUGIN_V2)
    NODE_TENSORRT_LAYER(SLICE)
    NODE_TENSORRT_LAYER(SHAPE)
    NODE_TENSORRT_LAYER(PARAMETRIC_RELU)
    NODE_TENSORRT_LAYER(RESIZE)
    NODE_TENSORRT_LAYER(TRIP_LIMIT)
    NODE_TENSORRT_LAYER(RECURRENCE)
    NODE_TENSORRT_LAYER(ITERATOR)
    NODE_TENSORRT_LAYER(LOOP_OUTPUT)
    NODE_TENSORRT_LAYER(SELECT)
    NODE_TENSORRT_LAYER(FILL)
    NODE_TENSORRT_LAYER(QUANTIZE)
    NODE_TENSORRT_LAYER(DEQUANTIZE)
    NODE_TENSORRT_LAYER(CONDITION)
    NODE_TENSORRT_LAYER(CONDITIONAL_INPUT)
    NODE_TENSORRT_LAYER(CONDITIONAL_OUTPUT)
    NODE_TENSORRT_LAYER(SCATTER)
    NODE_TENSORRT_LAYER(EINSUM)
    NODE_TENSORRT_LAYER(ASSERTION)
    NODE_TENSORRT_LAYER(ONE_HOT)
    NODE_TENSORRT_LAYER(NON_ZERO)
    NODE_TENSORRT_LAYER(GRID_SAMPLE)
    NODE_TENSORRT_LAYER(NMS)
    NODE_TENSORRT_LAYER(REVERSE_SEQUENCE)
    NODE_TENSORRT_LAYER(NORMALIZATION)
    NODE_TENSORRT_LAYER(PLUGIN_V3)
    NODE_TENSORRT_LAYER(SQUEEZE)
    NODE_TENSORRT_LAYER(UNSQUEEZE)
    NODE_TENSORRT_LAYER(CUMULATIVE)
    NODE_TENSORRT_LAYER(DYNAMIC_QUANTIZE)
    NODE_TENSORRT_LAYER(ATTENTION_INPUT)
    NODE_TENSORRT_LAYER(ATTENTION_OUTPUT)
    NODE_TENSORRT_LAYER(ROTARY_EMBEDDING)
    NODE_TENSORRT_LAYER(KVCACHE_UPDATE)
    NODE_TENSORRT_LAYER(MOE)
    NODE_TENSORRT_LAYER(DIST_COLLECTIVE)
#undef NODE_TENSORRT_LAYER
    default:
      return "UNKNOWN";
  }
}

// ---- what TensorRT calls back ----

class ProgressMonitor final : public nvinfer1::IProgressMonitor {
 public:
  ProgressMonitor(BuildObserver& observer, std::stop_token stop)
      : observer_(observer), stop_(std::move(stop)) {}

  void phaseStart(const char* phase, const char*, int32_t steps) noexcept override {
    try {
      std::lock_guard lock(mutex_);
      steps_[phase] = steps;
    } catch (...) {
      return;
    }
    observer_.progress(phase, 0, steps);
  }

  bool stepComplete(const char* phase, int32_t step) noexcept override {
    const int steps = stepsOf(phase);
    // A phase's last step is reported once, by its end.
    if (step + 1 < steps) observer_.progress(phase, step + 1, steps);
    return !stop_.stop_requested();
  }

  void phaseFinish(const char* phase) noexcept override {
    const int steps = stepsOf(phase);
    if (steps > 0 && !stop_.stop_requested()) observer_.progress(phase, steps, steps);
  }

 private:
  int stepsOf(const char* phase) noexcept {
    std::lock_guard lock(mutex_);
    const auto entry = steps_.find(phase);
    return entry == steps_.end() ? 0 : entry->second;
  }

  BuildObserver& observer_;
  const std::stop_token stop_;
  std::mutex mutex_;
  std::map<std::string, int, std::less<>> steps_;
};

// ---- the model ----

TensorDescription describe(const nvinfer1::ITensor& tensor) {
  return {tensor.getName(), toDataType(tensor.getType()), toShape(tensor.getDimensions())};
}

// "x [batch, 64]"
std::string describeInput(const nvinfer1::ITensor& tensor) {
  const nvinfer1::Dims dims = tensor.getDimensions();
  std::string text = quoted(tensor.getName()) + " [";
  for (int32_t i = 0; i < dims.nbDims; ++i) {
    const char* name = tensor.getDimensionName(i);
    if (i > 0) text += ", ";
    text += dims.d[i] >= 0 ? std::to_string(dims.d[i]) : name != nullptr && *name != '\0' ? name : "?";
  }
  return text + ']';
}

constexpr char kNoPlugin[] = "TensorRT has neither an operator nor a plugin of this name.";

// The parser's assertions hold their text as `expression: text` or as `expression && "text"`.
std::string readableAssertion(std::string text) {
  constexpr std::string_view kPrefix = "Assertion failed: ";
  if (text.find("Failed to convert ONNX date type") != std::string::npos) {
    return "TensorRT has no equal of its element type.";
  }
  if (text == "false") return "TensorRT's ONNX parser does not implement this operator.";
  if (text.find("Plugin not found") != std::string::npos ||
      text.find("plugin registry") != std::string::npos || text.starts_with("failed to load ")) {
    return kNoPlugin;
  }
  if (const size_t quote = text.find("&& \""); quote != std::string::npos) {
    const size_t from = quote + 4;
    return text.substr(from, text.find('"', from) - from);
  }
  const size_t start = text.rfind(kPrefix);
  if (start == std::string::npos) return text;
  text.erase(0, start + kPrefix.size());
  const size_t colon = text.find(": ");
  return colon == std::string::npos ? text : text.substr(colon + 2);
}

// `lastNode`: "name [operator]" of the node that the parser began last, or nothing.
ImportError importError(const std::string& lastNode, std::string reason) {
  const size_t bracket = lastNode.rfind(" [");
  if (bracket == std::string::npos) return {-1, "", "", std::move(reason)};
  const size_t op = bracket + 2;
  return {-1, lastNode.substr(0, bracket), lastNode.substr(op, lastNode.find(']', op) - op),
          std::move(reason)};
}

ImportError importError(const std::string& lastNode, const nvonnxparser::IParserError& error) {
  const auto orEmpty = [](const char* text) { return text != nullptr ? std::string(text) : std::string(); };
  std::string reason = ended(readableAssertion(readable(orEmpty(error.desc()))));
  if (error.node() >= 0) {
    return {error.node(), orEmpty(error.nodeName()), orEmpty(error.nodeOperator()), std::move(reason)};
  }
  if (orEmpty(error.func()) != "importInput") return importError(lastNode, std::move(reason));
  // Where the source file should be, the parser puts the input's name.
  return {-1, "", "", "Input " + quoted(orEmpty(error.file())) + ": " + reason};
}

std::string describe(const ImportError& error) {
  std::string text;
  if (error.node >= 0 || !error.name.empty() || !error.op.empty()) {
    text = "Node " + (error.name.empty() ? std::to_string(error.node) : quoted(error.name));
    if (!error.op.empty()) text.append(" (").append(error.op).append(")");
    text += ": ";
  }
  return text + error.reason;
}

std::string describe(const std::vector<ImportError>& errors) {
  std::vector<std::string> texts;
  for (const ImportError& error : errors) texts.push_back(describe(error));
  return joined(texts);
}

// Why the parser, which has failed, did. Throws ERR_MODEL_INVALID where it could not even read the file.
std::vector<ImportError> importErrors(const std::string& model, const nvonnxparser::IParser& parser,
                                      const Messages& messages) {
  std::vector<ImportError> errors;
  bool invalid = false;
  for (int i = 0; i < parser.getNbErrors(); ++i) {
    const nvonnxparser::IParserError& error = *parser.getError(i);
    if (error.code() == nvonnxparser::ErrorCode::kMEM_ALLOC_FAILED) {
      throw Error("ERR_OUT_OF_MEMORY", "There is not enough host memory to parse " + model + '.');
    }
    invalid |= error.code() == nvonnxparser::ErrorCode::kMODEL_DESERIALIZE_FAILED ||
               error.code() == nvonnxparser::ErrorCode::kINVALID_GRAPH;
    errors.push_back(importError(messages.node(), error));
  }
  for (const std::string& message : messages.errors()) {
    // Why external data could not be read stands only in the log.
    if (message.starts_with("WeightsContext.cpp")) {
      errors.push_back(importError("", ended(readable(message))));
    } else if (errors.empty()) {
      errors.push_back(importError(messages.node(), ended(readable(message))));
    }
  }
  if (errors.empty()) errors.push_back(importError(messages.node(), "It gave no reason."));
  if (invalid) {
    throw Error("ERR_MODEL_INVALID", "TensorRT could not read the model " + model + ". " + describe(errors));
  }
  return errors;
}

// Which layer computes a tensor.
class Producers {
 public:
  explicit Producers(const nvinfer1::INetworkDefinition& network) {
    for (int32_t i = 0; i < network.getNbLayers(); ++i) {
      const nvinfer1::ILayer* layer = network.getLayer(i);
      for (int32_t t = 0; t < layer->getNbOutputs(); ++t) producers_.emplace(layer->getOutput(t), layer);
    }
  }

  // Null for an input of the network.
  const nvinfer1::ILayer* of(const nvinfer1::ITensor* tensor) const {
    const auto entry = producers_.find(tensor);
    return entry == producers_.end() ? nullptr : entry->second;
  }

 private:
  std::unordered_map<const nvinfer1::ITensor*, const nvinfer1::ILayer*> producers_;
};

// ---- the configuration ----

void throwIfStopped(const std::stop_token& stop) {
  if (stop.stop_requested()) throw Cancelled();
}

void requireShape(const std::string& option, const Shape& shape, const Shape& network,
                  const nvinfer1::ITensor& input) {
  if (shape.size() != network.size()) {
    throw Error("ERR_INVALID_ARG_VALUE", option + " is " + toString(shape) + ", but the input " +
                                             describeInput(input) + " has " + std::to_string(network.size()) +
                                             " dimensions.");
  }
  for (size_t i = 0; i < shape.size(); ++i) {
    if (shape[i] < 0 || (network[i] >= 0 && shape[i] != network[i])) {
      throw Error(
          "ERR_INVALID_ARG_VALUE",
          option + " is " + toString(shape) + ", which does not fit the input " + describeInput(input) + '.');
    }
  }
}

void addProfile(nvinfer1::IBuilder& builder, nvinfer1::IBuilderConfig& config,
                const nvinfer1::INetworkDefinition& network, const Profile& profile,
                const std::string& option) {
  nvinfer1::IOptimizationProfile* target = builder.createOptimizationProfile();
  if (target == nullptr)
    throw Error("ERR_BUILD_FAILED", "TensorRT could not create an optimization profile.");
  std::map<std::string_view, const ShapeRange*> ranges;
  for (const ShapeRange& range : profile) ranges.emplace(range.input, &range);
  std::string lacking;

  for (int32_t i = 0; i < network.getNbInputs(); ++i) {
    const nvinfer1::ITensor& input = *network.getInput(i);
    const char* name = input.getName();
    const Shape shape = toShape(input.getDimensions());
    const bool dynamic = std::find(shape.begin(), shape.end(), -1) != shape.end();
    const bool isShape = input.isShapeTensor();
    const auto entry = ranges.find(name);
    if (entry == ranges.end()) {
      if (dynamic || isShape) {
        lacking += (lacking.empty() ? "" : ", ") + describeInput(input) + (isShape ? " (its values)" : "");
      }
      continue;
    }
    const ShapeRange& range = *entry->second;
    ranges.erase(entry);
    const std::string path = option + '.' + name;
    // A shape tensor's range is one of values: as many as it has elements.
    const size_t elements = shape.empty() ? 1 : static_cast<size_t>(shape[0]);
    if (isShape && (shape.size() > 1 || dynamic)) {
      throw Error("ERR_MODEL_UNSUPPORTED", "The input " + describeInput(input) +
                                               " holds shapes, which only a static vector or scalar can do.");
    }
    using nvinfer1::OptProfileSelector;
    const std::array<std::pair<OptProfileSelector, const Shape*>, 3> selected = {
        {{OptProfileSelector::kMIN, &range.min},
         {OptProfileSelector::kOPT, &range.opt},
         {OptProfileSelector::kMAX, &range.max}}};
    constexpr std::array kNames = {".min", ".opt", ".max"};
    for (size_t s = 0; s < selected.size(); ++s) {
      const Shape& values = *selected[s].second;
      if (isShape && values.size() != elements) {
        throw Error("ERR_INVALID_ARG_VALUE", path + kNames[s] + " has " + std::to_string(values.size()) +
                                                 " values, but the input " + describeInput(input) + " has " +
                                                 std::to_string(elements) + " elements.");
      }
      if (!isShape) requireShape(path + kNames[s], values, shape, input);
    }
    for (size_t d = 0; d < range.min.size(); ++d) {
      if (range.min[d] > range.opt[d] || range.opt[d] > range.max[d]) {
        throw Error("ERR_INVALID_ARG_VALUE",
                    path + " is not in the order min, opt, max: " + toString(range.min) + ", " +
                        toString(range.opt) + ", " + toString(range.max) + '.');
      }
    }
    for (const auto& [selector, values] : selected) {
      const bool accepted = isShape ? target->setShapeValuesV2(name, selector, values->data(),
                                                               static_cast<int32_t>(values->size()))
                                    : target->setDimensions(name, selector, toDims(*values));
      if (!accepted) {
        throw Error("ERR_INVALID_ARG_VALUE",
                    path + " was refused by TensorRT for the input " + describeInput(input) + '.');
      }
    }
  }
  if (!lacking.empty()) {
    throw Error(
        "ERR_INVALID_ARG_VALUE",
        option + " lacks dynamic inputs: give the minimum, optimum and maximum shape of " + lacking + '.');
  }
  if (!ranges.empty()) {
    throw Error("ERR_INVALID_ARG_VALUE",
                option + " names " + quoted(ranges.begin()->first) + ", which is not an input of the model.");
  }
  if (config.addOptimizationProfile(target) < 0) {
    throw Error("ERR_INVALID_ARG_VALUE", option + " was refused by TensorRT.");
  }
}

void setProfiles(nvinfer1::IBuilder& builder, nvinfer1::IBuilderConfig& config,
                 const nvinfer1::INetworkDefinition& network, const std::vector<Profile>& profiles) {
  // Without a dynamic input TensorRT needs no profile; with one, the empty profile's error names it.
  const size_t count = std::max<size_t>(profiles.size(), 1);
  for (size_t i = 0; i < count; ++i) {
    const std::string option =
        profiles.size() > 1 ? "options.shapes[" + std::to_string(i) + ']' : std::string("options.shapes");
    addProfile(builder, config, network, i < profiles.size() ? profiles[i] : Profile{}, option);
  }
}

// The GPU that TensorRT compiles for where no other is named: `device`, else CUDA's first.
cuda::Gpu gpuHere(const cuda::Device* device) {
  if (device != nullptr) return device->gpu();
  cuda::Report report = cuda::probe();
  if (!report.gpus.empty()) return std::move(report.gpus.front());
  throw Error(
      "ERR_NO_GPU",
      "There is no GPU to compile for: name one in options.target, such as \"sm_89\". " + report.error);
}

#if NODE_TENSORRT_RTX

// TensorRT-RTX's own list; it has no kernels for sm_90 and sm_100.
constexpr std::array<std::pair<int, nvinfer1::ComputeCapability>, 6> kComputeCapabilities = {{
    {75, nvinfer1::ComputeCapability::kSM75},
    {80, nvinfer1::ComputeCapability::kSM80},
    {86, nvinfer1::ComputeCapability::kSM86},
    {89, nvinfer1::ComputeCapability::kSM89},
    {120, nvinfer1::ComputeCapability::kSM120},
    {121, nvinfer1::ComputeCapability::kSM121},
}};

const nvinfer1::ComputeCapability* findComputeCapability(int number) {
  const auto entry = std::find_if(kComputeCapabilities.begin(), kComputeCapabilities.end(),
                                  [number](const auto& known) { return known.first == number; });
  return entry == kComputeCapabilities.end() ? nullptr : &entry->second;
}

std::string listComputeCapabilities() {
  std::string list;
  for (const auto& [number, value] : kComputeCapabilities) {
    list += (list.empty() ? "sm_" : ", sm_") + std::to_string(number);
  }
  return list;
}

void setTargets(nvinfer1::IBuilderConfig& config, const std::vector<int>& computeCapabilities,
                const cuda::Device* device) {
  std::vector<nvinfer1::ComputeCapability> targets;
  for (const int number : computeCapabilities) {
    const nvinfer1::ComputeCapability* target = findComputeCapability(number);
    if (target == nullptr) {
      throw Error("ERR_INVALID_ARG_VALUE", "options.target names sm_" + std::to_string(number) +
                                               ", for which TensorRT-RTX cannot compile; it supports " +
                                               listComputeCapabilities() + '.');
    }
    targets.push_back(*target);
  }
  if (targets.empty()) {
    const cuda::Gpu gpu = gpuHere(device);
    if (findComputeCapability(gpu.major * 10 + gpu.minor) == nullptr) {
      throw Error("ERR_LIBRARY_UNSUPPORTED", "TensorRT-RTX cannot compile for this machine's GPU (" +
                                                 gpu.name + ", sm_" +
                                                 std::to_string(gpu.major * 10 + gpu.minor) +
                                                 "); it supports " + listComputeCapabilities() + '.');
    }
    targets.push_back(nvinfer1::ComputeCapability::kCURRENT);
  }
  bool accepted = config.setNbComputeCapabilities(static_cast<int32_t>(targets.size()));
  for (size_t i = 0; i < targets.size(); ++i) {
    accepted = accepted && config.setComputeCapability(targets[i], static_cast<int32_t>(i));
  }
  if (!accepted) throw Error("ERR_INVALID_ARG_VALUE", "options.target was refused by TensorRT-RTX.");
}

#else

// TensorRT measures kernels on the GPU present, and compiles for nothing else.
void setTargets(nvinfer1::IBuilderConfig&, const std::vector<int>& computeCapabilities,
                const cuda::Device* device) {
  const cuda::Gpu gpu = gpuHere(device);
  for (const int number : computeCapabilities) {
    if (number == gpu.major * 10 + gpu.minor) continue;
    throw Error("ERR_LIBRARY_UNSUPPORTED",
                "options.target names sm_" + std::to_string(number) +
                    ", but TensorRT compiles only for the GPU of the machine it runs on, here " + gpu.name +
                    ", sm_" + std::to_string(gpu.major * 10 + gpu.minor) +
                    ". TensorRT-RTX compiles for others: install it, and leave options.runtime to it.");
  }
}

#endif

// ---- attention ----

// What TensorRT says, among other words, where it must not take attention to parts.
constexpr char kNoFusedKernel[] = "dedicated kernel";

using Attentions = std::vector<nvinfer1::IAttentionInputLayer*>;

Attentions attentionsOf(const nvinfer1::INetworkDefinition& network) {
  Attentions attentions;
  for (int32_t i = 0; i < network.getNbLayers(); ++i) {
    nvinfer1::ILayer* layer = network.getLayer(i);
    if (layer->getType() != nvinfer1::LayerType::kATTENTION_INPUT) continue;
    attentions.push_back(static_cast<nvinfer1::IAttentionInputLayer*>(layer));
  }
  return attentions;
}

// Whether the layer's output is the number 1, in any type.
bool isOne(const nvinfer1::ILayer* layer, const Producers& producers) {
  while (layer != nullptr && layer->getType() == nvinfer1::LayerType::kCAST) {
    layer = producers.of(layer->getInput(0));
  }
  if (layer == nullptr || layer->getType() != nvinfer1::LayerType::kCONSTANT) return false;
  const nvinfer1::Weights weights = static_cast<const nvinfer1::IConstantLayer*>(layer)->getWeights();
  return weights.type == nvinfer1::DataType::kFLOAT && weights.count == 1 &&
         *static_cast<const float*>(weights.values) == 1;
}

// The parser multiplies the query and the key of ONNX's Attention with the root of its scale each. Where that
// is 1 nothing changes, but the product is computed: of a key that is a KV cache, a copy of the whole cache
// in every run. Attention gets what is multiplied instead.
void skipProductsWithOne(const nvinfer1::INetworkDefinition& network, const Attentions& attentions) {
  if (attentions.empty()) return;
  const Producers producers(network);
  constexpr int32_t kScaled = 2;
  for (nvinfer1::IAttentionInputLayer* attention : attentions) {
    for (int32_t i = 0; i < kScaled; ++i) {
      const nvinfer1::ILayer* product = producers.of(attention->getInput(i));
      if (product == nullptr || product->getType() != nvinfer1::LayerType::kELEMENTWISE ||
          static_cast<const nvinfer1::IElementWiseLayer*>(product)->getOperation() !=
              nvinfer1::ElementWiseOperation::kPROD ||
          !isOne(producers.of(product->getInput(1)), producers)) {
        continue;
      }
      attention->setInput(i, *product->getInput(0));
    }
  }
}

// Demands a fused kernel for attention, and returns the layers concerned: all but those in FP32, for which
// there is none, and which the compiler may take to parts.
Attentions demandFusion(const Attentions& attentions) {
  Attentions fused;
  for (nvinfer1::IAttentionInputLayer* layer : attentions) {
    const bool isWide = layer->getInput(0)->getType() == nvinfer1::DataType::kFLOAT;
    layer->getAttention()->setDecomposable(isWide);
    if (!isWide) fused.push_back(layer);
  }
  return fused;
}

std::string fusionWarning(const Attentions& attentions) {
  std::string names;
  const size_t listed = std::min<size_t>(attentions.size(), kListed);
  for (size_t i = 0; i < listed; ++i) {
    names.append(i > 0 ? ", " : "").append(quoted(attentions[i]->getAttention()->getName()));
  }
  if (attentions.size() > listed) names += " and " + std::to_string(attentions.size() - listed) + " more";
  return "TensorRT has no fused kernel for attention of these types, shapes and capacities in at least one "
         "of " +
         names +
         ": it is compiled from its parts, which takes more time and memory (with grouped heads, keys and "
         "values are repeated in memory). With a KV cache, a smaller capacity may have one.";
}

void setRefit(nvinfer1::IBuilderConfig& config, nvinfer1::INetworkDefinition& network,
              const BuildRequest& request) {
  if (!request.refit && request.refitWeights.empty()) return;
  if (kFlavour == Flavour::kRtx && cuda::probe().gpus.empty()) {
    throw Error(
        "ERR_NO_GPU",
        "options.refit needs a GPU here: TensorRT-RTX compiles an engine whose weights can be replaced only "
        "where there is one. Leave options.refit out, or build on a machine with a GPU.");
  }
  if (request.refit) {
    config.setFlag(nvinfer1::BuilderFlag::kREFIT);
    return;
  }
  for (const std::string& name : request.refitWeights) {
    if (network.markWeightsRefittable(name.c_str())) continue;
    throw Error("ERR_INVALID_ARG_VALUE", "options.refit names " + quoted(name) +
                                             ", which is no weight of the network that can be replaced.");
  }
  config.setFlag(nvinfer1::BuilderFlag::kREFIT_INDIVIDUAL);
}

#if NODE_TENSORRT_RTX

// Contexts are given all their memory (kUSER_MANAGED): TensorRT-RTX need not allocate any in a run, which
// would keep that from being captured. A network whose shapes the data decides could not be built so
// (NvInfer.h).
void requireUserAllocation(nvinfer1::IBuilderConfig& config, const nvinfer1::INetworkDefinition& network) {
  using nvinfer1::LayerType;
  constexpr std::array kDataDependent = {LayerType::kNON_ZERO, LayerType::kNMS, LayerType::kTRIP_LIMIT};
  for (int32_t i = 0; i < network.getNbLayers(); ++i) {
    const LayerType type = network.getLayer(i)->getType();
    if (std::find(kDataDependent.begin(), kDataDependent.end(), type) != kDataDependent.end()) return;
  }
  config.setFlag(nvinfer1::BuilderFlag::kREQUIRE_USER_ALLOCATION);
}

// Deprecated there, and without effect.
class TimingCache {
 public:
  TimingCache(nvinfer1::IBuilderConfig&, const std::string&) {
    throw Error("ERR_LIBRARY_UNSUPPORTED",
                "options.timingCache is for TensorRT: TensorRT-RTX measures nothing while it compiles. Leave "
                "it out.");
  }
  bool wasReplaced() const noexcept { return false; }
  std::shared_ptr<FileLock> lockFile(const std::stop_token&) const { return nullptr; }
  nvinfer1::IHostMemory* serialize() const noexcept { return nullptr; }
};

#else

// What earlier builds measured, in a file that other processes write too. It must outlive the build.
class TimingCache {
 public:
  TimingCache(nvinfer1::IBuilderConfig& config, std::string path)
      : config_(config), path_(std::move(path)), read_(readFile()), cache_(create(read_)) {
    if (cache_ && config_.setTimingCache(*cache_, false)) return;
    wasReplaced_ = !read_.empty();
    cache_ = create("");
    if (!cache_ || !config_.setTimingCache(*cache_, false)) {
      throw Error("ERR_BUILD_FAILED", "TensorRT could not create a timing cache.");
    }
  }

  // Whether what the file held could not be used.
  bool wasReplaced() const noexcept { return wasReplaced_; }

  // Between what others add to the file and what this build does.
  std::shared_ptr<FileLock> lockFile(const std::stop_token& stop) const {
    auto lock = std::make_shared<FileLock>(path_ + ".lock");
    while (!lock->tryAcquire()) {
      throwIfStopped(stop);
      std::this_thread::sleep_for(kLockInterval);
    }
    return lock;
  }

  // After the build, under the file's lock: what it is to hold now. Null without memory.
  nvinfer1::IHostMemory* serialize() {
    const std::string now = readFile();
    if (now != read_) {
      const std::unique_ptr<nvinfer1::ITimingCache> others = create(now);
      // What is not of this TensorRT and GPU is left out.
      if (others) cache_->combine(*others, false);
    }
    return cache_->serialize();
  }

 private:
  // Before the lock is asked for again.
  static constexpr std::chrono::milliseconds kLockInterval{20};

  std::string readFile() const {
    std::ifstream file(path_, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  }

  std::unique_ptr<nvinfer1::ITimingCache> create(const std::string& bytes) {
    return std::unique_ptr<nvinfer1::ITimingCache>(config_.createTimingCache(bytes.data(), bytes.size()));
  }

  nvinfer1::IBuilderConfig& config_;
  const std::string path_;
  const std::string read_;
  std::unique_ptr<nvinfer1::ITimingCache> cache_;
  bool wasReplaced_ = false;
};

#endif

// Memory of TensorRT's, which the library, always loaded, frees.
std::shared_ptr<void> shared(nvinfer1::IHostMemory* memory) {
  return std::shared_ptr<void>(memory->data(), [memory](void*) { delete memory; });
}

// What TensorRT's more opaque messages mean.
std::string explain(const Messages& messages) {
  struct Explanation {
    const char* pattern;
    const char* text;
  };
  constexpr Explanation kExplanations[] = {
      {kNoFusedKernel,
       "An Attention of this type, shape or mask has no fused kernel: convert the model to FP16 or BF16."},
      {"Could not find any implementation for node",
       "No kernel does this part of the model at these shapes and types: raise options.workspace, narrow "
       "options.shapes, or keep its nodes in FP32."},
      {"No Myelin Error exists",
       "TensorRT's graph compiler gave up without a reason: often a type or shape that its kernels lack, or "
       "a "
       "profile that is too wide; narrow options.shapes or keep the nodes concerned in FP32."},
      {"_Map_base::at",
       "TensorRT's graph compiler could not relate dynamic dimensions: give inputs that share a dimension "
       "the "
       "same dimension name in the model."},
      {"violate shape constraints", "The model does not allow these shapes: give others in options.shapes."},
      {"CHECK(status == CUDA_SUCCESS)", "This combination of options needs a GPU at build time."},
      {"Unable to load library",
       "TensorRT opens this library by its name while it compiles: it belongs beside libnvinfer.so; "
       "elsewhere, "
       "name its folder in LD_LIBRARY_PATH before the process starts."},
      {"Error Code 35", "There is no usable NVIDIA driver on this machine."},
      {"ut of memory", "Lower options.workspace or the maximum shapes, or free memory."},
      {"OutOfMemory", "Lower options.workspace or the maximum shapes, or free memory."},
  };
  for (const Explanation& explanation : kExplanations) {
    if (messages.hasError({explanation.pattern})) return std::string(" ") + explanation.text;
  }
  return "";
}

class FlavourLibrary final : public Library {
 public:
  explicit FlavourLibrary(LibraryFiles files)
      : files_(std::move(files)),
        createBuilder_(files_.core.symbol<void*(void*, int32_t) noexcept>("createInferBuilder_INTERNAL")),
        createParser_(
            files_.parser.symbol<void*(void*, void*, int) noexcept>("createNvOnnxParser_INTERNAL")) {}

  Flavour flavour() const noexcept override { return kFlavour; }
  const Capabilities& capabilities() const noexcept override { return files_.capabilities; }
  const std::string& version() const noexcept override { return files_.version; }
  const std::string& path() const noexcept override { return files_.core.path(); }

  std::unique_ptr<Model> loadEngine(std::span<const uint8_t> plan, const EngineOptions& options,
                                    std::stop_token stop) const override {
    try {
      return NODE_TENSORRT_FLAVOUR::loadEngine(files_, plan, options, stop);
    } catch (const Error& error) {
      // "Cannot deserialize plugin since corresponding IPluginCreator not found in Plugin Registry"
      if (std::string_view(error.what()).find("Plugin Registry") == std::string_view::npos) throw;
      if (!registerPlugins(stop)) throw Error(error.code(), error.what() + withoutPlugins());
    }
    return NODE_TENSORRT_FLAVOUR::loadEngine(files_, plan, options, stop);
  }
  PlanDescription inspectPlan(std::span<const uint8_t> plan, const EngineOptions& options) const override {
    return NODE_TENSORRT_FLAVOUR::inspectPlan(files_, plan, options);
  }

 private:
  // What parsing takes. Destroyed in reverse order, as TensorRT asks: the parser owns weights that the
  // network refers to.
  struct Import {
    std::unique_ptr<nvinfer1::IBuilder> builder;
    std::unique_ptr<nvinfer1::INetworkDefinition> network;
    std::unique_ptr<nvonnxparser::IParser> parser;
  };

  void build(const BuildRequest& request, std::stop_token stop, BuildObserver& observer) const override;
  ParseResult parse(const std::string& model, const std::string& modelPath, std::optional<int> device,
                    std::stop_token stop) const override;
  // With a builder alone.
  Import createImport(const Messages& messages) const;
  // Into a network of its own. What could not be imported; nothing where all was.
  std::vector<ImportError> importModel(Import& import, const std::string& model, const std::string& modelPath,
                                       Messages& messages, const std::stop_token& stop) const;
  std::vector<ImportError> tryImport(Import& import, const std::string& model, const std::string& modelPath,
                                     const Messages& messages) const;
  // TensorRT's own plugins are in a library of their own, which is not opened before a model needs one.
  // Whether they are registered now.
  bool registerPlugins(const std::stop_token& stop) const;
  // The sentence to say where they are not, after a space.
  std::string withoutPlugins() const;

  const LibraryFiles files_;
  void* (*const createBuilder_)(void*, int32_t) noexcept;
  void* (*const createParser_)(void*, void*, int) noexcept;
  mutable std::atomic<bool> hasPlugins_ = false;
};

// The GPU for TensorRT to use, which takes the one that is current on its thread.
class UsedDevice {
 public:
  explicit UsedDevice(std::optional<int> ordinal)
      : device_(ordinal ? &cuda::Device::open(*ordinal) : nullptr) {
    if (device_ != nullptr) current_.emplace(*device_);
  }

  // Null where none was named.
  const cuda::Device* device() const noexcept { return device_; }

 private:
  const cuda::Device* const device_;
  std::optional<cuda::Current> current_;
};

Error failed(const std::string& what, const Messages& messages) {
  return Error("ERR_BUILD_FAILED", couldNot(what, messages).append(explain(messages)));
}

// TensorRT, unlike TensorRT-RTX, creates no builder without a GPU.
[[noreturn]] void throwNoBuilder(const Messages& messages) {
  const cuda::Report report = cuda::probe();
  if (!report.gpus.empty()) throw failed("create a builder", messages);
  throw Error("ERR_NO_GPU",
              "TensorRT compiles for the GPU of the machine it runs on, and there is none here. " +
                  report.error +
                  " TensorRT-RTX compiles ahead of time: name a GPU in options.target, such as \"sm_89\".");
}

FlavourLibrary::Import FlavourLibrary::createImport(const Messages& messages) const {
  Logger& logger = Logger::instance();
  Import import;
  import.builder.reset(static_cast<nvinfer1::IBuilder*>(createBuilder_(&logger, NV_TENSORRT_VERSION)));
  if (!import.builder) throwNoBuilder(messages);
  return import;
}

bool FlavourLibrary::registerPlugins(const std::stop_token& stop) const {
  const Opening opening(stop);
  if (hasPlugins_ || ::access(files_.plugins.c_str(), F_OK) != 0) return hasPlugins_;
  const SharedLibrary plugins = SharedLibrary::open(files_.plugins);
  nvinfer1::ILogger* logger = &Logger::instance();
  hasPlugins_ = (*plugins.symbol<bool(void*, const char*)>("initLibNvInferPlugins"))(logger, "");
  opening.opened();
  return hasPlugins_;
}

std::string FlavourLibrary::withoutPlugins() const {
  if (files_.plugins.empty()) return " TensorRT-RTX has no plugins, which TensorRT has.";
  if (hasPlugins_) return "";
  const bool isThere = ::access(files_.plugins.c_str(), F_OK) == 0;
  return " The library of TensorRT's own plugins, " + files_.plugins +
         (isThere ? ", could not be initialised." : ", is not there.");
}

std::vector<ImportError> FlavourLibrary::importModel(Import& import, const std::string& model,
                                                     const std::string& modelPath, Messages& messages,
                                                     const std::stop_token& stop) const {
  const auto lacksPlugin = [](const ImportError& error) { return error.reason == kNoPlugin; };
  const bool hadPlugins = hasPlugins_;
  std::vector<ImportError> errors = tryImport(import, model, modelPath, messages);
  if (std::none_of(errors.begin(), errors.end(), lacksPlugin)) return errors;
  if (!hadPlugins && registerPlugins(stop)) {
    messages.forgetErrors();
    errors = tryImport(import, model, modelPath, messages);
  }
  for (ImportError& error : errors) {
    if (lacksPlugin(error)) error.reason += withoutPlugins();
  }
  return errors;
}

std::vector<ImportError> FlavourLibrary::tryImport(Import& import, const std::string& path,
                                                   const std::string& modelPath,
                                                   const Messages& messages) const {
  import.parser.reset();
  import.network.reset(import.builder->createNetworkV2(networkFlags()));
  if (!import.network) throw failed("create a network", messages);
  import.parser.reset(static_cast<nvonnxparser::IParser*>(
      createParser_(import.network.get(), &Logger::instance(), NV_ONNX_PARSER_VERSION)));
  if (!import.parser) throw failed("create its ONNX parser", messages);
  const MappedFile model(path);
  // A protobuf message cannot be larger: the parser would only call it damaged.
  if (model.size() > INT32_MAX) {
    throw Error("ERR_MODEL_INVALID",
                "The model " + path +
                    " is larger than 2 GB, the limit of an ONNX file: store its weights as external data.");
  }
  if (import.parser->parse(model.data(), model.size(), modelPath.c_str())) return {};
  return importErrors(modelPath, *import.parser, messages);
}

NetworkDescription describe(const nvinfer1::INetworkDefinition& network) {
  NetworkDescription result;
  for (int32_t i = 0; i < network.getNbInputs(); ++i) {
    result.inputs.push_back(describe(*network.getInput(i)));
  }
  for (int32_t i = 0; i < network.getNbOutputs(); ++i) {
    result.outputs.push_back(describe(*network.getOutput(i)));
  }
  result.layers.reserve(static_cast<size_t>(network.getNbLayers()));
  for (int32_t i = 0; i < network.getNbLayers(); ++i) {
    const nvinfer1::ILayer& layer = *network.getLayer(i);
    LayerDescription description{layer.getName(), layerTypeName(layer.getType()), {}, {}};
    for (int32_t t = 0; t < layer.getNbInputs(); ++t) {
      // An optional input that is absent leaves a hole.
      const nvinfer1::ITensor* input = layer.getInput(t);
      description.inputs.emplace_back(input != nullptr ? input->getName() : "");
    }
    for (int32_t t = 0; t < layer.getNbOutputs(); ++t) {
      const nvinfer1::ITensor* output = layer.getOutput(t);
      if (output != nullptr) description.outputs.push_back(describe(*output));
    }
    result.layers.push_back(std::move(description));
  }
  return result;
}

ParseResult FlavourLibrary::parse(const std::string& model, const std::string& modelPath,
                                  std::optional<int> device, std::stop_token stop) const {
  Messages messages;
  const Logger::Scope scope(messages);
  const UsedDevice used(device);
  Import import = createImport(messages);
  ParseResult result;
  result.errors = importModel(import, model, modelPath, messages, stop);
  if (result.errors.empty()) result.network = describe(*import.network);
  return result;
}

void FlavourLibrary::build(const BuildRequest& request, std::stop_token stop, BuildObserver& observer) const {
  throwIfStopped(stop);
  Messages messages;
  const Logger::Scope scope(messages);
  const UsedDevice used(request.device);
  Import import = createImport(messages);
  const auto& [builder, network, parser] = import;
  const std::unique_ptr<nvinfer1::IBuilderConfig> config(builder->createBuilderConfig());
  if (!config) throw failed("create a configuration", messages);
  setTargets(*config, request.computeCapabilities, used.device());

  observer.progress("Parsing", 0, 1);
  const std::vector<ImportError> errors =
      importModel(import, request.model, request.modelPath, messages, stop);
  if (!errors.empty()) {
    throwIfStopped(stop);
    throw Error("ERR_MODEL_UNSUPPORTED",
                "TensorRT does not support the model " + request.modelPath + ". " + describe(errors));
  }
  observer.progress("Parsing", 1, 1);
  throwIfStopped(stop);

  const Attentions attentions = attentionsOf(*network);
  skipProductsWithOne(*network, attentions);
  const Attentions fused = demandFusion(attentions);
  BuildResult result;
  result.network = describe(*network);

  setProfiles(*builder, *config, *network, request.profiles);
  if (request.sparsity) config->setFlag(nvinfer1::BuilderFlag::kSPARSE_WEIGHTS);
#if NODE_TENSORRT_RTX
  requireUserAllocation(*config, *network);
#endif
  // TensorRT's default is to use it.
  if (!request.tf32) config->clearFlag(nvinfer1::BuilderFlag::kTF32);
  if (request.optimizationLevel) config->setBuilderOptimizationLevel(*request.optimizationLevel);
  if (request.workspace) {
    config->setMemoryPoolLimit(nvinfer1::MemoryPoolType::kWORKSPACE, *request.workspace);
  }
  if (request.detailed) config->setProfilingVerbosity(nvinfer1::ProfilingVerbosity::kDETAILED);
  setRefit(*config, *network, request);
  std::optional<TimingCache> timingCache;
  if (!request.timingCache.empty()) timingCache.emplace(*config, request.timingCache);
  ProgressMonitor monitor(observer, stop);
  config->setProgressMonitor(&monitor);
  throwIfStopped(stop);
  nvinfer1::IHostMemory* plan = builder->buildSerializedNetwork(*network, *config);
  const bool lacksKernel = plan == nullptr && !fused.empty() && messages.hasError({kNoFusedKernel});
  if (lacksKernel) {
    // It finds out early in a build, and does not say which layer it is.
    throwIfStopped(stop);
    messages.forgetErrors();
    for (nvinfer1::IAttentionInputLayer* layer : fused) layer->getAttention()->setDecomposable(true);
    plan = builder->buildSerializedNetwork(*network, *config);
  }
  if (plan != nullptr) {
    result.planBytes = plan->size();
    result.plan = shared(plan);
  }
  throwIfStopped(stop);
  if (plan == nullptr) throw failed("compile the model " + request.modelPath, messages);
  result.warnings = messages.warnings();
  if (lacksKernel) result.warnings.push_back(fusionWarning(fused));
  if (timingCache) {
    if (timingCache->wasReplaced()) {
      result.warnings.push_back(
          "The timing cache " + request.timingCache +
          " is damaged, or of another TensorRT or GPU: it was ignored, and is replaced.");
    }
    result.timingCacheLock = timingCache->lockFile(stop);
    if (nvinfer1::IHostMemory* bytes = timingCache->serialize(); bytes != nullptr) {
      result.timingCacheBytes = bytes->size();
      result.timingCache = shared(bytes);
    }
  }
  observer.built(std::move(result));
}

}  // namespace

std::shared_ptr<const Library> createLibrary(LibraryFiles files) {
  return std::make_shared<FlavourLibrary>(std::move(files));
}

}  // namespace node_tensorrt::tensorrt::NODE_TENSORRT_FLAVOUR
