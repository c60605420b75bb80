// JavaScript functions around compiling: openTensorRT, buildPlan and probeCuda. lib/ validates and documents
// (lib/system/native/binding.ts declares them); this runs each build on a thread of its own.
#pragma once

#include "node/napi_setup.h"

namespace node_tensorrt {

// Adds the functions to the addon's exports.
void defineEngineBuilder(Napi::Env env, Napi::Object exports);

}  // namespace node_tensorrt
