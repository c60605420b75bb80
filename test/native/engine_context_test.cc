// Runs in parts: one can be prepared while another executes, and both give correct numbers. Compiled once per
// flavour, like the code it tests.
#include "runtime/tensorrt/engine_context.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/error.h"
#include "runtime/onnxruntime/onnxruntime.h"
#include "runtime/tensorrt/tensorrt.h"
#include "stand_in/cuda/cuda.h"

namespace node_tensorrt::tensorrt::NODE_TENSORRT_FLAVOUR {
namespace {

constexpr size_t kOutputs = 2;  // of linear.onnx
constexpr int64_t kMostRows = 128;
constexpr float kUnwritten = -12345;
const std::vector<size_t> kAll = {0, 1};

std::string linear() {
  return std::string(NODE_TENSORRT_FIXTURES) + "/session/linear.onnx";
}

std::vector<float> elements(const Tensor& from) {
  const float* data = static_cast<const float*>(from.data.get());
  return std::vector<float>(data, data + from.byteLength / sizeof(float));
}

class Observer final : public BuildObserver {
 public:
  void progress(std::string_view, int, int) noexcept override {}
  void built(BuildResult built) override { result = std::move(built); }
  BuildResult result;
};

// Holds all kernels while it lives.
struct Held {
  Held() { standInHoldKernels(true); }
  Held(const Held&) = delete;
  ~Held() { standInHoldKernels(false); }
};

class EngineContextTest : public testing::Test {
 protected:
  // The arguments of a run, and the outputs that ONNX Runtime computes.
  struct Step {
    std::vector<Tensor> inputs;
    std::vector<Tensor> outputs;
    std::vector<std::vector<float>> expected;

    std::vector<std::vector<float>> results() const {
      std::vector<std::vector<float>> all;
      for (const Tensor& output : outputs) all.push_back(elements(output));
      return all;
    }
  };

  void SetUp() override {
    if (std::getenv("NODE_TENSORRT_ONNXRUNTIME") == nullptr) {
      GTEST_SKIP() << "NODE_TENSORRT_ONNXRUNTIME names no library";
    }
    cpu_ = ort::openRuntime(std::getenv("NODE_TENSORRT_ONNXRUNTIME"))->loadModel(linear(), {}, {});
    current_.emplace(cuda::Device::open(0));
    load({});
  }
  void TearDown() override {
    standInSetFaults(nullptr);
    context_.reset();
    model_.reset();
    current_.reset();
  }

  void load(const EngineOptions& options) {
    BuildRequest request;
    request.model = request.modelPath = linear();
    request.profiles = {{{"x", {1, 4}, {2, 4}, {kMostRows, 4}}}};
    if (kFlavour == Flavour::kRtx) request.computeCapabilities = {89};
    Observer observer;
    const std::shared_ptr<const Library> library = Library::open(STAND_IN_LIBRARY);
    library->buildPlan(request, {}, observer);
    const auto* plan = static_cast<const uint8_t*>(observer.result.plan.get());
    context_.reset();
    model_ = library->loadEngine({plan, observer.result.planBytes}, options, {});
    context_.reset(static_cast<EngineContext*>(model_->createContext().release()));
  }

  // A step with `rows` rows whose values are seed, seed + 1, …
  Step step(size_t rows, float seed) {
    const Shape shape = {static_cast<int64_t>(rows), 4};
    Step made;
    made.inputs = {tensor(shape)};
    float* input = static_cast<float*>(made.inputs[0].data.get());
    for (size_t i = 0; i < rows * 4; ++i) input[i] = seed + static_cast<float>(i);
    std::vector<Tensor> expected(kOutputs);
    cpu_->createContext()->execute(made.inputs, kAll, expected);
    for (const Tensor& each : expected) {
      made.expected.push_back(elements(each));
      Tensor& output = made.outputs.emplace_back(tensor(each.shape));
      std::fill_n(static_cast<float*>(output.data.get()), output.byteLength / sizeof(float), kUnwritten);
    }
    return made;
  }

  // Pinned host memory, so that copies don't block the host.
  Tensor tensor(const Shape& shape) {
    Tensor made;
    made.type = DataType::kFloat32;
    made.shape = shape;
    made.byteLength = elementCount(shape) * sizeof(float);
    made.data = model_->inputMemory()->acquire(made.byteLength);
    return made;
  }

  static bool isUnwritten(const Step& step) {
    for (const std::vector<float>& output : step.results()) {
      if (std::any_of(output.begin(), output.end(), [](float each) { return each != kUnwritten; }))
        return false;
    }
    return true;
  }

  void prepare(Step& step) { context_->prepare(step.inputs, kAll, step.outputs); }
  void execute(Step& step) { context_->execute(step.inputs, kAll, step.outputs); }

  // Ends the executing run, then runs the prepared one.
  void expectBoth(const Step& running, const Step& prepared) {
    context_->wait();
    context_->launch();
    context_->wait();
    EXPECT_EQ(running.results(), running.expected);
    EXPECT_EQ(prepared.results(), prepared.expected);
  }

  // Runs often enough that everything is set up for these shapes, including graphs.
  void runOften(const std::vector<size_t>& rows) {
    for (int i = 0; i < 3; ++i) {
      for (const size_t count : rows) {
        Step each = step(count, 1);
        execute(each);
        ASSERT_EQ(each.results(), each.expected);
      }
    }
  }

  static std::string codeOf(const std::function<void()>& call) {
    try {
      call();
    } catch (const Error& error) {
      return error.code();
    } catch (const Cancelled&) {
      return "cancelled";
    }
    return "";
  }

  std::unique_ptr<Model> cpu_;
  std::optional<cuda::Current> current_;
  std::unique_ptr<Model> model_;
  std::unique_ptr<EngineContext> context_;
};

// The stand-in would abort if preparing the second run waited for the first, whose kernel the test holds.
TEST_F(EngineContextTest, ARunIsPreparedWhileAnotherOneRuns) {
  context_->expectShapes(2);
  runOften({3, 5});
  std::vector<size_t> others = {3};
  // Another shape can be prepared too if each shape has its own TensorRT context.
  if (kFlavour != Flavour::kRtx) others.push_back(5);
  for (const size_t rows : others) {
    Step first = step(3, 1);
    Step second = step(rows, -20);
    {
      const Held held;
      prepare(first);
      context_->launch();
      prepare(second);
      EXPECT_TRUE(isUnwritten(first));
    }
    context_->wait();
    EXPECT_EQ(first.results(), first.expected);
    EXPECT_TRUE(isUnwritten(second));
    context_->launch();
    context_->wait();
    EXPECT_EQ(second.results(), second.expected);
  }
}

// A new shape is also set up during a run, if there is memory for it.
TEST_F(EngineContextTest, ANewShapeIsSetUpWhileAnotherOneRuns) {
  if (kFlavour == Flavour::kRtx) GTEST_SKIP() << "one context of TensorRT's runs all shapes of a profile";
  context_->expectShapes(2);
  runOften({3});
  Step first = step(3, 1);
  Step second = step(5, -20);
  {
    const Held held;
    prepare(first);
    context_->launch();
    prepare(second);
    EXPECT_TRUE(isUnwritten(first));
  }
  expectBoth(first, second);
  runOften({3, 5});
}

// The input goes through host memory, which nobody else gets before it has been copied.
TEST_F(EngineContextTest, AnInputOfAnotherGpuIsFetchedWhileARunGoesOn) {
  runOften({3});
  Step first = step(3, 1);
  Step second = step(3, -20);
  const Tensor onHost = second.inputs[0];
  Tensor& input = second.inputs[0];
  const cuda::Device& other = cuda::Device::open(1);
  const MemorySource memory = other.deviceMemory();
  input.data = std::shared_ptr<void>(memory.allocate(input.byteLength), memory.release);
  input.location = Location::kDevice;
  input.device = 1;
  {
    const cuda::Current there(other);
    const cuda::Stream stream(other);
    stream.copyToDevice(input.data.get(), onHost.data.get(), onHost.byteLength);
    stream.synchronize();
  }
  {
    const Held held;
    prepare(first);
    context_->launch();
    prepare(second);
    EXPECT_TRUE(isUnwritten(first));
    std::vector<Tensor> others;
    for (int i = 0; i < 8; ++i) {
      std::memset(others.emplace_back(tensor(onHost.shape)).data.get(), 0, onHost.byteLength);
    }
  }
  expectBoth(first, second);
}

TEST_F(EngineContextTest, ManyRunsOneAfterTheOtherEachPreparedDuringTheLast) {
  context_->expectShapes(2);
  std::vector<Step> steps;
  for (int i = 0; i < 20; ++i) steps.push_back(step(i % 3 == 0 ? 5 : 3, static_cast<float>(i)));
  prepare(steps[0]);
  for (size_t i = 0; i < steps.size(); ++i) {
    context_->launch();
    if (i + 1 < steps.size()) prepare(steps[i + 1]);
    context_->wait();
    EXPECT_EQ(steps[i].results(), steps[i].expected) << i;
  }
}

// Buffers that grow are moved, while the first run still uses the old ones.
TEST_F(EngineContextTest, MemoryThatARunUsesStaysUntilItsEnd) {
  Step first = step(3, 1);
  Step second = step(kMostRows, -20);
  standInSetFaults("slow:20");
  prepare(first);
  context_->launch();
  prepare(second);
  EXPECT_EQ(first.results(), first.expected);
  expectBoth(first, second);
}

// If we capture no graphs, all shapes of a profile share a TensorRT context.
TEST_F(EngineContextTest, AContextInUseIsSetUpForOtherShapesOnlyWhenItsRunHasEnded) {
  EngineOptions options;
  options.cudaGraph = false;
  load(options);
  context_->expectShapes(2);
  Step first = step(5, 1);
  Step second = step(3, -20);
  standInSetFaults("slow:20");
  prepare(first);
  context_->launch();
  prepare(second);
  EXPECT_EQ(first.results(), first.expected);
  expectBoth(first, second);
}

TEST_F(EngineContextTest, ARunThatCantBePreparedIsNoneOfTheRunningOnesBusiness) {
  Step first = step(3, 1);
  Step second = step(3, -20);
  prepare(first);
  context_->launch();
  second.inputs[0].shape = {kMostRows + 1, 4};
  EXPECT_EQ(codeOf([&] { prepare(second); }), "ERR_SHAPE_MISMATCH");
  second.inputs[0].shape = {3, 4};
  second.outputs[1].shape = {4, 4};
  EXPECT_EQ(codeOf([&] { prepare(second); }), "ERR_SHAPE_MISMATCH");
  context_->wait();
  EXPECT_EQ(first.results(), first.expected);
  EXPECT_TRUE(isUnwritten(second));
  runOften({3});
}

TEST_F(EngineContextTest, CancellingEndsTheRunThatRunsAndTheOneThatIsPrepared) {
  Step first = step(3, 1);
  Step second = step(3, -20);
  prepare(first);
  context_->launch();
  prepare(second);
  context_->cancel();
  EXPECT_EQ(codeOf([&] { context_->wait(); }), "cancelled");
  EXPECT_EQ(codeOf([&] { context_->launch(); }), "cancelled");
  EXPECT_EQ(codeOf([&] { prepare(second); }), "cancelled");
  EXPECT_TRUE(isUnwritten(second));
  context_->reset();
  runOften({3});
}

TEST_F(EngineContextTest, AContextThatGoesWaitsForItsRuns) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  Step first = step(3, 1);
  EXPECT_DEATH(
      {
        const Held held;
        prepare(first);
        context_->launch();
        context_.reset();
      },
      "cuStreamSynchronize waits for a kernel that this thread holds");
}

// Calls to the driver add to a run's latency, so their number is fixed here.
TEST_F(EngineContextTest, ARunMakesNoMoreCallsOfTheDriverThanItNeeds) {
  context_->expectShapes(1);
  runOften({3});
  Step once = step(3, 1);
  cuda::Device::open(0).settle();
  standInSetFaults("lost:1000000");
  execute(once);
  EXPECT_EQ(standInFaultCount("lost"), 15);
}

}  // namespace
}  // namespace node_tensorrt::tensorrt::NODE_TENSORRT_FLAVOUR
