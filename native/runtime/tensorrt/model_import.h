// Parses an ONNX model into a TensorRT network, with TensorRT's parser.
#pragma once

#include <NvOnnxParser.h>

#include <memory>
#include <stop_token>
#include <string>
#include <vector>

#include "runtime/tensorrt/flavour.h"
#include "runtime/tensorrt/messages.h"
#include "runtime/tensorrt/plugins.h"

namespace node_tensorrt::tensorrt::NODE_TENSORRT_FLAVOUR {

// A parsed model and its owners. Destroyed in reverse order, as TensorRT requires: the network uses weights
// that the parser owns.
struct ModelImport {
  std::unique_ptr<nvinfer1::IBuilder> builder;
  std::unique_ptr<nvinfer1::INetworkDefinition> network;
  std::unique_ptr<nvonnxparser::IParser> parser;
};

// Imports models with one open library. Thread-safe.
class ModelImporter {
 public:
  // Registers `plugins` when a model needs them. Throws as SharedLibrary::symbol.
  ModelImporter(const LibraryFiles& files, Plugins& plugins);

  // Returns an import that has only a builder. Throws Error ERR_NO_GPU or ERR_BUILD_FAILED.
  ModelImport begin(const Messages& messages) const;

  // Parses the model into a new network. Returns what couldn't be imported, which is empty on success. The
  // arguments are as in BuildRequest. Throws as Library::parseModel.
  std::vector<ImportError> importModel(ModelImport& import, const std::string& model,
                                       const std::string& modelPath, Messages& messages,
                                       const std::stop_token& stop) const;

 private:
  std::vector<ImportError> tryImport(ModelImport& import, const std::string& model,
                                     const std::string& modelPath, const Messages& messages) const;

  void* (*const createBuilder_)(void*, int32_t) noexcept;
  void* (*const createParser_)(void*, void*, int) noexcept;
  Plugins& plugins_;
};

}  // namespace node_tensorrt::tensorrt::NODE_TENSORRT_FLAVOUR
