// Building, loading and running plans with every flavour of the stand-in TensorRT on the stand-in GPUs: right
// numbers, and of everything that can go wrong, the error that says so, with nothing left behind.
#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <set>
#include <thread>

#include "core/error.h"
#include "core/host_memory.h"
#include "runtime/onnxruntime/onnxruntime.h"
#include "runtime/tensorrt/tensorrt.h"
#include "stand_in/cuda/cuda.h"
#include "stand_in/tensorrt/protobuf.h"

namespace node_tensorrt::tensorrt {
namespace {

using stand_in::Message;

constexpr int kFloat = 1;
constexpr int kInt32Type = 6;
constexpr int kInt64Type = 7;

// ---- models, as onnx.proto has them ----

std::string value(const std::string& name, int type, const std::vector<std::string>& dims) {
  Message shape;
  for (const std::string& each : dims) {
    Message dimension;
    const bool isNumber = each.find_first_not_of("0123456789") == std::string::npos;
    if (isNumber) {
      dimension.add(1, std::stoull(each));
    } else {
      dimension.add(2, each);
    }
    shape.add(1, dimension.write());
  }
  Message tensor;
  tensor.add(1, static_cast<uint64_t>(type));
  tensor.add(2, shape.write());
  Message typeOf;
  typeOf.add(1, tensor.write());
  Message info;
  info.add(1, name);
  info.add(2, typeOf.write());
  return info.write();
}

std::string node(const std::string& op, const std::vector<std::string>& inputs,
                 const std::vector<std::string>& outputs) {
  Message message;
  for (const std::string& input : inputs) message.add(1, input);
  for (const std::string& output : outputs) message.add(2, output);
  message.add(3, "the " + op);
  message.add(4, op);
  return message.write();
}

std::string model(const std::vector<std::string>& nodes, const std::vector<std::string>& inputs,
                  const std::vector<std::string>& outputs) {
  Message graph;
  for (const std::string& each : nodes) graph.add(1, each);
  graph.add(2, "graph");
  for (const std::string& each : inputs) graph.add(11, each);
  for (const std::string& each : outputs) graph.add(12, each);
  Message opset;
  opset.add(2, uint64_t{24});
  Message text;
  text.add(1, uint64_t{11});
  text.add(7, graph.write());
  text.add(8, opset.write());
  return text.write();
}

// ---- tensors ----

template <class T>
Tensor tensor(DataType type, Shape shape, const std::vector<T>& elements) {
  Tensor made;
  made.type = type;
  made.shape = std::move(shape);
  made.byteLength = elements.size() * sizeof(T);
  made.data = allocateHostMemory(std::max<size_t>(made.byteLength, 1));
  std::memcpy(made.data.get(), elements.data(), made.byteLength);
  return made;
}

template <class T>
std::vector<T> elements(const Tensor& from) {
  const T* data = static_cast<const T*>(from.data.get());
  return std::vector<T>(data, data + from.byteLength / sizeof(T));
}

std::vector<Tensor> execute(ExecutionContext& context, const std::vector<Tensor>& inputs, size_t count,
                            Location location = Location::kHost) {
  std::vector<size_t> indices(count);
  for (size_t i = 0; i < count; ++i) indices[i] = i;
  std::vector<Tensor> outputs(count);
  for (Tensor& output : outputs) output.location = location;
  context.execute(inputs, indices, outputs);
  return outputs;
}

const std::vector<float> kInput = {1, 2, 3, 4, -1, 0.5, 0, 8, 0, 0, 0, 1};

Tensor rows(size_t count) {
  std::vector<float> all;
  for (size_t i = 0; i < count * 4; ++i) all.push_back(kInput[i % kInput.size()]);
  return tensor(DataType::kFloat32, {static_cast<int64_t>(count), 4}, all);
}

std::string fixture(const std::string& name) {
  return std::string(NODE_TENSORRT_FIXTURES) + "/session/" + name;
}

// What ONNX Runtime computes.
std::vector<Tensor> oracle(const ModelSource& source, const std::vector<Tensor>& inputs) {
  const auto loaded = ort::openRuntime(std::getenv("NODE_TENSORRT_ONNXRUNTIME"))->loadModel(source, {}, {});
  return execute(*loaded->createContext(), inputs, loaded->outputs().size());
}

class Observer final : public BuildObserver {
 public:
  void progress(std::string_view, int, int) noexcept override {}
};

struct Played {
  const char* flavour;
  const char* library;
  const char* oldest;  // version that is supported
  const char* tooOld;  // one that is not
};

class StandInEngineTest : public testing::TestWithParam<Played> {
 protected:
  void SetUp() override {
    if (std::getenv("NODE_TENSORRT_ONNXRUNTIME") == nullptr) {
      GTEST_SKIP() << "NODE_TENSORRT_ONNXRUNTIME names no library";
    }
  }
  void TearDown() override { standInSetFaults(nullptr); }

  static std::shared_ptr<const Library> library() { return Library::open(GetParam().library); }
  static bool isRtx() { return std::string_view(GetParam().flavour) == "rtx"; }

  static BuildRequest linear() {
    BuildRequest request;
    request.model = request.modelPath = fixture("linear.onnx");
    request.profiles = {{{"x", {1, 4}, {2, 4}, {8, 4}}}};
    if (isRtx()) request.computeCapabilities = {89};
    return request;
  }

  static std::vector<uint8_t> build(const BuildRequest& request, std::stop_token stop = {}) {
    Observer observer;
    const BuildResult result = library()->buildPlan(request, stop, observer);
    const uint8_t* data = static_cast<const uint8_t*>(result.plan.get());
    return std::vector<uint8_t>(data, data + result.planBytes);
  }

  // A plan of a model that is bytes.
  static std::vector<uint8_t> build(const std::string& bytes, std::vector<Profile> profiles) {
    const std::string path =
        testing::TempDir() + "stand-in-" + GetParam().flavour + std::to_string(::getpid());
    std::FILE* file = std::fopen(path.c_str(), "wb");
    std::fwrite(bytes.data(), 1, bytes.size(), file);
    std::fclose(file);
    BuildRequest request = linear();
    request.model = request.modelPath = path;
    request.profiles = std::move(profiles);
    const std::vector<uint8_t> plan = build(request);
    std::remove(path.c_str());
    return plan;
  }

  static std::unique_ptr<Model> load(const std::vector<uint8_t>& plan, const EngineOptions& options = {}) {
    return library()->loadEngine(plan, options, {});
  }

  static EngineOptions onDevice(int ordinal) {
    EngineOptions options;
    options.device = ordinal;
    return options;
  }

  static std::string codeOf(const std::function<void()>& call) {
    try {
      call();
    } catch (const Error& error) {
      return error.code();
    }
    return "";
  }

  // Builds, loads and runs, at two shapes, often enough for graphs.
  static void everything() {
    const std::unique_ptr<Model> loaded = load(build(linear()));
    const std::unique_ptr<ExecutionContext> context = loaded->createContext();
    for (const size_t count : {3, 3, 3, 5, 3}) {
      const std::vector<Tensor> inputs = {rows(count)};
      const std::vector<Tensor> outputs = execute(*context, inputs, 2);
      const std::vector<Tensor> expected = oracle(fixture("linear.onnx"), inputs);
      for (size_t i = 0; i < 2; ++i) {
        if (elements<float>(outputs[i]) != elements<float>(expected[i]))
          throw std::runtime_error("wrong numbers");
      }
    }
  }
};

std::string flavourName(const testing::TestParamInfo<Played>& info) {
  return info.param.flavour;
}
INSTANTIATE_TEST_SUITE_P(, StandInEngineTest,
                         testing::Values(Played{"trt10", NODE_TENSORRT_STAND_IN_TRT10, "10.11.0", "10.10.0"},
                                         Played{"trt11", NODE_TENSORRT_STAND_IN_TRT11, "11.0.0", "12.0.0"},
                                         Played{"rtx", NODE_TENSORRT_STAND_IN_RTX, "1.5.0", "1.4.0"}),
                         flavourName);

TEST_P(StandInEngineTest, ComputesWhatOnnxRuntimeDoes) {
  EXPECT_STREQ(toString(library()->flavour()), GetParam().flavour);
  everything();
}

TEST_P(StandInEngineTest, RunsOnTheOldestSupportedVersionAndRefusesOlderOnes) {
  // A library is opened once per process.
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_EXIT(
      {
        setenv("STAND_IN_TENSORRT_VERSION", GetParam().oldest, 1);
        everything();
        std::_Exit(library()->version() == GetParam().oldest ? 0 : 1);
      },
      testing::ExitedWithCode(0), "");
  EXPECT_EXIT(
      {
        setenv("STAND_IN_TENSORRT_VERSION", GetParam().tooOld, 1);
        const std::string code = codeOf([] { library(); });
        // A version of another major number is not played.
        std::_Exit(code == "ERR_LIBRARY_UNSUPPORTED" || library()->version()[0] == '1' ? 0 : 1);
      },
      testing::ExitedWithCode(0), "");
}

TEST_P(StandInEngineTest, EveryFailureIsAnErrorAndLeavesNothingBehind) {
  everything();  // what is there for good: primary contexts, libraries
  struct Fault {
    const char* kind;
    std::set<std::string> codes;
  };
  const std::vector<Fault> faults = {
      {"allocation", {"ERR_OUT_OF_MEMORY"}},
      {"pinned", {"ERR_OUT_OF_MEMORY"}},
      {"context", {"ERR_OUT_OF_MEMORY"}},
      {"parse", {"ERR_OUT_OF_MEMORY"}},
      {"build", {"ERR_BUILD_FAILED"}},
      {"deserialize", {"ERR_ENGINE_CORRUPT"}},
      {"enqueue", {"ERR_EXECUTION_FAILED"}},
      {"capture", {}},
      {"launch", {}},
  };
  const StandInLive before = standInLive();
  for (const Fault& fault : faults) {
    bool occurred = true;
    int occurrences = 0;
    for (int n = 1; occurred && n < 100; ++n) {
      const std::string list = std::string(fault.kind) + ":" + std::to_string(n);
      standInSetFaults(list.c_str());
      const std::string code = codeOf([] { everything(); });
      // The next would be it, had the last not been beyond all occurrences.
      occurred = standInFaultCount(fault.kind) >= n;
      occurrences += occurred;
      if (code != "") {
        EXPECT_TRUE(fault.codes.count(code) > 0) << list << " gave " << code;
      }
      const StandInLive after = standInLive();
      EXPECT_EQ(std::memcmp(&before, &after, sizeof before), 0) << list << " left something behind";
    }
    EXPECT_FALSE(occurred) << fault.kind;
    // TensorRT-RTX captures graphs itself.
    const bool isGraphs = fault.codes.empty();
    EXPECT_EQ(occurrences > 0, !(isGraphs && isRtx())) << fault.kind;
  }
  standInSetFaults(nullptr);
  everything();
}

TEST_P(StandInEngineTest, ALostDeviceIsAnErrorAtEveryCall) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_EXIT(
      {
        everything();
        const std::unique_ptr<Model> loaded = load(build(linear()));
        bool failed = true;
        for (int n = 0; failed && n < 500; ++n) {
          standInSetFaults(("lost:" + std::to_string(n)).c_str());
          const std::string code = codeOf([&] {
            const std::unique_ptr<ExecutionContext> context = loaded->createContext();
            for (int i = 0; i < 3; ++i) execute(*context, {rows(3)}, 2);
          });
          failed = code != "";
          if (failed && code != "ERR_EXECUTION_FAILED" && code != "ERR_NO_GPU" &&
              code != "ERR_OUT_OF_MEMORY") {
            std::fprintf(stderr, "lost:%d gave %s\n", n, code.c_str());
            std::_Exit(2);
          }
        }
        std::_Exit(failed ? 1 : 0);
      },
      testing::ExitedWithCode(0), "");
}

TEST_P(StandInEngineTest, AKernelThatFailsIsAnErrorOfThatRunAndOfAllLaterOnes) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_EXIT(
      {
        const std::unique_ptr<Model> loaded = load(build(linear()));
        const std::unique_ptr<ExecutionContext> context = loaded->createContext();
        execute(*context, {rows(3)}, 2);
        standInSetFaults("kernel");
        const std::string first = codeOf([&] { execute(*context, {rows(3)}, 2); });
        standInSetFaults(nullptr);
        const std::string second = codeOf([&] { execute(*context, {rows(3)}, 2); });
        std::fprintf(stderr, "first %s, second %s\n", first.c_str(), second.c_str());
        std::_Exit(first != "" && second != "" ? 0 : 1);
      },
      testing::ExitedWithCode(0), "");
}

TEST_P(StandInEngineTest, RefusesPlansThatAreNotForIt) {
  std::vector<uint8_t> plan = build(linear());
  const auto with = [&](const std::vector<uint8_t>& changed, int device = 0) {
    return codeOf([&] { load(changed, onDevice(device)); });
  };
  EXPECT_EQ(with(plan), "");
  EXPECT_EQ(with({plan.begin(), plan.end() - 1}), "ERR_ENGINE_CORRUPT");
  EXPECT_EQ(with({plan.begin(), plan.begin() + 20}), "ERR_ENGINE_CORRUPT");
  std::vector<uint8_t> damaged = plan;
  damaged[plan.size() / 2] ^= 1;
  EXPECT_EQ(with(damaged), "ERR_ENGINE_CORRUPT");
  EXPECT_EQ(with(plan, 1), "ERR_ENGINE_INCOMPATIBLE");
  EXPECT_EQ(with(plan, 2), "ERR_NO_GPU");
  std::vector<uint8_t> older = plan;
  older[20] ^= 1;  // the minor version
  EXPECT_EQ(with(older), "ERR_ENGINE_INCOMPATIBLE");
}

TEST_P(StandInEngineTest, TensorsStayOnTheDeviceAndComeFromAnotherOne) {
  const std::unique_ptr<Model> loaded = load(build(linear()));
  const std::unique_ptr<ExecutionContext> context = loaded->createContext();
  const std::vector<Tensor> expected = oracle(fixture("linear.onnx"), {rows(3)});
  const std::vector<Tensor> outputs = execute(*context, {rows(3)}, 2, Location::kDevice);
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(standInMemoryAt(outputs[i].data.get(), outputs[i].byteLength), kStandInDevice);
    EXPECT_EQ(elements<float>(outputs[i]), elements<float>(expected[i]));
  }
  // Identity on the other GPU makes a tensor there.
  BuildRequest request = linear();
  request.computeCapabilities = {120};
  if (!isRtx()) request.device = 1;
  const std::unique_ptr<Model> other = load(build(request), onDevice(1));
  const std::unique_ptr<ExecutionContext> there = other->createContext();
  Tensor first = execute(*there, {rows(3)}, 2, Location::kDevice)[0];
  EXPECT_EQ(first.device, 1);
  const std::vector<float> values = elements<float>(first);
  EXPECT_EQ(values, elements<float>(expected[0]));
}

TEST_P(StandInEngineTest, RefusesShapesThatDoNotFitTheModel) {
  const std::vector<Profile> refused = {
      {},
      {{"x", {4}, {4}, {4}}},
      {{"x", {1, 5}, {2, 5}, {8, 5}}},
      {{"x", {2, 4}, {1, 4}, {8, 4}}},
      {{"x", {1, 4}, {2, 4}, {8, 4}}, {"z", {1}, {1}, {1}}},
  };
  for (const Profile& profile : refused) {
    BuildRequest request = linear();
    request.profiles = {profile};
    EXPECT_EQ(codeOf([&] { build(request); }), "ERR_INVALID_ARG_VALUE");
  }
}

TEST_P(StandInEngineTest, ParsesWithoutCompiling) {
  const std::string path = fixture("linear.onnx");
  const ParseResult parsed = library()->parseModel(path, path);
  EXPECT_TRUE(parsed.errors.empty());
  ASSERT_EQ(parsed.network.inputs.size(), 1u);
  EXPECT_EQ(parsed.network.inputs[0].shape, (Shape{-1, 4}));
  EXPECT_EQ(parsed.network.layers.size(), 3u);
  EXPECT_STREQ(parsed.network.layers[0].type, "MATRIX_MULTIPLY");

  setenv("STAND_IN_UNSUPPORTED_OPERATORS", "Add", 1);
  const ParseResult failed = library()->parseModel(path, path);
  unsetenv("STAND_IN_UNSUPPORTED_OPERATORS");
  ASSERT_EQ(failed.errors.size(), 1u);
  EXPECT_EQ(failed.errors[0].node, 1);
  EXPECT_EQ(failed.errors[0].op, "Add");
}

TEST_P(StandInEngineTest, WhatIsMeasuredIsAddedToAFileUnderItsLock) {
  const std::string path = testing::TempDir() + "timings-" + GetParam().flavour + std::to_string(::getpid());
  BuildRequest request = linear();
  request.refit = true;
  request.timingCache = path;
  Observer observer;
  if (isRtx()) {
    EXPECT_EQ(codeOf([&] { build(request); }), "ERR_LIBRARY_UNSUPPORTED");
    return;
  }
  const BuildResult built = library()->buildPlan(request, {}, observer);
  EXPECT_TRUE(std::string_view(static_cast<const char*>(built.timingCache.get()), built.timingCacheBytes)
                  .starts_with("stand-in timing cache"));
  FileLock other(path + ".lock");
  EXPECT_FALSE(other.tryAcquire());
  built.timingCacheLock->release();
  EXPECT_TRUE(other.tryAcquire());
  // Who waits for the lock can be stopped.
  std::stop_source stop;
  std::thread stopping([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    stop.request_stop();
  });
  EXPECT_THROW(library()->buildPlan(request, stop.get_token(), observer), Cancelled);
  stopping.join();
}

TEST_P(StandInEngineTest, OutputsOfASizeThatDependsOnTheData) {
  const std::string bytes = model({node("NonZero", {"x"}, {"indices"})}, {value("x", kFloat, {"n", "4"})},
                                  {value("indices", kInt64Type, {"2", "count"})});
  const std::unique_ptr<Model> loaded = load(build(bytes, {{{"x", {1, 4}, {2, 4}, {8, 4}}}}));
  const std::unique_ptr<ExecutionContext> context = loaded->createContext();
  const std::vector<uint8_t> source(bytes.begin(), bytes.end());
  for (const size_t count : {3, 1, 8, 3}) {
    const std::vector<Tensor> outputs = execute(*context, {rows(count)}, 1);
    const std::vector<Tensor> expected = oracle(source, {rows(count)});
    EXPECT_EQ(outputs[0].shape, expected[0].shape);
    EXPECT_EQ(elements<int64_t>(outputs[0]), elements<int64_t>(expected[0]));
  }
  const Tensor zeros = tensor<float>(DataType::kFloat32, {1, 4}, {0, 0, 0, 0});
  EXPECT_EQ(execute(*context, {zeros}, 1)[0].shape, (Shape{2, 0}));
}

TEST_P(StandInEngineTest, InputsThatHoldShapes) {
  const std::string bytes = model({node("Expand", {"x", "shape"}, {"y"})},
                                  {value("x", kFloat, {"1", "4"}), value("shape", kInt64Type, {"2"})},
                                  {value("y", kFloat, {"rows", "4"})});
  const std::vector<Profile> profiles = {{{"shape", {1, 4}, {2, 4}, {8, 4}}}};
  const std::unique_ptr<Model> loaded = load(build(bytes, profiles));
  const std::unique_ptr<ExecutionContext> context = loaded->createContext();
  const std::vector<uint8_t> source(bytes.begin(), bytes.end());
  for (const int64_t count : {3, 3, 3, 8}) {
    const std::vector<Tensor> inputs = {rows(1), tensor<int64_t>(DataType::kInt64, {2}, {count, 4})};
    const std::vector<Tensor> outputs = execute(*context, inputs, 1);
    EXPECT_EQ(outputs[0].shape, (Shape{count, 4}));
    EXPECT_EQ(elements<float>(outputs[0]), elements<float>(oracle(source, inputs)[0]));
  }
  const std::vector<Tensor> outside = {rows(1), tensor<int64_t>(DataType::kInt64, {2}, {9, 4})};
  EXPECT_EQ(codeOf([&] { execute(*context, outside, 1); }), "ERR_SHAPE_MISMATCH");
}

TEST_P(StandInEngineTest, ACacheIsUpdatedWhereItIs) {
  const std::vector<std::string> cache = {"b", "1", "4", "2"};
  const std::string bytes =
      model({node("TensorScatter", {"past", "update", "at"}, {"present"})},
            {value("past", kFloat, cache), value("update", kFloat, {"b", "1", "1", "2"}),
             value("at", kInt64Type, {"b"})},
            {value("present", kFloat, cache)});
  const std::vector<Profile> profiles = {{{"past", {1, 1, 4, 2}, {1, 1, 4, 2}, {2, 1, 4, 2}},
                                          {"update", {1, 1, 1, 2}, {1, 1, 1, 2}, {2, 1, 1, 2}},
                                          {"at", {1}, {1}, {2}}}};
  const std::unique_ptr<Model> loaded = load(build(bytes, profiles));
  const std::unique_ptr<ExecutionContext> context = loaded->createContext();
  Tensor past = tensor<float>(DataType::kFloat32, {1, 1, 4, 2}, std::vector<float>(8));
  const std::vector<uint8_t> source(bytes.begin(), bytes.end());
  Tensor expected = past;
  for (int64_t at = 0; at < 4; ++at) {
    const float number = static_cast<float>(at);
    const Tensor update = tensor<float>(DataType::kFloat32, {1, 1, 1, 2}, {number + 1, -number});
    const Tensor index = tensor<int64_t>(DataType::kInt64, {1}, {at});
    past = execute(*context, {past, update, index}, 1, Location::kDevice)[0];
    expected = oracle(source, {expected, update, index})[0];
    EXPECT_EQ(elements<float>(past), elements<float>(expected)) << at;
  }
}

TEST_P(StandInEngineTest, ContextsRunBesideEachOther) {
  const std::unique_ptr<Model> loaded = load(build(linear()));
  std::vector<std::thread> threads;
  std::atomic<int> right = 0;
  const std::vector<float> expected = elements<float>(oracle(fixture("linear.onnx"), {rows(3)})[0]);
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      const std::unique_ptr<ExecutionContext> context = loaded->createContext();
      for (int run = 0; run < 20; ++run) {
        execute(*context, {rows(1 + static_cast<size_t>(run) % 8)}, 2);
        right += elements<float>(execute(*context, {rows(3)}, 2)[0]) == expected;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(right, 80);
}

TEST_P(StandInEngineTest, ARuntimeCacheIsKeptInItsFile) {
  if (!isRtx()) GTEST_SKIP() << "only TensorRT-RTX has one";
  const std::string file = testing::TempDir() + "stand-in-runtime-cache-" + std::to_string(::getpid());
  const std::vector<uint8_t> plan = build(linear());
  EngineOptions options;
  options.runtimeCache = file;
  const auto run = [&] {
    const std::unique_ptr<Model> loaded = load(plan, options);
    execute(*loaded->createContext(), {rows(3)}, 2);
    loaded->persist();
  };
  const auto size = [&] {
    std::FILE* stream = std::fopen(file.c_str(), "rb");
    if (stream == nullptr) return -1L;
    std::fseek(stream, 0, SEEK_END);
    const long bytes = std::ftell(stream);
    std::fclose(stream);
    return bytes;
  };
  run();
  const long first = size();
  EXPECT_GT(first, 0);
  run();
  EXPECT_EQ(size(), first);
  std::remove(file.c_str());
}

}  // namespace
}  // namespace node_tensorrt::tensorrt
