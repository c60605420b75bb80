// JavaScript functions for building plans: openTensorRT, buildPlan and probeCuda. lib/ validates the
// arguments and documents the functions (lib/system/native/binding.ts declares them). Each build runs on a
// thread of its own.
#pragma once

#include "node/napi_setup.h"

namespace node_tensorrt {

// Adds the functions to the addon's exports.
void defineEngineBuilder(Napi::Env env, Napi::Object exports);

}  // namespace node_tensorrt
