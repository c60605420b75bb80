// A tensor in a GPU's memory, as JavaScript holds it: an opaque handle, which lib/execution/tensor.ts wraps.
#pragma once

#include "core/tensor.h"
#include "node/napi_setup.h"

namespace node_tensorrt {

// Shares the tensor's memory, until it is released or collected.
Napi::Value deviceTensorToJs(Napi::Env env, const Tensor& tensor);

// The tensor behind `value`, without data once it was released; null for another value.
const Tensor* deviceTensorFrom(Napi::Value value);

// Adds downloadTensor and releaseTensor to the addon's exports.
void defineDeviceTensor(Napi::Env env, Napi::Object exports);

}  // namespace node_tensorrt
