// The CPU runtime: ONNX Runtime, opened at run time.
#pragma once

#include <memory>
#include <string>

#include "runtime/runtime.h"

namespace node_tensorrt::ort {

// Opens `libraryPath` (libonnxruntime.so.1) on the first call and keeps it for the life of the process; later
// calls return the same runtime, whatever their path: two copies of ONNX Runtime in one process do not mix.
// Thread-safe. Throws Error ERR_LIBRARY_NOT_FOUND or ERR_LIBRARY_UNSUPPORTED.
std::shared_ptr<Runtime> openRuntime(const std::string& libraryPath);

// ONNX Runtime collects telemetry, uploads it and writes files for it, from the moment it is loaded, unless
// the environment variable ORT_DISABLE_TELEMETRY says otherwise: sets it, where the user has not. To be
// called before there are threads that might read the environment.
void disableTelemetry();

}  // namespace node_tensorrt::ort
