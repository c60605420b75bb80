#include "model.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>

namespace stand_in {
namespace {

// Field numbers of onnx.proto.
enum : uint32_t {
  kModelGraph = 7,
  kGraphNode = 1,
  kGraphInitializer = 5,
  kGraphInput = 11,
  kGraphOutput = 12,
  kNodeInput = 1,
  kNodeOutput = 2,
  kNodeName = 3,
  kNodeOp = 4,
  kNodeDomain = 7,
  kTensorName = 8,
  kTensorRaw = 9,
  kTensorExternal = 13,
  kTensorLocation = 14,
  kValueName = 1,
  kValueType = 2,
  kTypeTensor = 1,
  kTensorTypeElement = 1,
  kTensorTypeShape = 2,
};

ValueInfo readValue(const Message& message) {
  ValueInfo value;
  value.name = message.text(kValueName);
  const Message type(message.text(kValueType));
  if (!type.has(kTypeTensor)) return value;
  const Message tensor(type.text(kTypeTensor));
  value.type = static_cast<int>(tensor.value(kTensorTypeElement));
  for (const Message& dimension : Message(tensor.text(kTensorTypeShape)).messages(1)) {
    value.shape.push_back(dimension.has(1) ? static_cast<int64_t>(dimension.value(1)) : -1);
    value.symbols.push_back(dimension.text(2));
  }
  return value;
}

// Reads what the tensor refers to into it.
void inlineExternalData(Message& tensor, const std::string& modelPath) {
  if (tensor.value(kTensorLocation) != 1) return;
  std::map<std::string, std::string> entries;
  for (const Message& entry : tensor.messages(kTensorExternal)) entries[entry.text(1)] = entry.text(2);
  const auto path = std::filesystem::path(modelPath).parent_path() / entries["location"];
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  if (!file) throw std::runtime_error("Failed to open file: " + path.string());
  const uint64_t size = static_cast<uint64_t>(file.tellg());
  const uint64_t offset = entries.count("offset") > 0 ? std::stoull(entries["offset"]) : 0;
  const uint64_t length = entries.count("length") > 0 ? std::stoull(entries["length"]) : size - offset;
  if (offset > size || length > size - offset) {
    throw std::runtime_error("Failed to read file: " + path.string());
  }
  std::string data(length, '\0');
  file.seekg(static_cast<std::streamoff>(offset));
  file.read(data.data(), static_cast<std::streamsize>(length));
  tensor.remove(kTensorExternal);
  tensor.remove(kTensorLocation);
  tensor.remove(kTensorRaw);
  tensor.add(kTensorRaw, std::move(data));
}

bool isOneOf(const std::string& op, std::initializer_list<const char*> ops) {
  return std::any_of(ops.begin(), ops.end(), [&op](const char* each) { return op == each; });
}

}  // namespace

OnnxModel::OnnxModel(std::string_view text, const std::string& path) : model_(text) {
  if (!model_.has(kModelGraph)) throw std::runtime_error("the model has no graph");
  graph_ = Message(model_.text(kModelGraph));
  std::set<std::string> constants;
  for (Field& field : graph_.fields) {
    if (field.number != kGraphInitializer) continue;
    Message tensor(field.bytes);
    inlineExternalData(tensor, path);
    field.bytes = tensor.write();
    weightBytes_ += field.bytes.size();
    initializers_.push_back(tensor.text(kTensorName));
    constants.insert(initializers_.back());
  }
  for (const Message& node : graph_.messages(kGraphNode)) {
    nodes_.push_back({node.text(kNodeName), node.text(kNodeOp), node.text(kNodeDomain),
                      node.texts(kNodeInput), node.texts(kNodeOutput)});
  }
  for (const Message& input : graph_.messages(kGraphInput)) {
    ValueInfo value = readValue(input);
    if (constants.count(value.name) == 0) inputs_.push_back(std::move(value));
  }
  for (const Message& output : graph_.messages(kGraphOutput)) outputs_.push_back(readValue(output));
  model_.remove(kModelGraph);
  model_.add(kModelGraph, graph_.write());
}

std::string OnnxModel::writeWithAllOutputs() const {
  Message graph = graph_;
  std::set<std::string> outputs;
  for (const ValueInfo& output : outputs_) outputs.insert(output.name);
  for (const Node& node : nodes_) {
    for (const std::string& output : node.outputs) {
      if (output.empty() || !outputs.insert(output).second) continue;
      Message value;
      value.add(kValueName, output);
      graph.add(kGraphOutput, value.write());
    }
  }
  Message model = model_;
  model.remove(kModelGraph);
  model.add(kModelGraph, graph.write());
  return model.write();
}

std::vector<std::string> OnnxModel::shapeInputs() const {
  // From the operands that say shapes back to the inputs, through what computes with shapes.
  std::set<std::string> wanted;
  for (auto node = nodes_.rbegin(); node != nodes_.rend(); ++node) {
    const bool isWanted = std::any_of(node->outputs.begin(), node->outputs.end(),
                                      [&](const std::string& output) { return wanted.count(output) > 0; });
    size_t first = node->inputs.size();
    if (isWanted && isOneOf(node->op, {"Cast", "Concat", "Unsqueeze", "Squeeze", "Gather", "Add", "Sub",
                                       "Mul", "Div", "Identity", "Slice", "Reshape", "Min", "Max"})) {
      first = 0;
    } else if (isOneOf(node->op, {"Reshape", "Expand", "Slice", "Tile", "Pad", "Resize", "TopK"})) {
      first = 1;
    } else if (isOneOf(node->op, {"ConstantOfShape", "Range"})) {
      first = 0;
    }
    for (size_t i = first; i < node->inputs.size(); ++i) wanted.insert(node->inputs[i]);
  }
  constexpr int kInt32 = 6;
  constexpr int kInt64 = 7;
  std::vector<std::string> names;
  for (const ValueInfo& input : inputs_) {
    const bool isInteger = input.type == kInt32 || input.type == kInt64;
    if (isInteger && input.shape.size() <= 1 && wanted.count(input.name) > 0) names.push_back(input.name);
  }
  return names;
}

bool OnnxModel::isDataDependent(const std::string& output) const {
  std::set<std::string> dependent;
  for (const Node& node : nodes_) {
    const bool makes = isOneOf(node.op, {"NonZero", "NonMaxSuppression", "Unique", "Compress"});
    const bool hands = std::any_of(node.inputs.begin(), node.inputs.end(),
                                   [&](const std::string& input) { return dependent.count(input) > 0; });
    if (makes || hands) dependent.insert(node.outputs.begin(), node.outputs.end());
  }
  return dependent.count(output) > 0;
}

std::vector<std::pair<std::string, std::string>> OnnxModel::aliases() const {
  std::vector<std::pair<std::string, std::string>> pairs;
  const auto isAmong = [](const std::vector<ValueInfo>& values, const std::string& name) {
    return std::any_of(values.begin(), values.end(),
                       [&](const ValueInfo& value) { return value.name == name; });
  };
  for (const Node& node : nodes_) {
    if (node.op == "TensorScatter" && isAmong(inputs_, node.inputs.at(0)) &&
        isAmong(outputs_, node.outputs.at(0))) {
      pairs.emplace_back(node.outputs[0], node.inputs[0]);
    }
  }
  return pairs;
}

}  // namespace stand_in
