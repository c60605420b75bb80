// An ONNX model, as far as the stand-in reads it: nodes, inputs, outputs and initializers. ONNX Runtime does
// the computing.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "protobuf.h"

namespace stand_in {

using Shape = std::vector<int64_t>;

// The declared or inferred type of a value. `type` is from ONNX's TensorProto.DataType, or 0 if the value
// isn't a tensor.
struct ValueInfo {
  std::string name;
  int type = 0;
  Shape shape;                       // -1: dynamic
  std::vector<std::string> symbols;  // per dimension; empty if it has no name
};

struct Node {
  std::string name;
  std::string op;
  std::string domain;
  std::vector<std::string> inputs;
  std::vector<std::string> outputs;
  std::map<std::string, Message> attributes = {};

  bool hasInput(size_t index) const { return index < inputs.size() && !inputs[index].empty(); }
  int64_t integer(const std::string& attribute, int64_t otherwise) const;
  float number(const std::string& attribute, float otherwise) const;
  std::string text(const std::string& attribute, const std::string& otherwise) const;
  // True if TensorRT has this operator only as a plugin, in its plugin library. TensorRT-RTX doesn't have it
  // at all.
  bool isPlugin() const { return op == "RoiAlign" || op == "EfficientNMS_TRT"; }
  // True if the node updates a KV cache: TensorScatter, or TensorRT's TRT_KVCacheUpdate, which does the same.
  bool isCacheUpdate() const { return op == "TensorScatter" || op == "TRT_KVCacheUpdate"; }
};

// True if the plugin library has registered its plugins.
bool hasPlugins() noexcept;

class OnnxModel {
 public:
  // Reads a ModelProto from `text`. Copies external data, which is beside `path`, into the model. Throws
  // std::runtime_error.
  OnnxModel(std::string_view text, const std::string& path);

  const std::vector<Node>& nodes() const noexcept { return nodes_; }
  const std::vector<ValueInfo>& inputs() const noexcept { return inputs_; }
  const std::vector<ValueInfo>& outputs() const noexcept { return outputs_; }
  const std::vector<std::string>& initializers() const noexcept { return initializers_; }
  uint64_t weightBytes() const noexcept { return weightBytes_; }

  // Returns the model including its weights.
  std::string write() const { return model_.write(); }
  // Returns the model that ONNX Runtime computes: TensorRT's operators are expressed with ONNX's, and ONNX's
  // operators do what TensorRT's parser makes of them. If `withAllOutputs` is true, everything the nodes
  // compute is an output. Throws std::runtime_error for forms that the stand-in doesn't play.
  std::string translate(bool withAllOutputs = false) const;

  // Inputs whose values are shapes: small integers that reach an operand that gives a shape.
  std::vector<std::string> shapeInputs() const;
  // True if the size of an output isn't known before it is computed.
  bool isDataDependent(const std::string& output) const;
  // Pairs of an output and an input that share memory: KV caches that TensorScatter updates in place.
  std::vector<std::pair<std::string, std::string>> aliases() const;

 private:
  Message model_;
  Message graph_;
  std::vector<Node> nodes_;
  std::vector<ValueInfo> inputs_;
  std::vector<ValueInfo> outputs_;
  std::vector<std::string> initializers_;
  uint64_t weightBytes_ = 0;
};

}  // namespace stand_in
