// Carries out a NativeLoadRequest (lib/system/native/loaded-model.ts), with which NativeSession and
// NativeLanguageModel load their models.
#pragma once

#include <memory>
#include <string>

#include "core/tensor.h"
#include "node/napi_setup.h"
#include "runtime/runtime.h"

namespace node_tensorrt {

Napi::Array shapeToJs(Napi::Env env, const Shape& shape);
// Creates a NativeDeviceStats (lib/system/native/loaded-model.ts).
Napi::Object deviceStatsToJs(Napi::Env env, const DeviceStats& stats);

// One load. Used on the JavaScript thread, except for the task.
class ModelLoad {
 public:
  explicit ModelLoad(const Napi::Object& request);

  // Returns the function that loads the model, for the thread that loads. Call once.
  LoadModel task();

  // Where the outputs of runs should be placed.
  Location outputs() const noexcept { return outputs_; }

  // Creates a NativeLoadedModel (lib/system/native/loaded-model.ts). Call after the task has returned
  // `model`.
  Napi::Object toJs(Napi::Env env, const Model& model) const;

 private:
  struct RuntimeName {
    std::string name;
    std::string version;
  };

  LoadModel task_;
  std::shared_ptr<RuntimeName> runtime_ = std::make_shared<RuntimeName>();  // the task fills it in
  Location outputs_ = Location::kHost;
};

}  // namespace node_tensorrt
