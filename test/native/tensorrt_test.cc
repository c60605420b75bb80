// Compiles with the real TensorRT-RTX. NODE_TENSORRT_RTX names libtensorrt_rtx.so.1; without it, the tests
// are skipped.
#include "runtime/tensorrt/tensorrt.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <set>
#include <thread>

#include "core/error.h"

namespace node_tensorrt::tensorrt {
namespace {

class Observer final : public BuildObserver {
 public:
  explicit Observer(std::function<void(std::string_view)> heard = [](std::string_view) {})
      : heard_(std::move(heard)) {}
  void progress(std::string_view phase, int step, int steps) noexcept override {
    inRange = inRange && step >= 0 && step <= steps;
    heard_(phase);
  }
  void built(BuildResult built) override { result = std::move(built); }
  std::atomic<bool> inRange{true};
  BuildResult result;

 private:
  const std::function<void(std::string_view)> heard_;
};

std::string fixture(const std::string& name) {
  return std::string(NODE_TENSORRT_FIXTURES) + "/session/" + name;
}

BuildRequest linear() {
  BuildRequest request;
  request.model = request.modelPath = fixture("linear.onnx");
  request.profiles = {{{"x", {1, 4}, {2, 4}, {8, 4}}}};
  request.computeCapabilities = {89};
  return request;
}

std::string codeOf(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.code();
  }
  return "";
}

class TensorRTTest : public testing::Test {
 protected:
  void SetUp() override {
    const char* path = std::getenv("NODE_TENSORRT_RTX");
    if (path == nullptr) GTEST_SKIP() << "NODE_TENSORRT_RTX names no library";
    library_ = Library::open(path);
  }

  BuildResult build(const BuildRequest& request, std::stop_token stop = {}) {
    Observer observer;
    library_->buildPlan(request, stop, observer);
    return observer.result;
  }

  std::shared_ptr<const Library> library_;
};

TEST_F(TensorRTTest, OpensALibraryOnce) {
  EXPECT_EQ(Library::open(library_->path()), library_);
  EXPECT_EQ(library_->flavour(), Flavour::kRtx);
  EXPECT_EQ(library_->version().substr(0, 2), "1.");
}

TEST_F(TensorRTTest, CompilesAPlan) {
  const BuildResult result = build(linear());
  ASSERT_GT(result.planBytes, 1000u);
  EXPECT_EQ(std::memcmp(result.plan.get(), "vtrt", 4), 0);
  ASSERT_EQ(result.network.inputs.size(), 1u);
  EXPECT_EQ(result.network.inputs[0].shape, (Shape{-1, 4}));
  EXPECT_EQ(result.network.outputs.size(), 2u);
  EXPECT_TRUE(std::any_of(
      result.network.layers.begin(), result.network.layers.end(),
      [](const LayerDescription& layer) { return std::strcmp(layer.type, "MATRIX_MULTIPLY") == 0; }));
}

TEST_F(TensorRTTest, APlanOutlivesItsResult) {
  std::shared_ptr<void> plan = build(linear()).plan;
  EXPECT_EQ(std::memcmp(plan.get(), "vtrt", 4), 0);
}

TEST_F(TensorRTTest, ReportsProgressAndStopsWhenAskedTo) {
  std::set<std::string> phases;
  std::mutex mutex;
  Observer observer([&](std::string_view phase) {
    std::lock_guard lock(mutex);
    phases.emplace(phase);
  });
  library_->buildPlan(linear(), {}, observer);
  EXPECT_TRUE(observer.inRange);
  EXPECT_TRUE(phases.count("Parsing") == 1 && phases.count("Building engine") == 1);

  for (const char* at : {"Parsing", "Building engine"}) {
    std::stop_source stop;
    Observer stopping([&](std::string_view phase) {
      if (phase == at) stop.request_stop();
    });
    EXPECT_THROW(library_->buildPlan(linear(), stop.get_token(), stopping), Cancelled) << at;
  }
}

TEST_F(TensorRTTest, BuildsBesideEachOtherKeepTheirMessages) {
  std::vector<std::thread> threads;
  std::atomic<int> right = 0;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&, i] {
      BuildRequest request = linear();
      if (i % 2 == 1) request.model = request.modelPath = fixture("sequence.onnx");
      try {
        right += build(request).planBytes > 0 && i % 2 == 0;
      } catch (const Error& error) {
        right += i % 2 == 1 && std::string(error.what()).find("sequence.onnx") != std::string::npos;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(right, 4);
}

TEST_F(TensorRTTest, RefusesWithACode) {
  const auto with = [&](const std::function<void(BuildRequest&)>& change) {
    BuildRequest request = linear();
    change(request);
    return codeOf([&] { build(request); });
  };
  EXPECT_EQ(with([](BuildRequest& r) { r.model = "/nonexistent.onnx"; }), "ERR_MODEL_NOT_FOUND");
  EXPECT_EQ(with([](BuildRequest& r) { r.model = fixture("external.bin"); }), "ERR_MODEL_INVALID");
  EXPECT_EQ(with([](BuildRequest& r) { r.computeCapabilities = {90}; }), "ERR_INVALID_ARG_VALUE");
  EXPECT_EQ(with([](BuildRequest& r) { r.computeCapabilities = {}; }), "ERR_NO_GPU");
  EXPECT_EQ(with([](BuildRequest& r) { r.profiles = {}; }), "ERR_INVALID_ARG_VALUE");
  EXPECT_EQ(with([](BuildRequest& r) { r.profiles[0][0].input = "y"; }), "ERR_INVALID_ARG_VALUE");
  EXPECT_EQ(with([](BuildRequest& r) { r.profiles[0][0].max = {8, 5}; }), "ERR_INVALID_ARG_VALUE");
  EXPECT_EQ(with([](BuildRequest& r) { r.profiles[0][0].min = {9, 4}; }), "ERR_INVALID_ARG_VALUE");
}

TEST(TensorRTLibraryTest, SaysWhatIsMissingOrNotTensorRT) {
  EXPECT_EQ(codeOf([] { Library::open("/nonexistent/libtensorrt_rtx.so.1"); }), "ERR_LIBRARY_NOT_FOUND");
  EXPECT_EQ(codeOf([] { Library::open(NODE_TENSORRT_STAND_IN_NVML); }), "ERR_LIBRARY_UNSUPPORTED");
}

}  // namespace
}  // namespace node_tensorrt::tensorrt
