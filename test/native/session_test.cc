// A Session over the real ONNX Runtime (NODE_TENSORRT_ONNXRUNTIME names its library; without it: skipped).
#include "core/session.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <future>

#include "core/error.h"
#include "core/host_memory.h"
#include "runtime/onnxruntime/onnxruntime.h"

namespace node_tensorrt {
namespace {

using ModelRun = Run;  // testing::Test has a Run of its own

Tensor square(int64_t n) {
  Tensor tensor;
  tensor.type = DataType::kFloat32;
  tensor.shape = {n, n};
  tensor.byteLength = static_cast<size_t>(n * n) * sizeof(float);
  tensor.data = allocateHostMemory(tensor.byteLength);
  return tensor;
}

class SessionTest : public testing::Test {
 protected:
  void SetUp() override {
    const char* library = std::getenv("NODE_TENSORRT_ONNXRUNTIME");
    if (library == nullptr) GTEST_SKIP() << "NODE_TENSORRT_ONNXRUNTIME names no library";
    library_ = library;
  }

  void load(Session& session, const std::string& file) {
    std::promise<void> loaded;
    session.start(
        [this, file](std::stop_token stop) {
          return ort::openRuntime(library_)->loadModel(
              std::string(NODE_TENSORRT_FIXTURES) + "/session/" + file, {}, stop);
        },
        [&](std::exception_ptr error) { error ? loaded.set_exception(error) : loaded.set_value(); });
    loaded.get_future().get();
  }

  static std::shared_ptr<ModelRun> makeRun(int64_t n) {
    auto run = std::make_shared<ModelRun>();
    run->inputs = {square(n), square(n)};
    run->outputIndices = {0};
    run->outputs.resize(1);
    return run;
  }

  static std::future<void> start(Session& session, const std::shared_ptr<ModelRun>& run) {
    auto done = std::make_shared<std::promise<void>>();
    run->done = [done] { done->set_value(); };
    session.enqueue(run);
    return done->get_future();
  }

  static bool cancelled(const ModelRun& run) {
    try {
      if (run.error) std::rethrow_exception(run.error);
    } catch (const Cancelled&) {
      return true;
    }
    return false;
  }

  std::string library_;
};

TEST_F(SessionTest, RunsOnSeveralThreads) {
  Session session({.concurrency = 3, .maxQueue = 100});
  load(session, "slow.onnx");
  ASSERT_EQ(session.model().inputs().size(), 2u);
  EXPECT_EQ(session.model().inputs()[0].shape[0].symbol, "n");
  std::vector<std::shared_ptr<ModelRun>> runs;
  std::vector<std::future<void>> done;
  for (int i = 0; i < 40; ++i) {
    runs.push_back(makeRun(16));
    done.push_back(start(session, runs.back()));
  }
  for (auto& future : done) future.get();
  for (const auto& run : runs) {
    ASSERT_FALSE(run->error);
    EXPECT_EQ(run->outputs[0].shape, (Shape{16, 16}));
    EXPECT_EQ(run->outputs[0].byteLength, 1024u);
  }
}

TEST_F(SessionTest, CancelsAWaitingAndARunningRunAndGoesOn) {
  Session session({});
  load(session, "slow.onnx");
  const auto running = makeRun(1024);
  const auto waiting = makeRun(8);
  auto runningDone = start(session, running);
  auto waitingDone = start(session, waiting);
  session.cancel(waiting);
  waitingDone.get();
  EXPECT_TRUE(cancelled(*waiting));
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  session.cancel(running);
  runningDone.get();
  EXPECT_TRUE(cancelled(*running));
  const auto next = makeRun(8);
  start(session, next).get();
  EXPECT_FALSE(next->error);
}

TEST_F(SessionTest, CloseDrainsAndStopAbandons) {
  Session drained({});
  load(drained, "slow.onnx");
  const auto run = makeRun(64);
  auto done = start(drained, run);
  std::promise<void> closed;
  drained.close([&](std::exception_ptr) { closed.set_value(); });
  EXPECT_THROW(drained.enqueue(makeRun(8)), Error);
  closed.get_future().get();
  done.get();
  EXPECT_FALSE(run->error);

  Session stopped({});
  load(stopped, "slow.onnx");
  const auto first = makeRun(1024);
  const auto second = makeRun(1024);
  auto firstDone = start(stopped, first);
  auto secondDone = start(stopped, second);
  stopped.stop();
  firstDone.get();
  secondDone.get();
  EXPECT_TRUE(cancelled(*second));
}

TEST_F(SessionTest, RefusesAFullQueueAndABadModel) {
  Session session({.concurrency = 1, .maxQueue = 1});
  load(session, "slow.onnx");
  auto first = start(session, makeRun(512));
  std::vector<std::future<void>> rest;
  bool refused = false;
  for (int i = 0; i < 3 && !refused; ++i) {
    try {
      rest.push_back(start(session, makeRun(512)));
    } catch (const Error& error) {
      EXPECT_STREQ(error.code(), "ERR_QUEUE_FULL");
      refused = true;
    }
  }
  EXPECT_TRUE(refused);
  first.get();
  for (auto& future : rest) future.get();

  Session bad({});
  EXPECT_THROW(load(bad, "absent.onnx"), Error);
}

}  // namespace
}  // namespace node_tensorrt
