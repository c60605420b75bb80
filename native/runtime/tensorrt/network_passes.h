// Passes over a network that the parser made, before it is compiled: what they change in it or find out.
#pragma once

#include <string>
#include <vector>

#include "runtime/tensorrt/api.h"

namespace node_tensorrt::tensorrt::NODE_TENSORRT_FLAVOUR {

// A part of TensorRT's message if it mustn't take attention to parts and has no kernel for the whole.
inline constexpr char kNoFusedKernel[] = "dedicated kernel";

using Attentions = std::vector<nvinfer1::IAttentionInputLayer*>;

Attentions attentionsOf(const nvinfer1::INetworkDefinition& network);

// The parser multiplies the query and the key of ONNX's Attention with the root of its scale each. Where that
// is 1 nothing changes, but the product is computed: of a key that is a KV cache, a copy of the whole cache
// in every run. Attention gets what is multiplied instead.
void skipProductsWithOne(const nvinfer1::INetworkDefinition& network, const Attentions& attentions);

// Demands a fused kernel for attention, and returns the layers concerned: all but those in FP32, for which
// there is none, and which the compiler may take to parts.
Attentions demandFusion(const Attentions& attentions);

// Takes that demand back.
void allowDecomposition(const Attentions& attentions);

// The warning of a build whose attention was compiled from its parts, though a fused kernel was asked for.
std::string fusionWarning(const Attentions& attentions);

// True if the shape of a layer's output follows from the elements of its input.
bool dataDecidesShapes(const nvinfer1::INetworkDefinition& network);

}  // namespace node_tensorrt::tensorrt::NODE_TENSORRT_FLAVOUR
