// What this binary was compiled for. The published binaries differ only in this.
#pragma once

#include "node/napi_setup.h"

namespace node_tensorrt {

// { cuda: 13, flavours: ['rtx'] }: the CUDA major version, and the TensorRT flavours that the addon was
// compiled for.
Napi::Object variant(Napi::Env env);

}  // namespace node_tensorrt
