#include "runtime/tensorrt/model_import.h"

#include <algorithm>
#include <cstdint>
#include <utility>

#include "core/error.h"
#include "core/mapped_file.h"
#include "runtime/cuda/driver.h"
#include "runtime/tensorrt/api.h"
#include "runtime/tensorrt/build_error.h"
#include "runtime/tensorrt/parser_errors.h"

namespace node_tensorrt::tensorrt::NODE_TENSORRT_FLAVOUR {
namespace {

// Unlike TensorRT-RTX, TensorRT can't create a builder without a GPU.
[[noreturn]] void throwNoBuilder(const Messages& messages) {
  const cuda::Report report = cuda::probe();
  if (!report.gpus.empty()) throw buildFailed("create a builder", messages);
  throw Error("ERR_NO_GPU",
              "TensorRT compiles for the GPU of the machine it runs on, and there is none here. " +
                  report.error +
                  " TensorRT-RTX compiles ahead of time: name a GPU in options.target, such as \"sm_89\".");
}

}  // namespace

ModelImporter::ModelImporter(const LibraryFiles& files, Plugins& plugins)
    : createBuilder_(files.core.symbol<void*(void*, int32_t) noexcept>("createInferBuilder_INTERNAL")),
      createParser_(files.parser.symbol<void*(void*, void*, int) noexcept>("createNvOnnxParser_INTERNAL")),
      plugins_(plugins) {}

ModelImport ModelImporter::begin(const Messages& messages) const {
  Logger& logger = Logger::instance();
  ModelImport import;
  import.builder.reset(static_cast<nvinfer1::IBuilder*>(createBuilder_(&logger, NV_TENSORRT_VERSION)));
  if (!import.builder) throwNoBuilder(messages);
  return import;
}

std::vector<ImportError> ModelImporter::importModel(ModelImport& import, const std::string& model,
                                                    const std::string& modelPath, Messages& messages,
                                                    const std::stop_token& stop) const {
  const bool hadPlugins = plugins_.registered();
  std::vector<ImportError> errors = tryImport(import, model, modelPath, messages);
  if (std::none_of(errors.begin(), errors.end(), lacksPlugin)) return errors;
  if (!hadPlugins && plugins_.registerAll(stop)) {
    messages.forgetErrors();
    errors = tryImport(import, model, modelPath, messages);
  }
  for (ImportError& error : errors) {
    if (lacksPlugin(error)) error.reason += plugins_.whyLacking();
  }
  return errors;
}

std::vector<ImportError> ModelImporter::tryImport(ModelImport& import, const std::string& path,
                                                  const std::string& modelPath,
                                                  const Messages& messages) const {
  import.parser.reset();
  import.network.reset(import.builder->createNetworkV2(networkFlags()));
  if (!import.network) throw buildFailed("create a network", messages);
  import.parser.reset(static_cast<nvonnxparser::IParser*>(
      createParser_(import.network.get(), &Logger::instance(), NV_ONNX_PARSER_VERSION)));
  if (!import.parser) throw buildFailed("create its ONNX parser", messages);
  const MappedFile model(path);
  // Protobuf messages can't be larger. The parser would only say that the model is damaged.
  if (model.size() > INT32_MAX) {
    throw Error("ERR_MODEL_INVALID",
                "The model " + path +
                    " is larger than 2 GB, the limit of an ONNX file: store its weights as external data.");
  }
  if (import.parser->parse(model.data(), model.size(), modelPath.c_str())) return {};
  return importErrors(modelPath, *import.parser, messages);
}

}  // namespace node_tensorrt::tensorrt::NODE_TENSORRT_FLAVOUR
