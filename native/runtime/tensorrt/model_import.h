// Reads an ONNX model into a network of TensorRT's, with TensorRT's parser.
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

// A parsed model, and what it refers to. Destroyed in reverse order, as TensorRT asks: the parser owns
// weights that the network refers to.
struct ModelImport {
  std::unique_ptr<nvinfer1::IBuilder> builder;
  std::unique_ptr<nvinfer1::INetworkDefinition> network;
  std::unique_ptr<nvonnxparser::IParser> parser;
};

// Imports models with one open library. Thread-safe.
class ModelImporter {
 public:
  // `plugins` are registered when a model needs them. Throws as SharedLibrary::symbol.
  ModelImporter(const LibraryFiles& files, Plugins& plugins);

  // An import with a builder alone. Throws Error ERR_NO_GPU or ERR_BUILD_FAILED.
  ModelImport begin(const Messages& messages) const;

  // Parses the model into a new network. Returns what could not be imported: nothing where all was. Arguments
  // as in BuildRequest. Throws as Library::parseModel.
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
