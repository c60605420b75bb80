// A plan on a GPU. Included only by sources that are compiled once per flavour: see flavour.h.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <stop_token>

#include "runtime/runtime.h"
#include "runtime/tensorrt/flavour.h"

namespace node_tensorrt::tensorrt::NODE_TENSORRT_FLAVOUR {

// As Library::loadEngine.
std::unique_ptr<Model> loadEngine(const LibraryFiles& library, std::span<const uint8_t> plan,
                                  const EngineOptions& options, std::stop_token stop);
// As Library::inspectPlan.
PlanDescription inspectPlan(const LibraryFiles& library, std::span<const uint8_t> plan,
                            const EngineOptions& options);

}  // namespace node_tensorrt::tensorrt::NODE_TENSORRT_FLAVOUR
