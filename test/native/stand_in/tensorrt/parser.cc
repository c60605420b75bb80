// IParser: turns an ONNX model into a network. It is in the core library; the parser's own library calls it.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <sstream>

#include "../fault.h"
#include "network.h"
#include "session.h"

namespace stand_in {
namespace {

using nvonnxparser::ErrorCode;

class ParserError : public nvonnxparser::IParserError {
 public:
  ParserError(ErrorCode errorCode, std::string description)
      : code_(errorCode), description_(std::move(description)) {}
  ErrorCode code() const override { return code_; }
  char const* desc() const override { return description_.c_str(); }
  char const* file() const override { return file_.c_str(); }
  int line() const override { return 0; }
  char const* func() const override { return function_.c_str(); }
  int node() const override { return node_; }
  char const* nodeName() const override { return nodeName_.c_str(); }
  char const* nodeOperator() const override { return nodeOperator_.c_str(); }
  char const* const* localFunctionStack() const override { return nullptr; }
  int32_t localFunctionStackSize() const override { return 0; }

  ParserError&& at(int index, const Node& node) && {
    node_ = index;
    nodeName_ = node.name;
    nodeOperator_ = node.op;
    return std::move(*this);
  }
  // For an input that can't be imported: its name takes the place of the file.
  ParserError&& ofInput(const std::string& name) && {
    file_ = name;
    function_ = "importInput";
    return std::move(*this);
  }

 private:
  ErrorCode code_;
  std::string description_;
  std::string file_;
  std::string function_;
  int node_ = -1;
  std::string nodeName_;
  std::string nodeOperator_;
};

LayerType layerTypeOf(const std::string& op) {
  static const std::map<std::string_view, LayerType> types = {
      {"MatMul", LayerType::kMATRIX_MULTIPLY},
      {"Gemm", LayerType::kMATRIX_MULTIPLY},
      {"Conv", LayerType::kCONVOLUTION},
      {"ConvTranspose", LayerType::kDECONVOLUTION},
      {"Add", LayerType::kELEMENTWISE},
      {"Sub", LayerType::kELEMENTWISE},
      {"Mul", LayerType::kELEMENTWISE},
      {"Div", LayerType::kELEMENTWISE},
      {"Pow", LayerType::kELEMENTWISE},
      {"Equal", LayerType::kELEMENTWISE},
      {"Less", LayerType::kELEMENTWISE},
      {"Greater", LayerType::kELEMENTWISE},
      {"Min", LayerType::kELEMENTWISE},
      {"Max", LayerType::kELEMENTWISE},
      {"Relu", LayerType::kACTIVATION},
      {"Sigmoid", LayerType::kACTIVATION},
      {"Tanh", LayerType::kACTIVATION},
      {"Softmax", LayerType::kSOFTMAX},
      {"Cast", LayerType::kCAST},
      {"Concat", LayerType::kCONCATENATION},
      {"Constant", LayerType::kCONSTANT},
      {"Gather", LayerType::kGATHER},
      {"Reshape", LayerType::kSHUFFLE},
      {"Transpose", LayerType::kSHUFFLE},
      {"Flatten", LayerType::kSHUFFLE},
      {"Slice", LayerType::kSLICE},
      {"Expand", LayerType::kSLICE},
      {"Shape", LayerType::kSHAPE},
      {"Squeeze", LayerType::kSQUEEZE},
      {"Unsqueeze", LayerType::kUNSQUEEZE},
      {"ReduceMean", LayerType::kREDUCE},
      {"ReduceSum", LayerType::kREDUCE},
      {"ReduceMax", LayerType::kREDUCE},
      {"MaxPool", LayerType::kPOOLING},
      {"AveragePool", LayerType::kPOOLING},
      {"GlobalAveragePool", LayerType::kPOOLING},
      {"LayerNormalization", LayerType::kNORMALIZATION},
      {"BatchNormalization", LayerType::kSCALE},
      {"Where", LayerType::kSELECT},
      {"TopK", LayerType::kTOPK},
      {"NonZero", LayerType::kNON_ZERO},
      {"Resize", LayerType::kRESIZE},
      {"Sqrt", LayerType::kUNARY},
      {"Erf", LayerType::kUNARY},
      {"Exp", LayerType::kUNARY},
      {"Neg", LayerType::kUNARY},
      {"Sin", LayerType::kUNARY},
      {"Cos", LayerType::kUNARY},
      {"Range", LayerType::kFILL},
      {"ConstantOfShape", LayerType::kFILL},
      {"TensorScatter", LayerType::kKVCACHE_UPDATE},
      {"TRT_KVCacheUpdate", LayerType::kKVCACHE_UPDATE},
      {"RotaryEmbedding", LayerType::kROTARY_EMBEDDING},
  };
  const auto entry = types.find(op);
  return entry == types.end() ? LayerType::kIDENTITY : entry->second;
}

// The operation of the elementwise layer that an ONNX operator becomes.
ElementWiseOperation operationOf(const std::string& op) {
  static const std::map<std::string_view, ElementWiseOperation> operations = {
      {"Add", ElementWiseOperation::kSUM},   {"Sub", ElementWiseOperation::kSUB},
      {"Mul", ElementWiseOperation::kPROD},  {"Div", ElementWiseOperation::kDIV},
      {"Pow", ElementWiseOperation::kPOW},   {"Equal", ElementWiseOperation::kEQUAL},
      {"Less", ElementWiseOperation::kLESS}, {"Greater", ElementWiseOperation::kGREATER},
      {"Min", ElementWiseOperation::kMIN},   {"Max", ElementWiseOperation::kMAX},
  };
  return operations.at(op);
}

// True if the parser has an importer with this operator's name; it ignores the domain. It has all of ONNX's
// operators and the following ones of ONNX Runtime and TensorRT, except those in
// STAND_IN_UNSUPPORTED_OPERATORS, which are separated by commas.
bool isSupported(const Node& node) {
  const char* list = std::getenv("STAND_IN_UNSUPPORTED_OPERATORS");
  const std::string refused = std::string(",").append(list == nullptr ? "" : list).append(",");
  if (refused.find(',' + node.op + ',') != std::string::npos) return false;
  if (node.isPlugin()) return hasPlugins();
  constexpr bool kIsTen = NV_TENSORRT_MAJOR == 10;
  const auto isOneOf = [&node](std::initializer_list<std::string_view> ops) {
    return std::find(ops.begin(), ops.end(), node.op) != ops.end();
  };
  // The layers that these become were added later than the others.
  if (kIsTen && node.op == "Attention" && playedVersion() < Version{10, 14, 0}) return false;
  if (kIsTen && isOneOf({"TensorScatter", "RotaryEmbedding"}) && playedVersion() < Version{10, 15, 0}) {
    return false;
  }
  if (node.domain == "trt" || node.op.starts_with("TRT_")) {
    return !kIsTen && isOneOf({"TRT_Attention", "TRT_KVCacheUpdate"});
  }
  if (node.domain == "com.microsoft") {
    return isOneOf({"Gelu", "RotaryEmbedding"}) ||
           (!kIsTen && isOneOf({"MultiHeadAttention", "SimplifiedLayerNormalization",
                                "SkipSimplifiedLayerNormalization", "GroupQueryAttention", "MatMulNBits"}));
  }
  return node.domain.empty() || node.domain == "ai.onnx";
}

// Returns the reason why an importer refuses the node, in TensorRT-RTX 1.7's words, or nothing if it doesn't.
std::string importProblem(const Node& node, const std::map<std::string, Shape>& shapes) {
  const auto shapeOf = [&](size_t input) {
    const auto entry = shapes.find(node.inputs.at(input));
    return entry == shapes.end() ? Shape() : entry->second;
  };
  const auto usage = [&node](const std::string& call, const std::string& problem) {
    return "Invalid Node - " + node.name + "\n" + call + ": Error Code 3: API Usage Error (" + problem + ")";
  };
  if (node.op == "GroupQueryAttention" || node.op == "MatMulNBits") {
    return "Assertion failed: creator: failed to load " + node.op + " plugin.";
  }
  if (node.op == "Attention") {
    if (node.outputs.size() > 1) return "TensorRT only supports Attention nodes with one output.";
    if (node.hasInput(4)) return "Setting past_key for the Attention node is not supported in TensorRT.";
    if (node.attributes.count("softcap") > 0)
      return "Setting softcap is not supported in TensorRT Attention.";
    if (node.hasInput(3) && node.integer("is_causal", 0) != 0) {
      return usage("IAttention::setMask",
                   "Option mask cannot be used together with CausalMaskKind other than kNONE.");
    }
  }
  if (node.op == "TRT_Attention") {
    const std::string kind =
        node.text("causal_kind", node.integer("is_causal", 0) != 0 ? "upper_left" : "none");
    if (kind != "none" && kind != "upper_left" && kind != "lower_right")
      return "Unsupported causal_kind: " + kind + ".";
    if (node.hasInput(3) && kind != "none") return "Failed to set mask.";
    if (node.hasInput(5) && shapeOf(5).size() != 1) return "Failed to set key-value lengths.";
  }
  if (node.isCacheUpdate()) {
    const std::string mode = node.text("mode", "linear");
    if (mode != "linear") return "Only linear mode is supported for now, got " + mode + ".";
    const Shape cache = shapeOf(0);
    if (cache.size() != 4) return "The KV cache tensor must be a tensor of four dimensions.";
    const int64_t axis = node.integer("axis", -2);
    if (axis != -2 && axis != 2) {
      return "Sequence dimension must be -2, got " + std::to_string(axis < 0 ? axis : axis - 4) + ".";
    }
    if (cache[2] < 0) {
      return usage("ITensor::getDimensions",
                   node.name + ": The KV cache tensor must have a static sequence length dimension.");
    }
  }
  return "";
}

class Parser : public Slots<nvonnxparser::IParser> {
 public:
  Parser(Network* network, ILogger* logger) : network_(*network), logger_(*logger) {}

  bool parse(void const* bytes, size_t size, char const* path) noexcept override {
    if (standInFaultOccurs("parse")) {
      return fail({ErrorCode::kMEM_ALLOC_FAILED, "Memory allocation failed."});
    }
    if (!read(bytes, size, path) || !checkInputs() || !checkNodes()) return false;
    std::vector<ValueInfo> values;
    try {
      const Session session(network_.model->translate(true));
      values = session.inputs();
      values.insert(values.end(), session.outputs().begin(), session.outputs().end());
    } catch (const std::exception& error) {
      return fail({ErrorCode::kINVALID_GRAPH, error.what()});
    }
    if (!importNodes(values)) return false;
    fill(values);
    return true;
  }

  bool parseFromFile(char const* path, int) noexcept override {
    std::ifstream file(path, std::ios::binary);
    std::stringstream text;
    text << file.rdbuf();
    if (!file)
      return fail({ErrorCode::kMODEL_DESERIALIZE_FAILED, std::string("Failed to open file: ") + path});
    return parse(text.str().data(), text.str().size(), path);
  }

  bool supportsOperator(char const* op) const noexcept override { return isSupported({"", op, "", {}, {}}); }

  bool supportsModelV2(void const* bytes, size_t size, char const* path) noexcept override {
    subgraphs_.clear();
    if (!read(bytes, size, path)) return false;
    const std::vector<Node>& nodes = network_.model->nodes();
    for (size_t i = 0; i < nodes.size(); ++i) {
      const bool supported = isSupported(nodes[i]);
      if (subgraphs_.empty() || subgraphs_.back().supported != supported)
        subgraphs_.push_back({supported, {}});
      subgraphs_.back().nodes.push_back(static_cast<int64_t>(i));
    }
    const bool all = checkInputs() && checkNodes();
    network_.model.reset();
    return all;
  }
  int64_t getNbSubgraphs() noexcept override { return static_cast<int64_t>(subgraphs_.size()); }
  bool isSubgraphSupported(int64_t const index) noexcept override {
    return subgraphs_.at(static_cast<size_t>(index)).supported;
  }
  int64_t* getSubgraphNodes(int64_t const index, int64_t& length) noexcept override {
    std::vector<int64_t>& nodes = subgraphs_.at(static_cast<size_t>(index)).nodes;
    length = static_cast<int64_t>(nodes.size());
    return nodes.data();
  }

  int getNbErrors() const noexcept override { return static_cast<int>(errors_.size()); }
  nvonnxparser::IParserError const* getError(int index) const noexcept override {
    return &errors_.at(static_cast<size_t>(index));
  }
  void clearErrors() noexcept override { errors_.clear(); }
  void setFlags(nvonnxparser::OnnxParserFlags flags) noexcept override { flags_ = flags; }
  nvonnxparser::OnnxParserFlags getFlags() const noexcept override { return flags_; }
  void setFlag(nvonnxparser::OnnxParserFlag flag) noexcept override {
    flags_ |= 1u << static_cast<int>(flag);
  }
  void clearFlag(nvonnxparser::OnnxParserFlag flag) noexcept override {
    flags_ &= ~(1u << static_cast<int>(flag));
  }
  bool getFlag(nvonnxparser::OnnxParserFlag flag) const noexcept override {
    return (flags_ >> static_cast<int>(flag) & 1) != 0;
  }

 private:
  struct Subgraph {
    bool supported;
    std::vector<int64_t> nodes;
  };

  bool fail(ParserError error) {
    logger_.log(ILogger::Severity::kERROR, (std::string("ModelImporter.cpp:1: ") + error.desc()).c_str());
    errors_.push_back(std::move(error));
    return false;
  }

  bool read(void const* bytes, size_t size, char const* path) {
    try {
      network_.model.emplace(std::string_view(static_cast<const char*>(bytes), size),
                             path == nullptr ? "" : path);
    } catch (const std::exception& error) {
      const std::string reason = error.what();
      if (!reason.starts_with("Failed to ")) {
        return fail({ErrorCode::kMODEL_DESERIALIZE_FAILED, "Failed to parse the ONNX model."});
      }
      logger_.log(ILogger::Severity::kERROR, ("WeightsContext.cpp:178: " + reason).c_str());
      return fail({ErrorCode::kINVALID_GRAPH, "Assertion failed: Failed to import initializer."});
    }
    return true;
  }

  bool checkInputs() {
    bool all = true;
    for (const ValueInfo& input : network_.model->inputs()) {
      DataType type;
      if (toDataType(input.type, type)) continue;
      all = fail(
          ParserError(
              ErrorCode::kUNSUPPORTED_NODE_DATATYPE,
              "Assertion failed: convertDtype(): Failed to convert ONNX date type to TensorRT data type.")
              .ofInput(input.name));
    }
    return all;
  }

  bool checkNodes() {
    bool all = true;
    const std::vector<Node>& nodes = network_.model->nodes();
    for (size_t i = 0; i < nodes.size(); ++i) {
      logger_.log(ILogger::Severity::kVERBOSE,
                  ("Parsing node: " + nodes[i].name + " [" + nodes[i].op + "]").c_str());
      if (isSupported(nodes[i])) continue;
      all = fail(
          ParserError(ErrorCode::kUNSUPPORTED_NODE,
                      "Assertion failed: creator && \"Plugin not found, are the plugin name, version, and "
                      "namespace correct?\"")
              .at(static_cast<int>(i), nodes[i]));
    }
    return all;
  }

  // Imports one node after another. Stops at the first that can't be imported.
  bool importNodes(const std::vector<ValueInfo>& values) {
    std::map<std::string, Shape> shapes;
    for (const ValueInfo& value : values) shapes[value.name] = value.shape;
    const std::vector<Node>& nodes = network_.model->nodes();
    for (size_t i = 0; i < nodes.size(); ++i) {
      std::string problem = importProblem(nodes[i], shapes);
      if (problem.empty()) continue;
      return fail(
          ParserError(ErrorCode::kINVALID_NODE, std::move(problem)).at(static_cast<int>(i), nodes[i]));
    }
    return true;
  }

  void fill(const std::vector<ValueInfo>& values) {
    const OnnxModel& model = *network_.model;
    for (const ValueInfo& value : values) {
      auto tensor = std::make_unique<Object<Tensor, apiv::VTensor>>(value);
      network_.tensors.emplace(value.name, std::move(tensor));
    }
    const auto find = [this](const std::string& name) {
      const auto entry = network_.tensors.find(name);
      return entry == network_.tensors.end() ? nullptr : entry->second.get();
    };
    for (const ValueInfo& input : model.inputs()) {
      network_.inputs.push_back(find(input.name));
      network_.inputs.back()->isInput = true;
    }
    for (const ValueInfo& output : model.outputs()) {
      network_.outputs.push_back(find(output.name));
      network_.outputs.back()->isOutput = true;
    }
    for (const std::string& name : model.shapeInputs()) find(name)->isShape = true;
    for (const Node& node : model.nodes()) {
      // Initializers are weights of layers here, and not tensors.
      std::vector<Tensor*> inputs;
      std::vector<Tensor*> outputs;
      for (const std::string& input : node.inputs) {
        if (input.empty() || find(input) != nullptr) inputs.push_back(find(input));
      }
      for (const std::string& output : node.outputs) outputs.push_back(find(output));
      if (node.op == "TRT_Attention" || (node.op == "Attention" && node.domain.empty())) {
        if (node.op == "Attention") scaleQueryAndKey(node, inputs);
        add<AttentionInputLayer, apiv::VLayer, apiv::VAttentionBoundaryLayer>(node.name, std::move(inputs));
        add<PlainLayer, apiv::VLayer>(LayerType::kATTENTION_OUTPUT, node.name + "_AttentionOutput",
                                      std::vector<Tensor*>(), std::move(outputs));
        continue;
      }
      const LayerType type = layerTypeOf(node.op);
      if (type == LayerType::kELEMENTWISE) {
        add<ElementWiseLayer, apiv::VLayer, apiv::VElementWiseLayer>(operationOf(node.op), node.name,
                                                                     std::move(inputs), std::move(outputs));
      } else if (type == LayerType::kCONSTANT) {
        add<ConstantLayer, apiv::VLayer, apiv::VConstantLayer>(std::nullopt, node.name, std::move(outputs));
      } else {
        add<PlainLayer, apiv::VLayer>(type, node.name, std::move(inputs), std::move(outputs));
      }
    }
  }

  // Multiplies the query and the key of ONNX's Attention by the square root of its scale, even if that is 1,
  // because IAttention scales nothing. If the key is a KV cache, this copies it.
  void scaleQueryAndKey(const Node& node, std::vector<Tensor*>& inputs) {
    constexpr size_t kScaled = 2;
    const float headDim = static_cast<float>(std::max<int64_t>(inputs.at(0)->info.shape.back(), 1));
    const float root = std::sqrt(node.number("scale", 1 / std::sqrt(headDim)));
    for (size_t i = 0; i < kScaled; ++i) {
      const auto unnamed = [this] {
        return "(Unnamed Layer* " + std::to_string(network_.getNbLayers()) + ") ";
      };
      std::string name = unnamed() + "[Constant]";
      Tensor* factor = addTensor({name + "_output", 1, {1, 1, 1, 1}, std::vector<std::string>(4)});
      add<ConstantLayer, apiv::VLayer, apiv::VConstantLayer>(root, name, std::vector{factor});
      if (inputs[i]->info.type != factor->info.type) {
        name = "ONNXTRT_castHelper_" + std::to_string(network_.getNbLayers());
        Tensor* cast =
            addTensor({name + "_output", inputs[i]->info.type, factor->info.shape, factor->info.symbols});
        add<PlainLayer, apiv::VLayer>(LayerType::kCAST, name, std::vector{factor}, std::vector{cast});
        factor = cast;
      }
      name = unnamed() + "[ElementWise]";
      ValueInfo product = inputs[i]->info;
      product.name = name + "_output";
      Tensor* scaled = addTensor(std::move(product));
      add<ElementWiseLayer, apiv::VLayer, apiv::VElementWiseLayer>(
          ElementWiseOperation::kPROD, name, std::vector{inputs[i], factor}, std::vector{scaled});
      inputs[i] = scaled;
    }
  }

  Tensor* addTensor(ValueInfo value) {
    std::string name = value.name;
    auto& tensor = network_.tensors[std::move(name)];
    tensor = std::make_unique<Object<Tensor, apiv::VTensor>>(std::move(value));
    return tensor.get();
  }

  template <class Layer, class... Interfaces, class... Arguments>
  void add(Arguments&&... arguments) {
    network_.layers.push_back(
        std::make_shared<Object<Layer, Interfaces...>>(std::forward<Arguments>(arguments)...));
  }

  Network& network_;
  ILogger& logger_;
  std::vector<ParserError> errors_;
  std::vector<Subgraph> subgraphs_;
  nvonnxparser::OnnxParserFlags flags_ = 1;  // kNATIVE_INSTANCENORM
};

}  // namespace
}  // namespace stand_in

namespace {
std::atomic<bool> pluginsAreRegistered = false;
}
bool stand_in::hasPlugins() noexcept {
  return pluginsAreRegistered;
}
// Called by the plugin library.
extern "C" STAND_IN_EXPORT void standInRegisterPlugins() noexcept {
  pluginsAreRegistered = true;
}

// Called by the parser's library.
extern "C" STAND_IN_EXPORT void* standInCreateParser(void* network, void* logger) noexcept {
  using namespace stand_in;
  auto* parser = new Object<Parser, nvonnxparser::IParser>(
      static_cast<Network*>(static_cast<INetworkDefinition*>(network)), static_cast<ILogger*>(logger));
  return static_cast<nvonnxparser::IParser*>(parser);
}
