// Passes over a parsed network before it is compiled. They change it or find something out about it.
#pragma once

#include <string>
#include <vector>

#include "runtime/tensorrt/api.h"

namespace node_tensorrt::tensorrt::NODE_TENSORRT_FLAVOUR {

// Part of TensorRT's error message when it may not decompose an attention and has no kernel for it.
inline constexpr char kNoFusedKernel[] = "dedicated kernel";

using Attentions = std::vector<nvinfer1::IAttentionInputLayer*>;

// Returns the input layers of all attention in the network.
Attentions attentionsOf(const nvinfer1::INetworkDefinition& network);

// Removes multiplications by 1 before attention. The parser multiplies an Attention's query and key by the
// square root of its scale. If that is 1, the product is the same but is still computed; if the key is a KV
// cache, this copies the whole cache in every run. Attention is connected to the unmultiplied tensor instead.
void skipProductsWithOne(const nvinfer1::INetworkDefinition& network, const Attentions& attentions);

// Requires a fused kernel for each attention, and returns the layers that this applies to. FP32 attention is
// left out: it has no fused kernel, so the compiler may decompose it.
Attentions demandFusion(const Attentions& attentions);

// Withdraws that requirement.
void allowDecomposition(const Attentions& attentions);

// The warning of a build that had to decompose attention for which a fused kernel was required.
std::string fusionWarning(const Attentions& attentions);

// True if some layer's output has a shape that depends on the elements of its input.
bool dataDecidesShapes(const nvinfer1::INetworkDefinition& network);

}  // namespace node_tensorrt::tensorrt::NODE_TENSORRT_FLAVOUR
