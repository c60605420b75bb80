// Tests Session with the real ONNX Runtime. NODE_TENSORRT_ONNXRUNTIME names its library; without it, the
// tests are skipped.
#include "core/session.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <functional>
#include <future>
#include <latch>
#include <thread>

#include "core/error.h"
#include "core/host_memory.h"
#include "runtime/onnxruntime/onnxruntime.h"

namespace node_tensorrt {
namespace {

using ModelRun = Run;  // testing::Test has its own Run

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

// A model whose contexts take as long to create or destroy as a test wants.
struct Contexts {
  std::function<void()> make = [] {};
  std::function<void()> end = [] {};
  std::atomic<int> alive = 0;
};

class FakeContext final : public ExecutionContext {
 public:
  explicit FakeContext(Contexts& contexts) : contexts_(contexts) { ++contexts_.alive; }
  ~FakeContext() override {
    contexts_.end();
    --contexts_.alive;
  }
  void execute(std::span<const Tensor>, std::span<const size_t>, std::span<Tensor>) override {}
  void cancel() noexcept override {}
  void reset() override {}

 private:
  Contexts& contexts_;
};

class FakeModel final : public Model {
 public:
  explicit FakeModel(Contexts& contexts) : contexts_(contexts) {}
  const std::vector<TensorInfo>& inputs() const noexcept override { return none_; }
  const std::vector<TensorInfo>& outputs() const noexcept override { return none_; }
  std::unique_ptr<ExecutionContext> createContext() override {
    contexts_.make();
    return std::make_unique<FakeContext>(contexts_);
  }

 private:
  Contexts& contexts_;
  const std::vector<TensorInfo> none_;
};

void load(Session& session, Contexts& contexts) {
  std::promise<void> loaded;
  session.start([&](std::stop_token) { return std::make_unique<FakeModel>(contexts); },
                [&](std::exception_ptr) { loaded.set_value(); });
  loaded.get_future().get();
}

std::future<void> start(Session& session) {
  auto run = std::make_shared<ModelRun>();
  auto done = std::make_shared<std::promise<void>>();
  run->done = [run, done] { done->set_value(); };
  session.enqueue(run);
  return done->get_future();
}

TEST(FakeSessionTest, TakesRunsWhileAContextIsMade) {
  Contexts contexts;
  std::promise<void> making;
  std::promise<void> go;
  contexts.make = [&] {
    making.set_value();
    go.get_future().wait();
  };
  Session session({});
  load(session, contexts);
  auto first = start(session);
  making.get_future().wait();
  auto second = start(session);
  EXPECT_EQ(session.stats().queued, 2u);
  go.set_value();
  first.get();
  second.get();
  EXPECT_EQ(session.stats().completed, 2u);
}

TEST(FakeSessionTest, TheRunOfAContextThatCanNotBeMadeFails) {
  Contexts contexts;
  contexts.make = [] { throw Error("ERR_OUT_OF_MEMORY", "none"); };
  Session session({});
  load(session, contexts);
  start(session).get();
  EXPECT_EQ(session.stats().failed, 1u);
  contexts.make = [] {};
  start(session).get();
  EXPECT_EQ(session.stats().completed, 1u);
}

TEST(FakeSessionTest, IsClosedWhenEachContextIsGone) {
  Contexts contexts;
  std::latch made(3);
  contexts.make = [&] { made.arrive_and_wait(); };
  contexts.end = [] { std::this_thread::sleep_for(std::chrono::milliseconds(20)); };
  Session session({.concurrency = 3});
  load(session, contexts);
  std::vector<std::future<void>> runs;
  for (int i = 0; i < 3; ++i) runs.push_back(start(session));
  for (auto& run : runs) run.get();
  std::promise<int> closed;
  session.close([&](std::exception_ptr) { closed.set_value(contexts.alive); });
  EXPECT_EQ(closed.get_future().get(), 0);
}

}  // namespace
}  // namespace node_tensorrt
