#include "runtime/tensorrt/network_passes.h"

#include <algorithm>
#include <array>
#include <unordered_map>

#include "runtime/tensorrt/messages.h"

namespace node_tensorrt::tensorrt::NODE_TENSORRT_FLAVOUR {
namespace {

// Finds the layer that computes a tensor.
class Producers {
 public:
  explicit Producers(const nvinfer1::INetworkDefinition& network) {
    for (int32_t i = 0; i < network.getNbLayers(); ++i) {
      const nvinfer1::ILayer* layer = network.getLayer(i);
      for (int32_t t = 0; t < layer->getNbOutputs(); ++t) producers_.emplace(layer->getOutput(t), layer);
    }
  }

  // Returns null for an input of the network.
  const nvinfer1::ILayer* of(const nvinfer1::ITensor* tensor) const {
    const auto entry = producers_.find(tensor);
    return entry == producers_.end() ? nullptr : entry->second;
  }

 private:
  std::unordered_map<const nvinfer1::ITensor*, const nvinfer1::ILayer*> producers_;
};

// True if the layer's output is the number 1, in any type.
bool isOne(const nvinfer1::ILayer* layer, const Producers& producers) {
  while (layer != nullptr && layer->getType() == nvinfer1::LayerType::kCAST) {
    layer = producers.of(layer->getInput(0));
  }
  if (layer == nullptr || layer->getType() != nvinfer1::LayerType::kCONSTANT) return false;
  const nvinfer1::Weights weights = static_cast<const nvinfer1::IConstantLayer*>(layer)->getWeights();
  return weights.type == nvinfer1::DataType::kFLOAT && weights.count == 1 &&
         *static_cast<const float*>(weights.values) == 1;
}

}  // namespace

Attentions attentionsOf(const nvinfer1::INetworkDefinition& network) {
  Attentions attentions;
  for (int32_t i = 0; i < network.getNbLayers(); ++i) {
    nvinfer1::ILayer* layer = network.getLayer(i);
    if (layer->getType() != nvinfer1::LayerType::kATTENTION_INPUT) continue;
    attentions.push_back(static_cast<nvinfer1::IAttentionInputLayer*>(layer));
  }
  return attentions;
}

void skipProductsWithOne(const nvinfer1::INetworkDefinition& network, const Attentions& attentions) {
  if (attentions.empty()) return;
  const Producers producers(network);
  constexpr int32_t kScaled = 2;
  for (nvinfer1::IAttentionInputLayer* attention : attentions) {
    for (int32_t i = 0; i < kScaled; ++i) {
      const nvinfer1::ILayer* product = producers.of(attention->getInput(i));
      if (product == nullptr || product->getType() != nvinfer1::LayerType::kELEMENTWISE ||
          static_cast<const nvinfer1::IElementWiseLayer*>(product)->getOperation() !=
              nvinfer1::ElementWiseOperation::kPROD ||
          !isOne(producers.of(product->getInput(1)), producers)) {
        continue;
      }
      attention->setInput(i, *product->getInput(0));
    }
  }
}

Attentions demandFusion(const Attentions& attentions) {
  Attentions fused;
  for (nvinfer1::IAttentionInputLayer* layer : attentions) {
    const bool isWide = layer->getInput(0)->getType() == nvinfer1::DataType::kFLOAT;
    layer->getAttention()->setDecomposable(isWide);
    if (!isWide) fused.push_back(layer);
  }
  return fused;
}

void allowDecomposition(const Attentions& attentions) {
  for (nvinfer1::IAttentionInputLayer* layer : attentions) layer->getAttention()->setDecomposable(true);
}

std::string fusionWarning(const Attentions& attentions) {
  std::string names;
  const size_t listed = std::min<size_t>(attentions.size(), kListed);
  for (size_t i = 0; i < listed; ++i) {
    names.append(i > 0 ? ", " : "").append(quoted(attentions[i]->getAttention()->getName()));
  }
  if (attentions.size() > listed) names += " and " + std::to_string(attentions.size() - listed) + " more";
  return "TensorRT has no fused kernel for attention of these types, shapes and capacities in at least one "
         "of " +
         names +
         ": it is compiled from its parts, which takes more time and memory (with grouped heads, keys and "
         "values are repeated in memory). With a KV cache, a smaller capacity may have one.";
}

bool dataDecidesShapes(const nvinfer1::INetworkDefinition& network) {
  using nvinfer1::LayerType;
  constexpr std::array kDataDependent = {LayerType::kNON_ZERO, LayerType::kNMS, LayerType::kTRIP_LIMIT};
  for (int32_t i = 0; i < network.getNbLayers(); ++i) {
    const LayerType type = network.getLayer(i)->getType();
    if (std::find(kDataDependent.begin(), kDataDependent.end(), type) != kDataDependent.end()) return true;
  }
  return false;
}

}  // namespace node_tensorrt::tensorrt::NODE_TENSORRT_FLAVOUR
