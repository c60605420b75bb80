// Tests sessions on the stand-in GPU and TensorRT without JavaScript: many threads at once, how much device
// memory is used, and what is left when they are gone.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <future>
#include <string>
#include <thread>
#include <vector>

#include "core/error.h"
#include "core/host_memory.h"
#include "core/session.h"
#include "runtime/cuda/device.h"
#include "runtime/tensorrt/tensorrt.h"
#include "stand_in/cuda/cuda.h"

namespace node_tensorrt {
namespace {

using ModelRun = Run;  // testing::Test has its own Run

class Observer final : public tensorrt::BuildObserver {
 public:
  void progress(std::string_view, int, int) noexcept override {}
  void built(tensorrt::BuildResult built) override { result = std::move(built); }
  tensorrt::BuildResult result;
};

// y = x·w + b, relu: [rows, 4] to [rows, 3].
class StandInSessionTest : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    library_ = tensorrt::Library::open(std::string(NODE_TENSORRT_STAND_IN) + '/' + GetParam());
    tensorrt::BuildRequest request;
    request.model = request.modelPath = std::string(NODE_TENSORRT_FIXTURES) + "/session/linear.onnx";
    request.profiles = {{{"x", {1, 4}, {2, 4}, {8, 4}}}, {{"x", {20, 4}, {20, 4}, {30, 4}}}};
    Observer observer;
    library_->buildPlan(request, {}, observer);
    plan_ = observer.result;
  }

  void load(Session& session, tensorrt::EngineOptions options = {}) {
    std::promise<void> loaded;
    session.start(
        [this, options](std::stop_token stop) {
          const auto* bytes = static_cast<const uint8_t*>(plan_.plan.get());
          return library_->loadEngine({bytes, plan_.planBytes}, options, stop);
        },
        [&](std::exception_ptr error) { error ? loaded.set_exception(error) : loaded.set_value(); });
    loaded.get_future().get();
  }

  static std::shared_ptr<ModelRun> makeRun(int64_t rows, float value, Location location = Location::kHost) {
    Tensor input;
    input.type = DataType::kFloat32;
    input.shape = {rows, 4};
    input.byteLength = static_cast<size_t>(rows) * 4 * sizeof(float);
    input.data = allocateHostMemory(input.byteLength);
    std::fill_n(static_cast<float*>(input.data.get()), rows * 4, value);
    auto run = std::make_shared<ModelRun>();
    run->inputs = {input};
    run->outputIndices = {0};
    run->outputs.resize(1);
    run->outputs[0].location = location;
    return run;
  }

  static std::future<void> start(Session& session, const std::shared_ptr<ModelRun>& run) {
    auto done = std::make_shared<std::promise<void>>();
    run->done = [done] { done->set_value(); };
    session.enqueue(run);
    return done->get_future();
  }

  static std::vector<float> values(const Tensor& tensor) {
    std::vector<float> values(tensor.byteLength / sizeof(float));
    if (tensor.location == Location::kDevice) {
      cuda::download(cuda::Device::open(tensor.device), values.data(), tensor.data.get(), tensor.byteLength);
    } else {
      std::memcpy(values.data(), tensor.data.get(), tensor.byteLength);
    }
    return values;
  }

  std::shared_ptr<const tensorrt::Library> library_;
  tensorrt::BuildResult plan_;
};

TEST_P(StandInSessionTest, ManyThreadsKeepTheirRunsApart) {
  Session session({.concurrency = 4, .maxQueue = 1000});
  load(session);
  // The expected result for one row of each value.
  std::vector<std::vector<float>> expected;
  for (int i = 0; i < 5; ++i) {
    auto run = makeRun(1, static_cast<float>(i));
    start(session, run).get();
    ASSERT_FALSE(run->error);
    expected.push_back(values(run->outputs[0]));
    ASSERT_EQ(expected.back().size(), 3u);
  }
  EXPECT_NE(expected[0], expected[4]);
  std::vector<std::shared_ptr<ModelRun>> runs;
  std::vector<std::future<void>> done;
  for (int i = 0; i < 200; ++i) {
    const int64_t rows = i % 7 == 0 ? 20 + i % 3 : 1 + i % 8;
    runs.push_back(makeRun(rows, static_cast<float>(i % 5), i % 2 ? Location::kDevice : Location::kHost));
    done.push_back(start(session, runs.back()));
  }
  for (auto& future : done) future.get();
  for (int i = 0; i < 200; ++i) {
    ASSERT_FALSE(runs[i]->error);
    const std::vector<float> found = values(runs[i]->outputs[0]);
    ASSERT_EQ(found.size(), static_cast<size_t>(runs[i]->outputs[0].shape[0]) * 3);
    for (size_t at = 0; at < found.size(); ++at) ASSERT_FLOAT_EQ(found[at], expected[i % 5][at % 3]) << i;
  }
  const SessionStats stats = session.stats();
  ASSERT_TRUE(stats.device);
  EXPECT_EQ(stats.completed, 205u);
  EXPECT_GT(stats.device->activations, 0u);
}

TEST_P(StandInSessionTest, ASteadyStreamOfRunsAllocatesNothing) {
  Session session({});
  load(session);
  for (int i = 0; i < 20; ++i) start(session, makeRun(1 + i % 8, 1)).get();
  cuda::Device::open(0).settle();
  const DeviceStats before = *session.stats().device;
  for (int i = 0; i < 100; ++i) start(session, makeRun(1 + i % 8, 1)).get();
  cuda::Device::open(0).settle();
  const DeviceStats after = *session.stats().device;
  EXPECT_EQ(after.free, before.free);
  EXPECT_EQ(after.io, before.io);
  EXPECT_EQ(after.pinned, before.pinned);
}

TEST_P(StandInSessionTest, LeavesNothingOnTheGpu) {
  const cuda::Device& device = cuda::Device::open(0);
  device.settle();
  const size_t before = device.memory().free;
  Tensor kept;
  {
    Session session({.concurrency = 2});
    load(session);
    auto run = makeRun(3, 1, Location::kDevice);
    start(session, run).get();
    kept = run->outputs[0];
    run->outputs.clear();
    std::promise<void> closed;
    session.close([&](std::exception_ptr) { closed.set_value(); });
    closed.get_future().get();
    EXPECT_LT(device.memory().free, before);
  }
  EXPECT_EQ(values(kept).size(), 9u);
  kept = {};
  device.settle();
  EXPECT_EQ(device.memory().free, before);
}

// While this object lives, the calling thread counts as JavaScript's, where the stand-in driver aborts.
class JavaScript {
 public:
  JavaScript() { standInSetJavaScript(true); }
  JavaScript(const JavaScript&) = delete;
  ~JavaScript() { standInSetJavaScript(false); }
};

TEST_P(StandInSessionTest, CountsItsMemoryWithoutTheDriver) {
  Session session({});
  load(session);
  start(session, makeRun(3, 1)).get();
  const JavaScript javaScript;
  const DeviceStats stats = *session.stats().device;
  EXPECT_EQ(stats.total, size_t{24576} << 20);
  EXPECT_LT(stats.free, stats.total);
  EXPECT_GT(stats.activations, 0u);
}

TEST_P(StandInSessionTest, LetsGoOfMemoryWithoutTheDriver) {
  std::vector<Tensor> kept;
  {
    Session session({});
    load(session);
    for (const Location location : {Location::kDevice, Location::kHost}) {
      auto run = makeRun(3, 1, location);
      start(session, run).get();
      kept.push_back(run->outputs[0]);
    }
  }
  const StandInLive before = standInLive();
  {
    const JavaScript javaScript;
    kept.clear();
  }
  cuda::Device::open(0).settle();
  const StandInLive after = standInLive();
  EXPECT_EQ(after.deviceAllocations, before.deviceAllocations - 1);
  EXPECT_EQ(after.pinnedAllocations, before.pinnedAllocations - 1);
}

// When a session reports that it is closed, its memory is available to others.
TEST_P(StandInSessionTest, IsClosedWhenItsMemoryIsFree) {
  cuda::Device::open(0).settle();
  const StandInLive before = standInLive();
  for (int i = 0; i < 10; ++i) {
    Session session({.concurrency = 2});
    load(session);
    std::vector<std::future<void>> runs;
    for (int j = 0; j < 4; ++j) runs.push_back(start(session, makeRun(3, 1)));
    for (auto& run : runs) run.get();
    std::promise<StandInLive> closed;
    session.close([&](std::exception_ptr) { closed.set_value(standInLive()); });
    const StandInLive after = closed.get_future().get();
    EXPECT_EQ(after.deviceAllocations, before.deviceAllocations);
    EXPECT_EQ(after.streams, before.streams);
  }
}

TEST_P(StandInSessionTest, CopiesFromAnyMemoryUntilThereIsPinned) {
  const cuda::Device& device = cuda::Device::open(0);
  Session session({});
  load(session);
  const std::shared_ptr<MemoryPool> pool = session.model().inputMemory();
  {
    const JavaScript javaScript;
    EXPECT_EQ(pool->acquireIdle(100), nullptr);
  }
  device.settle();
  const JavaScript javaScript;
  const std::shared_ptr<void> memory = pool->acquireIdle(100);
  EXPECT_EQ(standInMemoryAt(memory.get(), 100), kStandInPinned);
}

TEST_P(StandInSessionTest, AllocatesAgainOnceWhatWasReleasedIsFree) {
  const cuda::Device& device = cuda::Device::open(0);
  const MemorySource source = device.deviceMemory();
  void* block = source.allocate(100);
  device.settle();
  const StandInLive before = standInLive();
  standInSetFaults("allocation:1");
  EXPECT_THROW(source.allocate(100), Error);

  std::promise<void> go;
  device.post([&] { go.get_future().wait(); });
  source.release(block);
  standInSetFaults("allocation:1");
  auto other = std::async(std::launch::async, [&] { return source.allocate(100); });
  while (standInFaultCount("allocation") == 0) std::this_thread::yield();
  go.set_value();
  block = other.get();
  const StandInLive after = standInLive();
  EXPECT_EQ(std::memcmp(&before, &after, sizeof before), 0);
  standInSetFaults(nullptr);
  source.release(block);
  device.settle();
}

// A capture on one thread doesn't affect other threads, whatever its mode.
TEST_P(StandInSessionTest, AllocatesAndFreesWhileAnotherThreadCaptures) {
  const cuda::Device& device = cuda::Device::open(0);
  device.settle();
  const StandInLive before = standInLive();
  std::promise<void> capturing;
  std::promise<void> done;
  auto other = std::async(std::launch::async, [&] {
    const cuda::Current current(device);
    const cuda::Stream stream(device);
    constexpr int kCaptureModeGlobal = 0;
    device.driver().call(device.driver().streamBeginCapture, stream.get(), kCaptureModeGlobal);
    capturing.set_value();
    done.get_future().wait();
    CUgraph_st* graph = nullptr;
    const int status = device.driver().streamEndCapture(stream.get(), &graph);
    if (graph != nullptr) device.driver().graphDestroy(graph);
    return status;
  });
  capturing.get_future().wait();
  for (const MemorySource& source : {device.deviceMemory(), device.pinnedMemory()}) {
    EXPECT_NO_THROW(source.release(source.allocate(100)));
  }
  device.settle();
  done.set_value();
  EXPECT_EQ(other.get(), 0);
  const StandInLive after = standInLive();
  EXPECT_EQ(std::memcmp(&before, &after, sizeof before), 0);
}

TEST_P(StandInSessionTest, NamesTheRangeThatAShapeIsOutsideOf) {
  Session session({});
  load(session);
  const auto run = makeRun(9, 1);
  start(session, run).get();
  try {
    std::rethrow_exception(run->error);
  } catch (const Error& error) {
    EXPECT_STREQ(error.code(), "ERR_SHAPE_MISMATCH");
    EXPECT_STREQ(error.what(),
                 "The input \"x\" has dims [9, 4], outside the plan's [1, 4] to [8, 4] (its first profile).");
  }
  ASSERT_EQ(session.model().profiles().size(), 2u);
  EXPECT_EQ(session.model().profiles()[1][0].max, (Shape{30, 4}));
  Session absent({});
  try {
    load(absent, {.device = 7, .cudaGraph = true, .runtimeCache = ""});
    FAIL();
  } catch (const Error& error) {
    EXPECT_STREQ(error.code(), "ERR_NO_GPU");
  }
}

INSTANTIATE_TEST_SUITE_P(Flavours, StandInSessionTest,
                         testing::Values("trt10/libnvinfer.so.10", "trt11/libnvinfer.so.11",
                                         "rtx/libtensorrt_rtx.so.1"),
                         [](const auto& info) {
                           const std::string path = info.param;
                           return path.substr(0, path.find('/'));
                         });

}  // namespace
}  // namespace node_tensorrt
