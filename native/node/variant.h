// The platform that this binary was compiled for: the only difference between the published binaries.
#pragma once

#include "node/napi_setup.h"

namespace node_tensorrt {

// { cuda: 13, flavours: ['rtx'] }: the CUDA major version, and the TensorRT flavours that the binding was
// compiled for.
Napi::Object variant(Napi::Env env);

}  // namespace node_tensorrt
