// Builds, loads and runs plans with every flavour of the stand-in TensorRT on the stand-in GPUs. The numbers
// must be right, and everything that can go wrong must give the proper error and leave nothing behind.
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <fstream>
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
constexpr int kHalf = 10;

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

std::string attribute(const std::string& name, const std::string& text) {
  Message message;
  message.add(1, name);
  message.add(4, text);
  message.add(20, uint64_t{3});
  return message.write();
}
std::string attribute(const std::string& name, uint64_t integer) {
  Message message;
  message.add(1, name);
  message.add(3, integer);
  message.add(20, uint64_t{2});
  return message.write();
}
std::string attribute(const std::string& name, float number) {
  Message message;
  message.add(1, name);
  message.fields.push_back({2, 5, 0, {reinterpret_cast<const char*>(&number), sizeof number}});
  message.add(20, uint64_t{1});
  return message.write();
}

std::string node(const std::string& op, const std::vector<std::string>& inputs,
                 const std::vector<std::string>& outputs, const std::vector<std::string>& attributes = {},
                 const std::string& domain = "") {
  Message message;
  for (const std::string& input : inputs) message.add(1, input);
  for (const std::string& output : outputs) message.add(2, output);
  message.add(3, "the " + op);
  message.add(4, op);
  for (const std::string& each : attributes) message.add(5, each);
  message.add(7, domain);
  return message.write();
}

std::string model(const std::vector<std::string>& nodes, const std::vector<std::string>& inputs,
                  const std::vector<std::string>& outputs) {
  Message graph;
  for (const std::string& each : nodes) graph.add(1, each);
  graph.add(2, "graph");
  for (const std::string& each : inputs) graph.add(11, each);
  for (const std::string& each : outputs) graph.add(12, each);
  Message text;
  text.add(1, uint64_t{11});
  text.add(7, graph.write());
  for (const auto& [domain, version] :
       std::initializer_list<std::pair<const char*, uint64_t>>{{"", 24}, {"com.microsoft", 1}, {"trt", 1}}) {
    Message opset;
    opset.add(1, std::string(domain));
    opset.add(2, version);
    text.add(8, opset.write());
  }
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

// Returns what ONNX Runtime computes.
std::vector<Tensor> oracle(const ModelSource& source, const std::vector<Tensor>& inputs) {
  const auto loaded = ort::openRuntime(std::getenv("NODE_TENSORRT_ONNXRUNTIME"))->loadModel(source, {}, {});
  return execute(*loaded->createContext(), inputs, loaded->outputs().size());
}

bool contains(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

class Observer final : public BuildObserver {
 public:
  void progress(std::string_view, int, int) noexcept override {}
  void built(BuildResult built) override { result = std::move(built); }
  BuildResult result;
};

struct Played {
  const char* flavour;
  const char* library;
  const char* oldest;  // oldest supported version
  const char* tooOld;  // a version that isn't supported
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
    library()->buildPlan(request, stop, observer);
    const uint8_t* data = static_cast<const uint8_t*>(observer.result.plan.get());
    return std::vector<uint8_t>(data, data + observer.result.planBytes);
  }

  // Builds a plan from a model's bytes.
  static std::vector<uint8_t> build(const std::string& bytes, std::vector<Profile> profiles) {
    Observer observer;
    build(bytes, std::move(profiles), observer);
    const uint8_t* data = static_cast<const uint8_t*>(observer.result.plan.get());
    return std::vector<uint8_t>(data, data + observer.result.planBytes);
  }
  static void build(const std::string& bytes, std::vector<Profile> profiles, BuildObserver& observer,
                    std::stop_token stop = {}) {
    const std::string path =
        testing::TempDir() + "stand-in-" + GetParam().flavour + std::to_string(::getpid());
    std::FILE* file = std::fopen(path.c_str(), "wb");
    std::fwrite(bytes.data(), 1, bytes.size(), file);
    std::fclose(file);
    BuildRequest request = linear();
    request.model = request.modelPath = path;
    request.profiles = std::move(profiles);
    library()->buildPlan(request, stop, observer);
    std::remove(path.c_str());
  }

  // Returns the settings that the stand-in's plan was compiled with.
  static std::string settings(const BuildResult& result) {
    const std::string_view plan(static_cast<const char*>(result.plan.get()), result.planBytes);
    const size_t from = plan.find("level ");
    return std::string(plan.substr(from, plan.find(';', from) - from));
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

  // Builds a plan, loads it, and runs it at two shapes, often enough for graphs.
  static void everything() {
    const std::unique_ptr<Model> loaded = load(build(linear()));
    const std::unique_ptr<ExecutionContext> context = loaded->createContext();
    context->expectShapes(2);
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
  // A library is opened once per process, so each version needs a new one.
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
        // A version with another major number isn't played.
        std::_Exit(code == "ERR_LIBRARY_UNSUPPORTED" || library()->version()[0] == '1' ? 0 : 1);
      },
      testing::ExitedWithCode(0), "");
}

TEST_P(StandInEngineTest, EveryFailureIsAnErrorAndLeavesNothingBehind) {
  everything();  // creates what stays for good: primary contexts and libraries
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
      // False if there were fewer than n occurrences: then each of them has failed once.
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

// Shapes that grow don't move buffers, and no shape drops another's graph: each is captured once.
TEST_P(StandInEngineTest, KeepsTheGraphsOfAllShapesThatItIsToExpect) {
  constexpr size_t kShapes = 24;
  BuildRequest request = linear();
  request.profiles = {{{"x", {1, 4}, {2, 4}, {4, 4}}}, {{"x", {5, 4}, {8, 4}, {kShapes, 4}}}};
  const std::unique_ptr<Model> loaded = load(build(request));
  EXPECT_TRUE(loaded->preparesShapes());
  const std::unique_ptr<ExecutionContext> context = loaded->createContext();
  context->expectShapes(kShapes);
  const size_t activations = loaded->deviceStats()->activations;
  for (int round = 0; round < 4; ++round) {
    for (size_t count = 1; count <= kShapes; ++count) {
      const std::vector<Tensor> inputs = {rows(count)};
      const std::vector<Tensor> outputs = execute(*context, inputs, 2);
      const std::vector<Tensor> expected = oracle(fixture("linear.onnx"), inputs);
      EXPECT_EQ(elements<float>(outputs[0]), elements<float>(expected[0]));
      EXPECT_EQ(elements<float>(outputs[1]), elements<float>(expected[1]));
    }
  }
  const DeviceStats stats = *loaded->deviceStats();
  EXPECT_EQ(stats.activations, activations);
  if (isRtx()) return;  // it captures graphs itself
  EXPECT_EQ(stats.graphsCaptured, kShapes);
  EXPECT_EQ(stats.graphsReplayed, 3 * kShapes);
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
  // Identity on the other GPU creates a tensor there.
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

TEST_P(StandInEngineTest, OpensNoLibraryOfPluginsOnceItIsStopped) {
  const std::string path = testing::TempDir() + "stopped-" + GetParam().flavour + std::to_string(::getpid());
  std::ofstream(path, std::ios::binary)
      << model({node("RoiAlign", {"x"}, {"y"})}, {value("x", kFloat, {"4"})}, {value("y", kFloat, {"4"})});
  std::stop_source stop;
  stop.request_stop();
  EXPECT_THROW(library()->parseModel(path, path, std::nullopt, stop.get_token()), Cancelled);
  std::remove(path.c_str());
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
  library()->buildPlan(request, {}, observer);
  const BuildResult& built = observer.result;
  EXPECT_TRUE(std::string_view(static_cast<const char*>(built.timingCache.get()), built.timingCacheBytes)
                  .starts_with("stand-in timing cache"));
  FileLock other(path + ".lock");
  EXPECT_FALSE(other.tryAcquire());
  built.timingCacheLock->release();
  EXPECT_TRUE(other.tryAcquire());
  // A build that waits for the lock can be stopped.
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

TEST_P(StandInEngineTest, RoundsToTF32OnlyWhenAsked) {
  for (const bool asked : {false, true}) {
    BuildRequest request = linear();
    request.tf32 = asked;
    Observer observer;
    library()->buildPlan(request, {}, observer);
    EXPECT_EQ(contains(settings(observer.result), "TF32"), asked);
  }
}

// Contexts bring their memory (kUSER_MANAGED). TensorRT-RTX then promises that runs can be captured.
TEST_P(StandInEngineTest, DemandsNoMemoryAtRunTimeWhereTensorRTCanPromiseThat) {
  Observer observer;
  library()->buildPlan(linear(), {}, observer);
  EXPECT_EQ(contains(settings(observer.result), "user allocation"), isRtx());
}

// ---- attention over a KV cache ----

constexpr int64_t kHeads = 4;
constexpr int64_t kKvHeads = 2;
constexpr int64_t kHeadDim = 8;
constexpr int64_t kCapacity = 16;

// TensorScatter and attention, as in a decoder's layer for TensorRT. `attention` writes "y".
std::string cachedAttention(const std::string& attention, const std::vector<std::string>& more,
                            const std::string& update = "TensorScatter", const std::string& domain = "",
                            int type = kFloat, int64_t capacity = kCapacity) {
  const std::string heads = std::to_string(kHeads);
  const std::string kvHeads = std::to_string(kKvHeads);
  const std::string dim = std::to_string(kHeadDim);
  const std::vector<std::string> cache = {"batch", kvHeads, std::to_string(capacity), dim};
  std::vector<std::string> inputs = {value("q", type, {"batch", heads, "new", dim}),
                                     value("k", type, {"batch", kvHeads, "new", dim}),
                                     value("v", type, {"batch", kvHeads, "new", dim}),
                                     value("past_key", type, cache),
                                     value("past_value", type, cache),
                                     value("past_lengths", kInt32Type, {"batch"})};
  inputs.insert(inputs.end(), more.begin(), more.end());
  return model({node(update, {"past_key", "k", "past_lengths"}, {"key"}, {}, domain),
                node(update, {"past_value", "v", "past_lengths"}, {"value"}, {}, domain), attention},
               inputs,
               {value("y", type, {"batch", heads, "new", dim}), value("key", type, cache),
                value("value", type, cache)});
}

std::string boundedAttention(const std::string& update = "TensorScatter", const std::string& domain = "") {
  return cachedAttention(node("TRT_Attention", {"q", "key", "value", "", "", "total_lengths"}, {"y"},
                              {attribute("causal_kind", "lower_right")}, "trt"),
                         {value("total_lengths", kInt32Type, {"batch"})}, update, domain);
}

std::string maskedAttention(int type = kFloat, float scale = 1, int64_t capacity = kCapacity) {
  constexpr int kBool = 9;
  return cachedAttention(node("Attention", {"q", "key", "value", "mask"}, {"y"}, {attribute("scale", scale)}),
                         {value("mask", kBool, {"batch", "1", "new", std::to_string(capacity)})},
                         "TensorScatter", "", type, capacity);
}

// The oracle: ONNX Runtime's GroupQueryAttention, which TensorRT's attention is compared to.
std::string groupQueryAttention() {
  const std::string width = std::to_string(kHeads * kHeadDim);
  const std::string kvWidth = std::to_string(kKvHeads * kHeadDim);
  const std::vector<std::string> cache = {"batch", std::to_string(kKvHeads), std::to_string(kCapacity),
                                          std::to_string(kHeadDim)};
  return model(
      {node("GroupQueryAttention", {"q", "k", "v", "past_key", "past_value", "last_indices", "longest"},
            {"y", "key", "value"},
            {attribute("num_heads", uint64_t{kHeads}), attribute("kv_num_heads", uint64_t{kKvHeads}),
             attribute("scale", 1.0f)},
            "com.microsoft")},
      {value("q", kFloat, {"batch", "new", width}), value("k", kFloat, {"batch", "new", kvWidth}),
       value("v", kFloat, {"batch", "new", kvWidth}), value("past_key", kFloat, cache),
       value("past_value", kFloat, cache), value("last_indices", kInt32Type, {"batch"}),
       value("longest", kInt32Type, {})},
      {value("y", kFloat, {"batch", "new", width}), value("key", kFloat, cache),
       value("value", kFloat, cache)});
}

std::vector<Profile> attentionProfiles(const Profile& more, int64_t capacity = kCapacity) {
  const auto range = [](const char* name, int64_t heads, int64_t least, int64_t most) {
    return ShapeRange{
        name, {1, heads, least, kHeadDim}, {1, heads, least, kHeadDim}, {2, heads, most, kHeadDim}};
  };
  Profile profile = {range("q", kHeads, 1, 8),
                     range("k", kKvHeads, 1, 8),
                     range("v", kKvHeads, 1, 8),
                     range("past_key", kKvHeads, capacity, capacity),
                     range("past_value", kKvHeads, capacity, capacity),
                     {"past_lengths", {1}, {1}, {2}}};
  profile.insert(profile.end(), more.begin(), more.end());
  return {profile};
}

std::vector<Profile> maskedProfiles(int64_t capacity = kCapacity) {
  return attentionProfiles({{"mask", {1, 1, 1, capacity}, {1, 1, 1, capacity}, {2, 1, 8, capacity}}},
                           capacity);
}

// Reorders [batch, new, heads, dim] to [batch, heads, new, dim].
std::vector<float> headsFirst(const std::vector<float>& from, int64_t batch, int64_t count, int64_t heads) {
  std::vector<float> to;
  for (int64_t b = 0; b < batch; ++b) {
    for (int64_t h = 0; h < heads; ++h) {
      for (int64_t t = 0; t < count; ++t) {
        const auto begin = from.begin() + ((b * count + t) * heads + h) * kHeadDim;
        to.insert(to.end(), begin, begin + kHeadDim);
      }
    }
  }
  return to;
}

// A cache of two rows on the GPU. Runs update the rows that they bind.
Tensor deviceCache(TensorMemory& memory) {
  Tensor cache;
  cache.type = DataType::kFloat32;
  cache.shape = {2, kKvHeads, kCapacity, kHeadDim};
  cache.byteLength = sizeof(float) * 2 * kKvHeads * kCapacity * kHeadDim;
  cache.location = memory.location();
  cache.device = memory.device();
  cache.data = memory.reserve(cache.byteLength);
  return cache;
}

Tensor rowsOf(const Tensor& cache, int64_t first, int64_t count) {
  Tensor part = cache;
  const size_t row = cache.byteLength / static_cast<size_t>(cache.shape[0]);
  part.shape[0] = count;
  part.byteLength = row * static_cast<size_t>(count);
  char* begin = static_cast<char*>(cache.data.get()) + row * static_cast<size_t>(first);
  part.data = std::shared_ptr<void>(cache.data, begin);
  return part;
}

TEST_P(StandInEngineTest, AttentionOverACacheInPlaceIsGroupQueryAttention) {
  const bool isTen = std::string_view(GetParam().flavour) == "trt10";
  // TensorRT 10 doesn't have attention with one length per row.
  const std::string graph = isTen ? maskedAttention() : boundedAttention();
  const ShapeRange lengths = {"total_lengths", {1}, {1}, {2}};
  const std::unique_ptr<Model> loaded =
      load(build(graph, isTen ? maskedProfiles() : attentionProfiles({lengths})));
  const std::unique_ptr<ExecutionContext> context = loaded->createContext();
  const Tensor keys = deviceCache(*loaded->tensorMemory());
  const Tensor values = deviceCache(*loaded->tensorMemory());
  const std::string bytes = groupQueryAttention();
  const auto peer = ort::openRuntime(std::getenv("NODE_TENSORRT_ONNXRUNTIME"))
                        ->loadModel(std::vector<uint8_t>(bytes.begin(), bytes.end()), {}, {});
  const std::unique_ptr<ExecutionContext> oracle = peer->createContext();
  const size_t cacheElements = keys.byteLength / sizeof(float);
  Tensor peerKeys = tensor<float>(DataType::kFloat32, keys.shape, std::vector<float>(cacheElements));
  Tensor peerValues = tensor<float>(DataType::kFloat32, keys.shape, std::vector<float>(cacheElements));

  // Rows [first, first + pasts.size()) get `count` tokens each.
  struct Step {
    int64_t first;
    std::vector<int32_t> pasts;
    int64_t count;
  };
  std::vector<Step> steps = {{0, {0}, 5}, {1, {0}, 3}, {0, {5}, 4}};
  for (int32_t i = 0; i < 6; ++i) steps.push_back({0, {9 + i, 3 + i}, 1});
  steps.push_back({1, {9}, 7});
  int drawn = 0;
  for (const Step& step : steps) {
    const auto batch = static_cast<int64_t>(step.pasts.size());
    const auto random = [&](int64_t heads) {
      std::vector<float> all;
      for (int64_t i = 0; i < batch * step.count * heads * kHeadDim; ++i) {
        all.push_back(static_cast<float>(std::sin(++drawn * 1.7)));
      }
      return all;
    };
    const std::vector<float> q = random(kHeads);
    const std::vector<float> k = random(kKvHeads);
    const std::vector<float> v = random(kKvHeads);
    std::vector<int32_t> totals;
    std::vector<int32_t> lasts;
    for (const int32_t past : step.pasts) {
      totals.push_back(past + static_cast<int32_t>(step.count));
      lasts.push_back(totals.back() - 1);
    }

    const auto perHead = [&](const std::vector<float>& data, int64_t heads) {
      return tensor<float>(DataType::kFloat32, {batch, heads, step.count, kHeadDim},
                           headsFirst(data, batch, step.count, heads));
    };
    std::vector<Tensor> inputs = {perHead(q, kHeads),
                                  perHead(k, kKvHeads),
                                  perHead(v, kKvHeads),
                                  rowsOf(keys, step.first, batch),
                                  rowsOf(values, step.first, batch),
                                  tensor<int32_t>(DataType::kInt32, {batch}, step.pasts)};
    if (isTen) {
      std::vector<uint8_t> mask;
      for (const int32_t past : step.pasts) {
        for (int64_t t = 0; t < step.count; ++t) {
          for (int64_t key = 0; key < kCapacity; ++key) mask.push_back(key <= past + t);
        }
      }
      inputs.push_back(tensor<uint8_t>(DataType::kBool, {batch, 1, step.count, kCapacity}, mask));
    } else {
      inputs.push_back(tensor<int32_t>(DataType::kInt32, {batch}, totals));
    }
    const std::vector<float> y = elements<float>(execute(*context, inputs, 1)[0]);

    const auto flat = [&](const std::vector<float>& data, int64_t heads) {
      return tensor<float>(DataType::kFloat32, {batch, step.count, heads * kHeadDim}, data);
    };
    const std::vector<Tensor> peerInputs = {
        flat(q, kHeads),
        flat(k, kKvHeads),
        flat(v, kKvHeads),
        rowsOf(peerKeys, step.first, batch),
        rowsOf(peerValues, step.first, batch),
        tensor<int32_t>(DataType::kInt32, {batch}, lasts),
        tensor<int32_t>(DataType::kInt32, {}, {*std::max_element(totals.begin(), totals.end())})};
    std::vector<Tensor> peerOutputs = {{}, peerInputs[3], peerInputs[4]};
    const std::vector<size_t> all = {0, 1, 2};
    oracle->execute(peerInputs, all, peerOutputs);
    const std::vector<float> expected =
        headsFirst(elements<float>(peerOutputs[0]), batch, step.count, kHeads);
    ASSERT_EQ(y.size(), expected.size());
    for (size_t i = 0; i < y.size(); ++i) ASSERT_NEAR(y[i], expected[i], 1e-5) << i;
  }
  EXPECT_EQ(elements<float>(keys), elements<float>(peerKeys));
  EXPECT_EQ(elements<float>(values), elements<float>(peerValues));
}

// 0 times NaN is NaN, so masked values must be numbers too, as in the kernels that TensorRT fuses.
TEST_P(StandInEngineTest, WhatIsMaskedIsComputedWithAllTheSame) {
  const bool isTen = std::string_view(GetParam().flavour) == "trt10";
  ShapeRange more = {"total_lengths", {1}, {1}, {2}};
  if (isTen) more = {"mask", {1, 1, 1, kCapacity}, {1, 1, 1, kCapacity}, {2, 1, 8, kCapacity}};
  const std::string graph = isTen ? maskedAttention() : boundedAttention();
  const std::unique_ptr<Model> loaded = load(build(graph, attentionProfiles({more})));
  const std::unique_ptr<ExecutionContext> context = loaded->createContext();
  const auto answer = [&](float beyond) {
    const auto filled = [](int64_t heads) {
      return tensor<float>(DataType::kFloat32, {1, heads, 1, kHeadDim},
                           std::vector<float>(static_cast<size_t>(heads * kHeadDim), 0.5f));
    };
    std::vector<float> values(kKvHeads * kCapacity * kHeadDim);
    values.back() = beyond;
    const Shape cache = {1, kKvHeads, kCapacity, kHeadDim};
    std::vector<Tensor> inputs = {filled(kHeads),
                                  filled(kKvHeads),
                                  filled(kKvHeads),
                                  tensor<float>(DataType::kFloat32, cache, std::vector<float>(values.size())),
                                  tensor<float>(DataType::kFloat32, cache, values),
                                  tensor<int32_t>(DataType::kInt32, {1}, {0})};
    std::vector<uint8_t> mask(kCapacity);
    mask[0] = 1;
    inputs.push_back(isTen ? tensor<uint8_t>(DataType::kBool, {1, 1, 1, kCapacity}, mask)
                           : tensor<int32_t>(DataType::kInt32, {1}, {1}));
    return elements<float>(execute(*context, inputs, 1)[0]);
  };
  EXPECT_EQ(answer(1000), std::vector<float>(kHeads * kHeadDim, 0.5f));
  EXPECT_TRUE(std::isnan(answer(NAN).back()));
}

TEST_P(StandInEngineTest, OfEqualValuesTheLastOnesAreTheBest) {
  const std::string bytes =
      model({node("TopK", {"x", "k"}, {"best", "at"}, {attribute("axis", uint64_t{1})})},
            {value("x", kFloat, {"1", "6"}), value("k", kInt64Type, {"1"})},
            {value("best", kFloat, {"1", "4"}), value("at", kInt64Type, {"1", "4"})});
  const std::unique_ptr<Model> loaded = load(build(bytes, {{{"k", {4}, {4}, {4}}}}));
  const std::vector<Tensor> outputs = execute(*loaded->createContext(),
                                              {tensor<float>(DataType::kFloat32, {1, 6}, {1, 3, 1, 3, 2, 1}),
                                               tensor<int64_t>(DataType::kInt64, {1}, {4})},
                                              2);
  EXPECT_EQ(elements<float>(outputs[0]), (std::vector<float>{3, 3, 2, 1}));
  EXPECT_EQ(elements<int64_t>(outputs[1]), (std::vector<int64_t>{3, 1, 4, 5}));
}

TEST_P(StandInEngineTest, KnowsWhichOutputsAreWrittenOverAnInput) {
  ShapeRange more = {"total_lengths", {1}, {1}, {2}};
  std::string graph = boundedAttention();
  if (std::string_view(GetParam().flavour) == "trt10") {
    more = {"mask", {1, 1, 1, kCapacity}, {1, 1, 1, kCapacity}, {2, 1, 8, kCapacity}};
    graph = maskedAttention();
  }
  const std::vector<uint8_t> plan = build(graph, attentionProfiles({more}));
  // y, key and value over past_key and past_value.
  using Pairs = std::set<std::pair<size_t, size_t>>;
  const auto pairs = [&](const char* faults) {
    standInSetFaults(faults);
    const std::unique_ptr<Model> loaded = load(plan);
    Pairs found;
    for (size_t output = 0; output < loaded->outputs().size(); ++output) {
      for (size_t input = 0; input < loaded->inputs().size(); ++input) {
        if (loaded->writesOver(output, input)) found.emplace(output, input);
      }
    }
    return found;
  };
  EXPECT_EQ(pairs(nullptr), (Pairs{{1, 3}, {2, 4}}));
  EXPECT_EQ(pairs("unaliased:2"), (Pairs{{1, 3}}));
  EXPECT_EQ(pairs("misaliased:2"), (Pairs{{1, 3}, {2, 3}}));
}

// The parser multiplies the key, which is the cache, by the square root of the scale.
TEST_P(StandInEngineTest, AttentionWithAMaskCopiesNoCache) {
  const auto settingsOf = [](int type, float scale) {
    Observer observer;
    build(maskedAttention(type, scale), maskedProfiles(), observer);
    return settings(observer.result);
  };
  for (const int type : {kFloat, kHalf}) {
    EXPECT_FALSE(contains(settingsOf(type, 1), "moves")) << type;
    // A multiplication that changes the key is kept.
    EXPECT_TRUE(contains(settingsOf(type, 0.25F), "moves key")) << type;
  }
}

TEST_P(StandInEngineTest, AttentionWithoutAFusedKernelIsCompiledFromItsPartsAndSaysSo) {
  constexpr int64_t kLong = 32768;
  Observer fused;
  build(maskedAttention(kHalf), maskedProfiles(), fused);
  EXPECT_FALSE(contains(settings(fused.result), "decomposes"));
  EXPECT_TRUE(fused.result.warnings.empty());

  Observer unfused;
  build(maskedAttention(kHalf, 1, kLong), maskedProfiles(kLong), unfused);
  EXPECT_TRUE(contains(settings(unfused.result), "decomposes the Attention"));
  ASSERT_EQ(unfused.result.warnings.size(), 1U);
  EXPECT_TRUE(contains(unfused.result.warnings[0], "no fused kernel")) << unfused.result.warnings[0];
  EXPECT_TRUE(contains(unfused.result.warnings[0], "\"the Attention\"")) << unfused.result.warnings[0];

  // FP32 attention never has a fused kernel, so there is no warning about it.
  Observer wide;
  build(maskedAttention(), maskedProfiles(), wide);
  EXPECT_TRUE(contains(settings(wide.result), "decomposes the Attention"));
  EXPECT_TRUE(wide.result.warnings.empty());
}

TEST_P(StandInEngineTest, TheSecondAttemptAtABuildFailsAndStopsAsTheFirstDoes) {
  constexpr int64_t kLong = 32768;
  const std::string model = maskedAttention(kHalf, 1, kLong);
  standInSetFaults("build:1");
  try {
    Observer observer;
    build(model, maskedProfiles(kLong), observer);
    ADD_FAILURE() << "it was built";
  } catch (const Error& error) {
    EXPECT_TRUE(contains(error.what(), "Could not find any implementation")) << error.what();
    EXPECT_FALSE(contains(error.what(), "dedicated kernel")) << error.what();
  }
  standInSetFaults(nullptr);

  struct Stopping final : BuildObserver {
    void progress(std::string_view phase, int, int) noexcept override {
      if (phase == "Building engine") stop.request_stop();
    }
    void built(BuildResult) override {}
    std::stop_source stop;
  } stopping;
  EXPECT_THROW(build(model, maskedProfiles(kLong), stopping, stopping.stop.get_token()), Cancelled);
}

TEST_P(StandInEngineTest, MemoryOfACacheIsCopiedInBlocks) {
  const std::unique_ptr<Model> loaded = load(build(linear()));
  const std::shared_ptr<TensorMemory> memory = loaded->tensorMemory();
  EXPECT_EQ(memory->location(), Location::kDevice);
  EXPECT_EQ(memory->device(), 0);
  // 2 rows of 3 heads of 8 bytes each. The first 5 bytes are in use.
  constexpr size_t kHead = 8;
  constexpr size_t kUsed = 5;
  constexpr size_t kRow = 3 * kHead;
  const std::shared_ptr<void> cache = memory->reserve(2 * kRow);
  char* const first = static_cast<char*>(cache.get());
  const auto contents = [&](const void* from, size_t bytes) {
    std::string text(bytes, '?');
    memory->toHost({text.data(), bytes, from, bytes, bytes, 1});
    memory->finish();
    return text;
  };
  EXPECT_EQ(contents(first, 2 * kRow), std::string(2 * kRow, '\0'));
  const std::string tokens = "abcdefghijklmno";
  memory->fromHost({first, kHead, tokens.data(), kUsed, kUsed, 3});
  memory->copy({first + kRow, kHead, first, kHead, kUsed, 3});
  memory->finish();
  const std::string gap(kHead - kUsed, '\0');
  const std::string row = "abcde" + gap + "fghij" + gap + "klmno" + gap;
  EXPECT_EQ(contents(first, 2 * kRow), row + row);
  std::string packed(tokens.size(), '?');
  memory->toHost({packed.data(), kUsed, first + kRow, kHead, kUsed, 3});
  memory->finish();
  EXPECT_EQ(packed, tokens);
  memory->copy({first, 0, first + kRow, 0, 2, 1});
  memory->copy({first, kHead, first + kRow, kHead, 0, 3});
  memory->finish();
  EXPECT_EQ(contents(first, kRow), row);
  memory->clear(first + kRow + 1, kHead, 3, 3);
  memory->clear(first, kHead, 0, 3);
  memory->clear(first + 5, 0, 1, 1);
  memory->finish();
  const std::string zeros(3, '\0');
  EXPECT_EQ(contents(first, 2 * kRow),
            row + "a" + zeros + "e" + gap + "f" + zeros + "j" + gap + "k" + zeros + "o" + gap);

  const StandInLive before = standInLive();
  standInSetFaults("allocation:1");
  EXPECT_EQ(codeOf([&] { memory->reserve(100); }), "ERR_OUT_OF_MEMORY");
  standInSetFaults(nullptr);
  EXPECT_EQ(codeOf([&] { memory->reserve(size_t{1} << 50); }), "ERR_OUT_OF_MEMORY");
  const StandInLive after = standInLive();
  EXPECT_EQ(std::memcmp(&before, &after, sizeof before), 0);
}

TEST_P(StandInEngineTest, MemoryOfALostDeviceIsAnErrorAtEveryCall) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_EXIT(
      {
        const std::unique_ptr<Model> loaded = load(build(linear()));
        const std::shared_ptr<TensorMemory> memory = loaded->tensorMemory();
        std::string host = "abcd";
        bool failed = true;
        for (int n = 0; failed && n < 100; ++n) {
          standInSetFaults(("lost:" + std::to_string(n)).c_str());
          const std::string code = codeOf([&] {
            const std::shared_ptr<void> cache = memory->reserve(8);
            char* const first = static_cast<char*>(cache.get());
            memory->fromHost({first, 4, host.data(), 2, 2, 2});
            memory->copy({first + 2, 4, first, 4, 2, 2});
            memory->toHost({host.data(), 2, first + 2, 4, 2, 2});
            memory->clear(first, 4, 2, 2);
            memory->finish();
            loaded->tensorMemory();
          });
          failed = code != "";
          if (failed && code != "ERR_EXECUTION_FAILED" && code != "ERR_NO_GPU") {
            std::fprintf(stderr, "lost:%d gave %s\n", n, code.c_str());
            std::_Exit(2);
          }
        }
        std::_Exit(failed ? 1 : 0);
      },
      testing::ExitedWithCode(0), "");
}

// Each reason is in TensorRT-RTX 1.7's words.
TEST_P(StandInEngineTest, RefusesTheOperatorsThatTensorRTDoes) {
  const bool isTen = std::string_view(GetParam().flavour) == "trt10";
  std::string noPlugin = "TensorRT has neither an operator nor a plugin of this name.";
  if (isRtx()) noPlugin += " TensorRT-RTX has no plugins, which TensorRT has.";
  const auto attention = [](const std::vector<std::string>& inputs,
                            const std::vector<std::string>& attributes, const std::string& op) {
    return cachedAttention(node(op, inputs, {"y"}, attributes),
                           {value("total_lengths", kInt32Type, {"batch"}),
                            value("mask", 9, {"batch", "1", "new", std::to_string(kCapacity)})});
  };
  const std::string lowerRight = attribute("causal_kind", std::string("lower_right"));
  struct Case {
    std::string model;
    std::string reason;
    std::string ofTen;
  };
  const std::vector<Case> cases = {
      {boundedAttention(), "", noPlugin},
      {boundedAttention("TRT_KVCacheUpdate", "trt"), "", noPlugin},
      {maskedAttention(), "", ""},
      {groupQueryAttention(), "failed to load GroupQueryAttention plugin.", noPlugin},
      {attention({"q", "key", "value", "mask", "", "total_lengths"}, {lowerRight}, "TRT_Attention"),
       "Failed to set mask.", noPlugin},
      {attention({"q", "key", "value", "", "", "mask"}, {lowerRight}, "TRT_Attention"),
       "Failed to set key-value lengths.", noPlugin},
      {attention({"q", "key", "value"}, {attribute("softcap", 30.0f)}, "Attention"),
       "Setting softcap is not supported in TensorRT Attention.",
       "Setting softcap is not supported in TensorRT Attention."},
  };
  const std::string path = testing::TempDir() + "refused-" + GetParam().flavour + std::to_string(::getpid());
  for (const Case& each : cases) {
    std::ofstream(path, std::ios::binary) << each.model;
    const ParseResult parsed = library()->parseModel(path, path);
    const std::string& expected = isTen ? each.ofTen : each.reason;
    EXPECT_EQ(parsed.errors.empty() ? "" : parsed.errors[0].reason, expected);
  }
  std::remove(path.c_str());
}

TEST_P(StandInEngineTest, ACacheIsAnInputAndAnOutputOfThePlan) {
  const std::vector<std::string> cache = {"1", "1", "4", "2"};
  const auto reasonOf = [&](const std::vector<std::string>& nodes, const std::string& output) {
    const std::string bytes =
        model(nodes,
              {value("past", kFloat, cache), value("update", kFloat, {"1", "1", "1", "2"}),
               value("at", kInt32Type, {"1"})},
              {value(output, kFloat, cache)});
    try {
      build(bytes, {});
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  const auto contains = [](const std::string& text, const char* part) {
    return text.find(part) != std::string::npos;
  };
  const auto scatter = [](const std::string& to, const std::string& output) {
    return node("TensorScatter", {to, "update", "at"}, {output});
  };
  EXPECT_EQ(reasonOf({scatter("past", "present")}, "present"), "");
  EXPECT_TRUE(contains(reasonOf({node("Neg", {"past"}, {"minus"}), scatter("minus", "present")}, "present"),
                       "The cache tensor must be a network input."));
  EXPECT_TRUE(contains(reasonOf({scatter("past", "present"), node("Neg", {"present"}, {"minus"})}, "minus"),
                       "The output tensor must be a network output."));
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

TEST_P(StandInEngineTest, ALaterLoadGoesOnWithTheRuntimeCacheOfAnEarlierOne) {
  if (!isRtx()) GTEST_SKIP() << "only TensorRT-RTX has one";
  const std::string file = testing::TempDir() + "stand-in-runtime-cache-" + std::to_string(::getpid());
  const std::vector<uint8_t> plan = build(linear());
  EngineOptions options;
  options.runtimeCache = file;
  // What was compiled: the stand-in's cache lists that.
  const auto keptAfter = [&](size_t count) {
    const std::unique_ptr<Model> loaded = load(plan, options);
    execute(*loaded->createContext(), {rows(count)}, 2);
    loaded->persist();
    std::ifstream stream(file, std::ios::binary);
    return std::string(std::istreambuf_iterator<char>(stream), {});
  };
  const std::string header = "stand-in runtime cache\n";
  EXPECT_EQ(keptAfter(3), header + "x[3,4]\n");
  EXPECT_EQ(keptAfter(5), header + "x[3,4]\nx[5,4]\n");
  EXPECT_EQ(keptAfter(3), header + "x[3,4]\nx[5,4]\n");
  // A cache that is damaged, or from another version, is ignored.
  std::ofstream(file, std::ios::binary) << "else";
  EXPECT_EQ(keptAfter(5), header + "x[5,4]\n");
  std::remove(file.c_str());
}

}  // namespace
}  // namespace node_tensorrt::tensorrt
