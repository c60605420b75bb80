// A NativeLoadRequest of lib/system/native/loaded-model.ts, being carried out: what both NativeSession and
// NativeLanguageModel load their models with.
#pragma once

#include <memory>
#include <string>

#include "core/tensor.h"
#include "node/napi_setup.h"
#include "runtime/runtime.h"

namespace node_tensorrt {

Napi::Array shapeToJs(Napi::Env env, const Shape& shape);
// lib/system/native/loaded-model.ts' NativeDeviceStats.
Napi::Object deviceStatsToJs(Napi::Env env, const DeviceStats& stats);

// JavaScript thread, but for what task() gives.
class ModelLoad {
 public:
  explicit ModelLoad(const Napi::Object& request);

  // Loads the model. It is called once, on the loading thread.
  LoadModel task();

  // The place where the outputs of a run are wanted.
  Location outputs() const noexcept { return outputs_; }

  // lib/system/native/loaded-model.ts' NativeLoadedModel, after the task has returned `model`.
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
