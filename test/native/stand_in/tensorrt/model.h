// An ONNX model, as far as the stand-in looks into it: its nodes, inputs, outputs and initializers. Computing
// is ONNX Runtime's.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "protobuf.h"

namespace stand_in {

using Shape = std::vector<int64_t>;

// A value's type as declared or inferred. `type` is ONNX's TensorProto.DataType; 0 for what is no tensor.
struct ValueInfo {
  std::string name;
  int type = 0;
  Shape shape;                       // -1: dynamic
  std::vector<std::string> symbols;  // per dimension; empty where it has no name
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
  // Known to TensorRT only as a plugin of its own library of them; TensorRT-RTX has none.
  bool isPlugin() const { return op == "RoiAlign" || op == "EfficientNMS_TRT"; }
  // Updates a KV cache: TensorScatter, or TensorRT's own TRT_KVCacheUpdate, which is the same.
  bool isCacheUpdate() const { return op == "TensorScatter" || op == "TRT_KVCacheUpdate"; }
};

// Whether the library of plugins has registered them.
bool hasPlugins() noexcept;

class OnnxModel {
 public:
  // `text` is a ModelProto. External data is read from beside `path`, into the model. Throws
  // std::runtime_error.
  OnnxModel(std::string_view text, const std::string& path);

  const std::vector<Node>& nodes() const noexcept { return nodes_; }
  const std::vector<ValueInfo>& inputs() const noexcept { return inputs_; }
  const std::vector<ValueInfo>& outputs() const noexcept { return outputs_; }
  const std::vector<std::string>& initializers() const noexcept { return initializers_; }
  uint64_t weightBytes() const noexcept { return weightBytes_; }

  // The model, its weights within it.
  std::string write() const { return model_.write(); }
  // What ONNX Runtime is to compute: TensorRT's operators in ONNX's terms, and ONNX's as TensorRT's parser
  // reads them. `withAllOutputs`: with all that the nodes compute as outputs. Throws std::runtime_error for a
  // form that is not played.
  std::string translate(bool withAllOutputs = false) const;

  // Inputs whose values are shapes: small integers that reach an operand that says a shape.
  std::vector<std::string> shapeInputs() const;
  // True for an output of a size that only computing tells.
  bool isDataDependent(const std::string& output) const;
  // Pairs of output and input that share memory: KV caches that TensorScatter updates in place.
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
