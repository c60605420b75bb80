// Compiles an ONNX model into a plan.
#pragma once

#include <stop_token>

#include "runtime/tensorrt/model_import.h"
#include "runtime/tensorrt/tensorrt.h"

namespace node_tensorrt::tensorrt::NODE_TENSORRT_FLAVOUR {

// Implements Library::buildPlan. Stopping the build when the process exits is left to Library.
void buildPlan(const ModelImporter& importer, const BuildRequest& request, std::stop_token stop,
               BuildObserver& observer);

}  // namespace node_tensorrt::tensorrt::NODE_TENSORRT_FLAVOUR
