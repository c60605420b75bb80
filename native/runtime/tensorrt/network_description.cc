#include "runtime/tensorrt/network_description.h"

#include <utility>

#include "runtime/tensorrt/layer_type.h"

namespace node_tensorrt::tensorrt::NODE_TENSORRT_FLAVOUR {
namespace {

TensorDescription describe(const nvinfer1::ITensor& tensor) {
  return {tensor.getName(), toDataType(tensor.getType()), toShape(tensor.getDimensions())};
}

}  // namespace

std::string describeInput(const nvinfer1::ITensor& tensor) {
  const nvinfer1::Dims dims = tensor.getDimensions();
  std::string text = quoted(tensor.getName()) + " [";
  for (int32_t i = 0; i < dims.nbDims; ++i) {
    const char* name = tensor.getDimensionName(i);
    if (i > 0) text += ", ";
    text += dims.d[i] >= 0 ? std::to_string(dims.d[i]) : name != nullptr && *name != '\0' ? name : "?";
  }
  return text + ']';
}

NetworkDescription describe(const nvinfer1::INetworkDefinition& network) {
  NetworkDescription result;
  for (int32_t i = 0; i < network.getNbInputs(); ++i) {
    result.inputs.push_back(describe(*network.getInput(i)));
  }
  for (int32_t i = 0; i < network.getNbOutputs(); ++i) {
    result.outputs.push_back(describe(*network.getOutput(i)));
  }
  result.layers.reserve(static_cast<size_t>(network.getNbLayers()));
  for (int32_t i = 0; i < network.getNbLayers(); ++i) {
    const nvinfer1::ILayer& layer = *network.getLayer(i);
    LayerDescription description{layer.getName(), layerTypeName(layer.getType()), {}, {}};
    for (int32_t t = 0; t < layer.getNbInputs(); ++t) {
      // An optional input that is missing leaves a gap.
      const nvinfer1::ITensor* input = layer.getInput(t);
      description.inputs.emplace_back(input != nullptr ? input->getName() : "");
    }
    for (int32_t t = 0; t < layer.getNbOutputs(); ++t) {
      const nvinfer1::ITensor* output = layer.getOutput(t);
      if (output != nullptr) description.outputs.push_back(describe(*output));
    }
    result.layers.push_back(std::move(description));
  }
  return result;
}

}  // namespace node_tensorrt::tensorrt::NODE_TENSORRT_FLAVOUR
