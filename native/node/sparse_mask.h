// JavaScript class NativeMask: a sparse mask, and the functions that make masks.
#pragma once

#include <memory>

#include "core/mask.h"
#include "node/napi_setup.h"

namespace node_tensorrt {

class SparseMask : public Napi::ObjectWrap<SparseMask> {
 public:
  static Napi::Function define(Napi::Env env);

  // Creates a JavaScript object that shares `mask`.
  static Napi::Value make(Napi::Env env, std::shared_ptr<const Mask> mask);

  // new NativeMask(bits: Uint8Array, dims)
  explicit SparseMask(const Napi::CallbackInfo& info);

  // Returns the mask behind `value`. Throws Error(ERR_INVALID_ARG_VALUE) if it is something else.
  static const std::shared_ptr<const Mask>& from(Napi::Value value);

 private:
  Napi::Value kept(const Napi::CallbackInfo& info);
  Napi::Value bits(const Napi::CallbackInfo& info);
  Napi::Value intersect(const Napi::CallbackInfo& info);
  Napi::Value unite(const Napi::CallbackInfo& info);
  Napi::Value complement(const Napi::CallbackInfo& info);
  Napi::Value equals(const Napi::CallbackInfo& info);
  Napi::Value check(const Napi::CallbackInfo& info);
  Napi::Value apply(const Napi::CallbackInfo& info);
  Napi::Value applyOnThread(const Napi::CallbackInfo& info);
  Napi::Value writeApplied(const Napi::CallbackInfo& info);
  Napi::Value slices(const Napi::CallbackInfo& info);

  std::shared_ptr<const Mask> mask_;
};

// Adds the functions of lib/system/native/mask.ts to the addon's exports.
void defineMaskRules(Napi::Env env, Napi::Object exports);

}  // namespace node_tensorrt
