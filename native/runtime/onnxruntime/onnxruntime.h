// The CPU runtime: ONNX Runtime, opened at run time.
#pragma once

#include <memory>
#include <string>

#include "runtime/runtime.h"

namespace node_tensorrt::ort {

// Opens `libraryPath` (libonnxruntime.so.1) on the first call and keeps it until the process ends. Later
// calls return the same runtime, even for other paths, because two copies of ONNX Runtime can't work in one
// process. Thread-safe. Throws Error ERR_LIBRARY_NOT_FOUND or ERR_LIBRARY_UNSUPPORTED.
std::shared_ptr<Runtime> openRuntime(const std::string& libraryPath);

// Sets the environment variable ORT_DISABLE_TELEMETRY, unless the user has set it. Otherwise ONNX Runtime
// collects telemetry as soon as it is loaded, uploads it, and writes files for it. Call this before there are
// threads that might read the environment.
void disableTelemetry();

}  // namespace node_tensorrt::ort
