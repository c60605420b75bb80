// A model in ONNX Runtime, which does the stand-in's computing: native/runtime/onnxruntime/ort_api.h has the
// slots of its C API. The library is NODE_TENSORRT_ONNXRUNTIME, else that of the package onnxruntime-node.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "model.h"

namespace stand_in {

// Bytes of an element of ONNX's TensorProto.DataType; 0 for what TensorRT has no type for.
size_t elementBytes(int type) noexcept;
// Elements of a static shape.
int64_t volume(const Shape& shape) noexcept;

struct Feed {
  std::string name;
  int type = 0;
  Shape shape;
  const void* data = nullptr;
};

struct Result {
  std::string name;
  int type = 0;
  Shape shape;
  std::vector<char> bytes;
};

class Session {
 public:
  // Throws std::runtime_error with ONNX Runtime's words.
  explicit Session(const std::string& model);
  ~Session();

  const std::vector<ValueInfo>& inputs() const noexcept { return inputs_; }
  const std::vector<ValueInfo>& outputs() const noexcept { return outputs_; }

  // Thread-safe. Throws std::runtime_error with ONNX Runtime's words.
  std::vector<Result> run(std::span<const Feed> feeds) const;

 private:
  struct Handle;
  std::unique_ptr<Handle> handle_;
  std::vector<ValueInfo> inputs_;
  std::vector<ValueInfo> outputs_;
};

}  // namespace stand_in
