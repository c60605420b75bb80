#include "model.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>

namespace stand_in {
namespace {

// Field numbers in onnx.proto.
enum : uint32_t {
  kModelGraph = 7,
  kModelOpset = 8,
  kOpsetDomain = 1,
  kOpsetVersion = 2,
  kGraphNode = 1,
  kGraphInitializer = 5,
  kGraphInput = 11,
  kGraphOutput = 12,
  kNodeInput = 1,
  kNodeOutput = 2,
  kNodeName = 3,
  kNodeOp = 4,
  kNodeAttribute = 5,
  kNodeDomain = 7,
  kTensorName = 8,
  kTensorRaw = 9,
  kTensorExternal = 13,
  kTensorLocation = 14,
  kAttributeName = 1,
  kAttributeFloat = 2,
  kAttributeInteger = 3,
  kAttributeText = 4,
  kAttributeIntegers = 8,
  kAttributeType = 20,
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

// Copies the external data that a tensor refers to into the tensor.
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

std::map<std::string, Message> readAttributes(const Message& node) {
  std::map<std::string, Message> attributes;
  for (Message& attribute : node.messages(kNodeAttribute)) {
    std::string name = attribute.text(kAttributeName);
    attributes.emplace(std::move(name), std::move(attribute));
  }
  return attributes;
}

std::string integerAttribute(const std::string& name, uint64_t value) {
  constexpr uint64_t kTypeInteger = 2;
  Message attribute;
  attribute.add(kAttributeName, name);
  attribute.add(kAttributeInteger, value);
  attribute.add(kAttributeType, kTypeInteger);
  return attribute.write();
}

std::string floatAttribute(const std::string& name, float value) {
  constexpr uint64_t kTypeFloat = 1;
  Message attribute;
  attribute.add(kAttributeName, name);
  attribute.fields.push_back({kAttributeFloat, 5, 0, {reinterpret_cast<const char*>(&value), sizeof value}});
  attribute.add(kAttributeType, kTypeFloat);
  return attribute.write();
}

Message makeNode(const std::string& op, const std::vector<std::string>& inputs,
                 const std::vector<std::string>& outputs) {
  Message node;
  for (const std::string& input : inputs) node.add(kNodeInput, input);
  for (const std::string& output : outputs) node.add(kNodeOutput, output);
  node.add(kNodeOp, op);
  return node;
}

// TensorRT takes indices and lengths as int32, ONNX as int64. Appends a node to `nodes` that casts `name`.
std::string castToInt64(const std::string& name, const std::string& reader, std::vector<Message>& nodes) {
  constexpr uint64_t kInt64 = 7;
  const std::string cast = reader + "/" + name + "/int64";
  nodes.push_back(makeNode("Cast", {name}, {cast}));
  nodes.back().add(kNodeAttribute, integerAttribute("to", kInt64));
  return cast;
}

// TRT_Attention(query, key, value, mask, query lengths, key/value lengths) passes its inputs to IAttention,
// which, unlike ONNX's Attention, scales nothing. ONNX's causal mask begins at the first key or, with
// nonpad_kv_seqlen, ends at the last. These are TensorRT's upper_left and lower_right.
void translateAttention(const Node& node, std::vector<Message>& nodes) {
  const std::string kind =
      node.text("causal_kind", node.integer("is_causal", 0) != 0 ? "upper_left" : "none");
  const bool hasLengths = node.hasInput(5);
  const bool isPacked = node.text("query_form", "padded_bhnd") != "padded_bhnd";
  if (node.hasInput(4) || isPacked || (kind == "upper_left" && hasLengths) ||
      (kind == "lower_right" && !hasLengths)) {
    throw std::runtime_error(
        "The stand-in plays TRT_Attention of padded tensors without query lengths, lower_right with "
        "key/value "
        "lengths, and upper_left without.");
  }
  std::vector<std::string> inputs(node.inputs.begin(), node.inputs.begin() + 3);
  inputs.push_back(node.hasInput(3) ? node.inputs[3] : "");
  if (hasLengths) {
    inputs.insert(inputs.end(), {"", "", castToInt64(node.inputs[5], node.outputs.at(0), nodes)});
  }
  Message attention = makeNode("Attention", inputs, node.outputs);
  attention.add(kNodeAttribute, integerAttribute("is_causal", kind == "none" ? 0 : 1));
  attention.add(kNodeAttribute, floatAttribute("scale", 1));
  nodes.push_back(std::move(attention));
}

// TensorRT promises no order for equal values. ONNX Runtime's TopK gives the first ones in ascending order.
// The stand-in gives the last ones in descending order, by reading the operand backwards and counting the
// indices backwards.
void translateTopK(const Node& node, std::vector<Message>& nodes) {
  constexpr uint64_t kTypeIntegers = 7;
  const std::string& indices = node.outputs.at(1);
  const auto name = [&](const char* part) { return indices + "/" + part; };
  const auto constant = [&](const char* part, int64_t number) {
    Message attribute;
    attribute.add(kAttributeName, "value_ints");
    attribute.add(kAttributeIntegers, static_cast<uint64_t>(number));
    attribute.add(kAttributeType, kTypeIntegers);
    nodes.push_back(makeNode("Constant", {}, {name(part)}));
    nodes.back().add(kNodeAttribute, attribute.write());
    return name(part);
  };
  const std::string axis = constant("axis", node.integer("axis", -1));
  const std::string minusOne = constant("step", -1);
  nodes.push_back(makeNode("Slice", {node.inputs[0], minusOne, constant("end", INT64_MIN), axis, minusOne},
                           {name("backwards")}));
  Message best = makeNode("TopK", {name("backwards"), node.inputs[1]}, {node.outputs[0], name("found")});
  for (const auto& [_, attribute] : node.attributes) best.add(kNodeAttribute, attribute.write());
  nodes.push_back(std::move(best));
  nodes.push_back(makeNode("Shape", {node.inputs[0]}, {name("dims")}));
  nodes.push_back(makeNode("Gather", {name("dims"), axis}, {name("size")}));
  nodes.push_back(makeNode("Add", {name("size"), minusOne}, {name("last")}));
  nodes.push_back(makeNode("Sub", {name("last"), name("found")}, {indices}));
}

bool isOneOf(const std::string& op, std::initializer_list<const char*> ops) {
  return std::any_of(ops.begin(), ops.end(), [&op](const char* each) { return op == each; });
}

}  // namespace

int64_t Node::integer(const std::string& attribute, int64_t otherwise) const {
  const auto entry = attributes.find(attribute);
  return entry == attributes.end() ? otherwise : static_cast<int64_t>(entry->second.value(kAttributeInteger));
}

float Node::number(const std::string& attribute, float otherwise) const {
  const auto entry = attributes.find(attribute);
  if (entry == attributes.end()) return otherwise;
  for (const Field& field : entry->second.fields) {
    if (field.number == kAttributeFloat && field.bytes.size() == sizeof otherwise) {
      std::memcpy(&otherwise, field.bytes.data(), sizeof otherwise);
    }
  }
  return otherwise;
}

std::string Node::text(const std::string& attribute, const std::string& otherwise) const {
  const auto entry = attributes.find(attribute);
  return entry == attributes.end() ? otherwise : entry->second.text(kAttributeText);
}

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
                      node.texts(kNodeInput), node.texts(kNodeOutput), readAttributes(node)});
  }
  for (const Message& input : graph_.messages(kGraphInput)) {
    ValueInfo value = readValue(input);
    if (constants.count(value.name) == 0) inputs_.push_back(std::move(value));
  }
  for (const Message& output : graph_.messages(kGraphOutput)) outputs_.push_back(readValue(output));
  model_.remove(kModelGraph);
  model_.add(kModelGraph, graph_.write());
}

std::string OnnxModel::translate(bool withAllOutputs) const {
  // TensorScatter, and Attention with nonpad_kv_seqlen, exist since ONNX's operator set 24.
  constexpr uint64_t kFirstOpset = 24;
  Message graph;
  size_t next = 0;
  bool needsOpset = false;
  for (const Field& field : graph_.fields) {
    if (field.number != kGraphNode) {
      graph.fields.push_back(field);
      continue;
    }
    const Node& node = nodes_[next++];
    std::vector<Message> nodes;
    if (node.isCacheUpdate()) {
      std::vector<std::string> inputs = node.inputs;
      if (node.hasInput(2)) inputs[2] = castToInt64(inputs[2], node.outputs.at(0), nodes);
      nodes.push_back(makeNode("TensorScatter", inputs, node.outputs));
    } else if (node.op == "TRT_Attention") {
      translateAttention(node, nodes);
    } else if (node.op == "TopK" && node.outputs.size() == 2 && !node.outputs[1].empty()) {
      translateTopK(node, nodes);
    } else if (node.op == "Attention" && node.domain.empty() && node.hasInput(6)) {
      // The parser ignores nonpad_kv_seqlen.
      Message attention(field.bytes);
      attention.remove(kNodeInput);
      for (size_t i = 0; i < 6; ++i) attention.add(kNodeInput, node.inputs[i]);
      nodes.push_back(std::move(attention));
    } else {
      graph.fields.push_back(field);
    }
    for (const Message& each : nodes) graph.add(kGraphNode, each.write());
    needsOpset = needsOpset || (!nodes.empty() && node.op != "TopK");
  }
  std::set<std::string> outputs;
  for (const ValueInfo& output : outputs_) outputs.insert(output.name);
  for (const Node& node : nodes_) {
    for (const std::string& output : node.outputs) {
      if (!withAllOutputs || output.empty() || !outputs.insert(output).second) continue;
      Message value;
      value.add(kValueName, output);
      graph.add(kGraphOutput, value.write());
    }
  }
  Message model;
  for (const Field& field : model_.fields) {
    if (field.number == kModelGraph) continue;
    const Message opset(field.number == kModelOpset ? field.bytes : "");
    const bool isOnnx = opset.text(kOpsetDomain).empty() || opset.text(kOpsetDomain) == "ai.onnx";
    if (opset.has(kOpsetVersion) && isOnnx && needsOpset && opset.value(kOpsetVersion) < kFirstOpset) {
      Message raised;
      raised.add(kOpsetVersion, kFirstOpset);
      model.add(kModelOpset, raised.write());
    } else {
      model.fields.push_back(field);
    }
  }
  model.add(kModelGraph, graph.write());
  return model.write();
}

std::vector<std::string> OnnxModel::shapeInputs() const {
  // Goes from operands that give shapes back to the inputs, through operators that compute with shapes.
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
    if (node.isCacheUpdate() && isAmong(inputs_, node.inputs.at(0)) &&
        isAmong(outputs_, node.outputs.at(0))) {
      pairs.emplace_back(node.outputs[0], node.inputs[0]);
    }
  }
  return pairs;
}

}  // namespace stand_in
