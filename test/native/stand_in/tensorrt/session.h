// A model in ONNX Runtime, which does the computing for the stand-in. native/runtime/onnxruntime/ort_api.h
// has the slots of its C API. NODE_TENSORRT_ONNXRUNTIME names the library; the default is that of the package
// onnxruntime-node.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "model.h"

namespace stand_in {

// Bytes of an element of this TensorProto.DataType; 0 if TensorRT doesn't have the type.
size_t elementBytes(int type) noexcept;
// Number of elements of a static shape.
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
  // Throws std::runtime_error with ONNX Runtime's message.
  explicit Session(const std::string& model);
  ~Session();

  const std::vector<ValueInfo>& inputs() const noexcept { return inputs_; }
  const std::vector<ValueInfo>& outputs() const noexcept { return outputs_; }

  // Thread-safe. Throws std::runtime_error with ONNX Runtime's message.
  std::vector<Result> run(std::span<const Feed> feeds) const;

 private:
  struct Handle;
  std::unique_ptr<Handle> handle_;
  std::vector<ValueInfo> inputs_;
  std::vector<ValueInfo> outputs_;
};

}  // namespace stand_in
