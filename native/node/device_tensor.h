// A tensor in a GPU's memory, as JavaScript holds it: an opaque handle, which lib/execution/tensor.ts wraps.
#pragma once

#include "core/tensor.h"
#include "node/napi_setup.h"

namespace node_tensorrt {

// Returns a handle that shares the tensor's memory until the handle is released or collected.
Napi::Value deviceTensorToJs(Napi::Env env, const Tensor& tensor);

// Returns the tensor behind the handle `value`, without data if it was released; null if `value` isn't a
// handle.
const Tensor* deviceTensorFrom(Napi::Value value);

// Adds downloadTensor and releaseTensor to the addon's exports.
void defineDeviceTensor(Napi::Env env, Napi::Object exports);

}  // namespace node_tensorrt
