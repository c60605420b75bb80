#include "node/sparse_mask.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <functional>
#include <span>
#include <stop_token>
#include <string>
#include <utility>
#include <vector>

#include "core/byte_source.h"
#include "core/error.h"
#include "core/host_memory.h"
#include "core/mask_rules.h"
#include "core/scores.h"
#include "node/caller_bytes.h"
#include "node/environment.h"
#include "node/host_buffer.h"
#include "node/job.h"
#include "node/native_bytes.h"

namespace node_tensorrt {
namespace {

constexpr napi_type_tag kTypeTag = {0x1b7e93d05fa24c68, 0xa2c8e0f4716d3b95};

// Arrays of up to this many bytes are copied when a promise is made: it takes less than a millisecond.
constexpr size_t kCopiedBytes = size_t{1} << 22;

using SharedMask = std::shared_ptr<const Mask>;

Shape readDims(Napi::Value value) {
  const auto array = value.As<Napi::Array>();
  Shape dims;
  for (uint32_t i = 0; i < array.Length(); ++i) {
    dims.push_back(array.Get(i).As<Napi::Number>().Int64Value());
  }
  return dims;
}

size_t readSize(Napi::Value value) {
  return static_cast<size_t>(value.As<Napi::Number>().Int64Value());
}

// Bytes that somebody else keeps.
std::shared_ptr<const ByteSource> borrowed(std::span<const std::byte> bytes) {
  return std::make_shared<MemoryBytes>(
      std::shared_ptr<const void>(std::shared_ptr<const void>(), bytes.data()), bytes.size());
}

// Reads an array's bytes: at once for a call that blocks (`job` is null), else on the job's threads.
std::shared_ptr<const ByteSource> readBytes(Napi::Value data, Job* job) {
  if (HostBuffer* buffer = HostBuffer::from(data)) {
    return std::make_shared<MemoryBytes>(buffer->memory(), buffer->byteLength());
  }
  if (auto bytes = NativeBytes::from(data)) return bytes;
  const auto array = data.As<Napi::TypedArray>();
  const std::span<const std::byte> bytes = bytesOfArray(array);
  if (job == nullptr) return borrowed(bytes);
  if (bytes.size() <= kCopiedBytes) return std::make_shared<MemoryBytes>(bytes);
  return std::make_shared<CallerBytes>(*job, array);
}

// { name, type, data }
Magnitudes readMagnitudes(Napi::Value value, Job* job) {
  const auto source = value.As<Napi::Object>();
  return {source.Get("name").As<Napi::String>(), readBytes(source.Get("data"), job),
          static_cast<DataType>(source.Get("type").As<Napi::Number>().Int32Value())};
}

// An object's `data` may be a getter that returns another array each time.
void requireLength(size_t actual, size_t expected) {
  if (actual == expected) return;
  throw Error("ERR_INVALID_ARG_VALUE", "A tensor's data changed its length while it was read.");
}

// A tensor to make a mask for, as { dims, weights?, gradients?, factors?: { values, axis }, seed? }.
std::shared_ptr<const Scores> readScores(const Napi::Object& tensor, const Shape& dims, Job* job) {
  const size_t size = elementCount(dims);
  if (tensor.Has("seed")) {
    return std::make_shared<RandomScores>(size, tensor.Get("seed").As<Napi::Number>().Int64Value());
  }
  Magnitudes weights = readMagnitudes(tensor.Get("weights"), job);
  requireLength(weights.size(), size);
  if (tensor.Has("gradients")) {
    Magnitudes gradients = readMagnitudes(tensor.Get("gradients"), job);
    requireLength(gradients.size(), size);
    return std::make_shared<ProductScores>(std::move(weights), std::move(gradients));
  }
  if (tensor.Has("factors")) {
    const auto factors = tensor.Get("factors").As<Napi::Object>();
    const auto values = factors.Get("values").As<Napi::Float32Array>();
    return std::make_shared<ScaledScores>(
        std::move(weights), std::vector<float>(values.Data(), values.Data() + values.ElementLength()),
        viewAlong(dims, readSize(factors.Get("axis"))));
  }
  return std::make_shared<MagnitudeScores>(std::move(weights));
}

using Rule = std::function<std::vector<Mask>(const std::stop_token&)>;

// { tensors, keep } for the largest of all; with { pattern, axis } or { block, norm } for one tensor.
Rule readRule(const Napi::Object& request, Job* job) {
  struct Tensors {
    std::vector<std::shared_ptr<const Scores>> scores;
    std::vector<ScoredTensor> scored;
  };
  const auto tensors = std::make_shared<Tensors>();
  const auto list = request.Get("tensors").As<Napi::Array>();
  for (uint32_t i = 0; i < list.Length(); ++i) {
    const auto tensor = list.Get(i).As<Napi::Object>();
    const Shape dims = readDims(tensor.Get("dims"));
    tensors->scores.push_back(readScores(tensor, dims, job));
    tensors->scored.push_back({tensors->scores.back().get(), dims});
  }
  if (request.Has("pattern")) {
    const Shape pattern = readDims(request.Get("pattern"));
    return [tensors, axis = readSize(request.Get("axis")),
            pattern = Pattern{static_cast<size_t>(pattern[0]), static_cast<size_t>(pattern[1])}](
               const std::stop_token& stop) {
      std::vector<Mask> masks;
      for (const ScoredTensor& each : tensors->scored)
        masks.push_back(keepInGroups(each, pattern, axis, stop));
      return masks;
    };
  }
  const size_t keep = readSize(request.Get("keep"));
  if (request.Has("block")) {
    return [tensors, keep, block = readDims(request.Get("block")),
            norm = static_cast<Norm>(readSize(request.Get("norm")))](const std::stop_token& stop) {
      return std::vector{keepBlocks(tensors->scored[0], block, keep, norm, stop)};
    };
  }
  return [tensors, keep](const std::stop_token& stop) { return keepLargest(tensors->scored, keep, stop); };
}

Napi::Value toJs(Napi::Env env, const std::vector<SharedMask>& masks) {
  Napi::Array result = Napi::Array::New(env, masks.size());
  for (uint32_t i = 0; i < masks.size(); ++i) result[i] = SparseMask::make(env, masks[i]);
  return result;
}

std::vector<SharedMask> shared(std::vector<Mask> masks) {
  std::vector<SharedMask> result;
  for (Mask& mask : masks) result.push_back(std::make_shared<Mask>(std::move(mask)));
  return result;
}

// Runs `work` at once, or on the thread of a job.
Napi::Value perform(Napi::Env env, const std::shared_ptr<Job>& job,
                    std::function<Job::Answer(const std::stop_token&)> work) {
  if (job == nullptr) return work(std::stop_token())(env);
  return job->start(env, [work = std::move(work)](const std::stop_token& stop, Job& running) {
    running.deliver(work(stop));
  });
}

// Makes a job, or returns null for a call that blocks.
std::shared_ptr<Job> jobFor(Napi::Env env, Napi::Value isSync) {
  return isSync.ToBoolean() ? nullptr : std::make_shared<Job>(env);
}

// A promise, or the result of a call that blocks, and a function that cancels the work.
Napi::Value withCancel(Napi::Env env, const std::shared_ptr<Job>& job, Napi::Value result) {
  if (job == nullptr) return result;
  Napi::Object running = Napi::Object::New(env);
  running["result"] = result;
  running["cancel"] = Napi::Function::New(env, [job](const Napi::CallbackInfo&) { job->cancel(); });
  return running;
}

// makeMasks(request, isSync): NativeMask[] | { result: Promise<NativeMask[]>, cancel() }
Napi::Value makeMasks(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  return guarded(env, [&] {
    const auto job = jobFor(env, info[1]);
    Rule rule = readRule(info[0].As<Napi::Object>(), job.get());
    return withCancel(env, job, perform(env, job, [rule = std::move(rule)](const std::stop_token& stop) {
                        return [masks = shared(rule(stop))](Napi::Env answering) {
                          return toJs(answering, masks);
                        };
                      }));
  });
}

// The numbers of the elements that `mask` keeps and `other` doesn't, in order.
std::vector<uint32_t> keptOnlyBy(const Mask& mask, const Mask& other) {
  std::vector<uint32_t> result;
  for (size_t w = 0; w < mask.words().size(); ++w) {
    for (uint64_t bits = mask.words()[w] & ~other.words()[w]; bits != 0; bits &= bits - 1) {
      result.push_back(static_cast<uint32_t>(64 * w + static_cast<size_t>(std::countr_zero(bits))));
    }
  }
  return result;
}

Napi::Value toJs(Napi::Env env, const std::vector<uint32_t>& numbers) {
  Napi::Uint32Array result = Napi::Uint32Array::New(env, numbers.size());
  if (!numbers.empty()) std::memcpy(result.Data(), numbers.data(), numbers.size() * sizeof(uint32_t));
  return result;
}

// updateMask({ mask, weights, growth, count }, isSync): { mask, dropped, grown }, or as makeMasks()
Napi::Value update(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  return guarded(env, [&] {
    const auto job = jobFor(env, info[1]);
    const auto request = info[0].As<Napi::Object>();
    const SharedMask mask = SparseMask::from(request.Get("mask"));
    const auto scores = [&](const char* name) {
      return readScores(request.Get(name).As<Napi::Object>(), mask->dims(), job.get());
    };
    const auto weights = scores("weights");
    const auto growth = scores("growth");
    const size_t count = readSize(request.Get("count"));
    const auto work = [=](const std::stop_token& stop) {
      const auto updated = std::make_shared<Mask>(updateMask(*mask, *weights, *growth, count, stop));
      return [updated, dropped = keptOnlyBy(*mask, *updated),
              grown = keptOnlyBy(*updated, *mask)](Napi::Env answering) -> Napi::Value {
        Napi::Object result = Napi::Object::New(answering);
        result["mask"] = SparseMask::make(answering, updated);
        result["dropped"] = toJs(answering, dropped);
        result["grown"] = toJs(answering, grown);
        return result;
      };
    };
    return withCancel(env, job, perform(env, job, work));
  });
}

// maskOfNonZero(data, type, dims): NativeMask
Napi::Value maskOfNonZero(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    const auto source = readBytes(info[0], nullptr);
    const auto type = static_cast<DataType>(info[1].As<Napi::Number>().Int32Value());
    const Shape dims = readDims(info[2]);
    requireLength(source->size(), elementCount(dims) * byteSize(type));
    const auto bytes = source->whole(std::stop_token());
    return SparseMask::make(info.Env(),
                            std::make_shared<Mask>(nonZero(dims, {bytes.get(), source->size()}, type)));
  });
}

// sliceSums({ tensor, axis, norm }): { result: Promise<Float64Array>, cancel() }
Napi::Value sumsOfSlices(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  return guarded(env, [&] {
    const auto job = std::make_shared<Job>(env);
    const auto request = info[0].As<Napi::Object>();
    const auto tensor = request.Get("tensor").As<Napi::Object>();
    const Shape dims = readDims(tensor.Get("dims"));
    const auto scores = readScores(tensor, dims, job.get());
    const size_t axis = readSize(request.Get("axis"));
    const auto norm = static_cast<Norm>(readSize(request.Get("norm")));
    return withCancel(env, job, perform(env, job, [=](const std::stop_token& stop) {
                        return [sums = sliceSums({scores.get(), dims}, axis, norm, stop)](
                                   Napi::Env answering) -> Napi::Value {
                          Napi::Float64Array result = Napi::Float64Array::New(answering, sums.size());
                          if (!sums.empty())
                            std::memcpy(result.Data(), sums.data(), sums.size() * sizeof(double));
                          return result;
                        };
                      }));
  });
}

// maskOfSlices(dims, axis, kept: Uint8Array): NativeMask
Napi::Value maskOfSlices(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    const auto kept = info[2].As<Napi::Uint8Array>();
    const std::span<const uint8_t> flags(kept.Data(), kept.ElementLength());
    return SparseMask::make(info.Env(),
                            std::make_shared<Mask>(keepSlices(readDims(info[0]), readSize(info[1]), flags)));
  });
}

// takeSlices({ bytes, dims, elementBytes, axis, positions, mask? }): Promise<ArrayBuffer>
Napi::Value slicesOf(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  return guarded(env, [&] {
    const auto request = info[0].As<Napi::Object>();
    const auto bytes = NativeBytes::from(request.Get("bytes"));
    const Shape dims = readDims(request.Get("dims"));
    const size_t elementBytes = readSize(request.Get("elementBytes"));
    const size_t axis = readSize(request.Get("axis"));
    const auto array = request.Get("positions").As<Napi::Uint32Array>();
    const std::vector<uint32_t> positions(array.Data(), array.Data() + array.ElementLength());
    const SharedMask mask = request.Has("mask") ? SparseMask::from(request.Get("mask")) : nullptr;
    return std::make_shared<Job>(env)->start(env, [=](const std::stop_token& stop, Job& job) {
      const size_t size = bytes->size();
      const auto elements = std::static_pointer_cast<std::byte>(allocateUnzeroedMemory(size));
      bytes->read(0, {elements.get(), size});
      throwIfStopped(stop);
      if (mask) applyWholeMask(*mask, {elements.get(), size}, elements.get(), elementBytes);
      const auto [outer, count, inner] = viewAlong(dims, axis);
      const size_t taken = outer * positions.size() * inner * elementBytes;
      const auto result = allocateUnzeroedMemory(taken);
      takeSlices({elements.get(), size}, dims, axis, positions, elementBytes,
                 static_cast<std::byte*>(result.get()));
      job.deliver([result, taken](Napi::Env answering) { return toArrayBuffer(answering, result, taken); });
    });
  });
}

}  // namespace

Napi::Function SparseMask::define(Napi::Env env) {
  Napi::Function result = DefineClass(
      env, "NativeMask",
      {InstanceAccessor<&SparseMask::kept>("kept"), InstanceMethod<&SparseMask::bits>("bits"),
       InstanceMethod<&SparseMask::intersect>("and"), InstanceMethod<&SparseMask::unite>("or"),
       InstanceMethod<&SparseMask::complement>("not"), InstanceMethod<&SparseMask::equals>("equals"),
       InstanceMethod<&SparseMask::check>("check"), InstanceMethod<&SparseMask::apply>("apply"),
       InstanceMethod<&SparseMask::applyOnThread>("applyOnThread"),
       InstanceMethod<&SparseMask::writeApplied>("writeApplied"),
       InstanceMethod<&SparseMask::slices>("keptSlices")});
  Environment::of(env).setMaskClass(result);
  return result;
}

Napi::Value SparseMask::make(Napi::Env env, SharedMask mask) {
  return Environment::of(env).maskClass().New({Napi::External<SharedMask>::New(env, &mask)});
}

SparseMask::SparseMask(const Napi::CallbackInfo& info) : ObjectWrap(info) {
  info.This().As<Napi::Object>().TypeTag(&kTypeTag);
  guarded(info.Env(), [&] {
    mask_ = info[0].IsExternal()
                ? *info[0].As<Napi::External<SharedMask>>().Data()
                : std::make_shared<Mask>(readDims(info[1]), bytesOfArray(info[0].As<Napi::TypedArray>()));
  });
}

const SharedMask& SparseMask::from(Napi::Value value) {
  if (!value.IsObject() || !value.As<Napi::Object>().CheckTypeTag(&kTypeTag)) {
    throw Error("ERR_INVALID_ARG_VALUE", "That is not a mask.");
  }
  return Unwrap(value.As<Napi::Object>())->mask_;
}

Napi::Value SparseMask::kept(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), static_cast<double>(mask_->kept()));
}

// bits(): Uint8Array
Napi::Value SparseMask::bits(const Napi::CallbackInfo& info) {
  const std::span<const std::byte> bytes = mask_->bytes();
  Napi::Uint8Array result = Napi::Uint8Array::New(info.Env(), bytes.size());
  if (!bytes.empty()) std::memcpy(result.Data(), bytes.data(), bytes.size());
  return result;
}

Napi::Value SparseMask::intersect(const Napi::CallbackInfo& info) {
  return guarded(info.Env(),
                 [&] { return make(info.Env(), std::make_shared<Mask>(*mask_ & *from(info[0]))); });
}

Napi::Value SparseMask::unite(const Napi::CallbackInfo& info) {
  return guarded(info.Env(),
                 [&] { return make(info.Env(), std::make_shared<Mask>(*mask_ | *from(info[0]))); });
}

Napi::Value SparseMask::complement(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] { return make(info.Env(), std::make_shared<Mask>(~*mask_)); });
}

Napi::Value SparseMask::equals(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] { return Napi::Boolean::New(info.Env(), *mask_ == *from(info[0])); });
}

// check([keep, of], axis): { groups, violations, first }
Napi::Value SparseMask::check(const Napi::CallbackInfo& info) {
  const Shape pattern = readDims(info[0]);
  const PatternCheck found = checkPattern(
      *mask_, {static_cast<size_t>(pattern[0]), static_cast<size_t>(pattern[1])}, readSize(info[1]));
  Napi::Object result = Napi::Object::New(info.Env());
  result["groups"] = Napi::Number::New(info.Env(), static_cast<double>(found.groups));
  result["violations"] = Napi::Number::New(info.Env(), static_cast<double>(found.violations));
  if (found.firstElement) {
    result["first"] = Napi::Number::New(info.Env(), static_cast<double>(*found.firstElement));
  }
  return result;
}

// apply(array, elementBytes, inPlace): ArrayBuffer | undefined
Napi::Value SparseMask::apply(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  return guarded(env, [&]() -> Napi::Value {
    const std::span<std::byte> elements = bytesOfArray(info[0].As<Napi::TypedArray>());
    const size_t elementBytes = readSize(info[1]);
    requireLength(elements.size(), mask_->size() * elementBytes);
    if (info[2].ToBoolean()) {
      applyWholeMask(*mask_, elements, elements.data(), elementBytes);
      return env.Undefined();
    }
    const auto result = allocateUnzeroedMemory(elements.size());
    applyWholeMask(*mask_, elements, static_cast<std::byte*>(result.get()), elementBytes);
    return toArrayBuffer(env, result, elements.size());
  });
}

// applyOnThread(hostBuffer, elementBytes, inPlace): Promise<ArrayBuffer | undefined>
Napi::Value SparseMask::applyOnThread(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  return guarded(env, [&] {
    const HostBuffer* buffer = HostBuffer::from(info[0]);
    const auto memory = std::static_pointer_cast<std::byte>(buffer->memory());
    const size_t bytes = buffer->byteLength();
    const size_t elementBytes = readSize(info[1]);
    const bool inPlace = info[2].ToBoolean();
    return std::make_shared<Job>(env)->start(
        env, [mask = mask_, memory, bytes, elementBytes, inPlace](const std::stop_token&, Job& job) {
          const auto result =
              inPlace ? memory : std::static_pointer_cast<std::byte>(allocateUnzeroedMemory(bytes));
          applyWholeMask(*mask, {memory.get(), bytes}, result.get(), elementBytes);
          job.deliver([result, bytes, inPlace](Napi::Env answering) -> Napi::Value {
            if (inPlace) return answering.Undefined();
            return toArrayBuffer(answering, result, bytes);
          });
        });
  });
}

// writeApplied(bytes, elementBytes, descriptor): Promise<void>. Writes at the file's current position.
Napi::Value SparseMask::writeApplied(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  return guarded(env, [&] {
    const auto bytes = NativeBytes::from(info[0]);
    const auto descriptor = std::make_shared<Descriptor>(info[2].As<Napi::Number>());
    return std::make_shared<Job>(env)->start(
        env, [mask = mask_, bytes, descriptor, elementBytes = readSize(info[1])](const std::stop_token& stop,
                                                                                 Job& job) {
          size_t at = 0;
          std::vector<std::byte> masked;
          bytes->forEachPiece(stop, [&](std::span<const std::byte> piece) {
            masked.resize(piece.size());
            applyMask(*mask, at / elementBytes, piece, masked.data(), elementBytes);
            writeBytes(masked, descriptor->number());
            at += piece.size();
          });
          job.deliver([](Napi::Env answering) { return answering.Undefined(); });
        });
  });
}

// keptSlices(axis): Uint8Array
Napi::Value SparseMask::slices(const Napi::CallbackInfo& info) {
  const std::vector<uint8_t> kept = keptSlices(*mask_, readSize(info[0]));
  Napi::Uint8Array result = Napi::Uint8Array::New(info.Env(), kept.size());
  std::copy(kept.begin(), kept.end(), result.Data());
  return result;
}

void defineMaskRules(Napi::Env env, Napi::Object exports) {
  exports["makeMasks"] = Napi::Function::New(env, makeMasks);
  exports["updateMask"] = Napi::Function::New(env, update);
  exports["sliceSums"] = Napi::Function::New(env, sumsOfSlices);
  exports["takeSlices"] = Napi::Function::New(env, slicesOf);
  exports["maskOfSlices"] = Napi::Function::New(env, maskOfSlices);
  exports["maskOfNonZero"] = Napi::Function::New(env, maskOfNonZero);
}

}  // namespace node_tensorrt
