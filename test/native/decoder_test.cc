// Tests the steps of a Decoder with a model that records its inputs and computes nothing.
#include "core/decoder.h"

#include <gtest/gtest.h>

#include <numeric>
#include <set>

#include "core/host_memory.h"

namespace node_tensorrt {
namespace {

struct Step {
  Shape shape;
  const void* cache = nullptr;
  std::vector<int32_t> tokens;
  int32_t past = -1;
  int32_t logitsIndex = -1;
};

struct Recorded {
  size_t expectedShapes = 0;
  Step step;  // the last one
};

class RecordingContext final : public ExecutionContext {
 public:
  explicit RecordingContext(Recorded& recorded) : recorded_(recorded) {}

  void execute(std::span<const Tensor> inputs, std::span<const size_t>, std::span<Tensor> outputs) override {
    const auto* tokens = static_cast<const int32_t*>(inputs[0].data.get());
    recorded_.step = {.shape = inputs[0].shape,
                      .cache = inputs[3].data.get(),
                      .tokens = {tokens, tokens + inputs[0].shape[0] * inputs[0].shape[1]},
                      .past = *static_cast<const int32_t*>(inputs[1].data.get()),
                      .logitsIndex = *static_cast<const int32_t*>(inputs[2].data.get())};
    outputs.back().shape = {inputs[0].shape[0], 100};
  }
  void expectShapes(size_t count) override { recorded_.expectedShapes = count; }
  void cancel() noexcept override {}
  void reset() override {}

 private:
  Recorded& recorded_;
};

class RecordingModel final : public Model {
 public:
  RecordingModel(Recorded& recorded, bool preparesShapes)
      : recorded_(recorded), preparesShapes_(preparesShapes) {}

  const std::vector<TensorInfo>& inputs() const noexcept override { return inputs_; }
  const std::vector<TensorInfo>& outputs() const noexcept override { return outputs_; }
  std::unique_ptr<ExecutionContext> createContext() override {
    return std::make_unique<RecordingContext>(recorded_);
  }
  bool preparesShapes() const override { return preparesShapes_; }
  std::shared_ptr<TensorMemory> tensorMemory() const override { return hostTensorMemory(); }

 private:
  Recorded& recorded_;
  const bool preparesShapes_;
  const std::vector<TensorInfo> inputs_ = {
      {"tokens", DataType::kInt32, {{-1, "rows"}, {-1, "new"}}},
      {"pasts", DataType::kInt32, {{-1, "rows"}}},
      {"index", DataType::kInt32, {}},
      {"cache", DataType::kFloat32, {{-1, "rows"}, {1, ""}, {-1, ""}, {1, ""}}}};
  const std::vector<TensorInfo> outputs_ = {{"present", DataType::kFloat32, inputs_[3].shape},
                                            {"logits", DataType::kFloat32, {{-1, "rows"}, {100, ""}}}};
};

constexpr size_t kRows = 6;
constexpr size_t kCapacity = 5000;
constexpr size_t kChunk = 4000;

Decoder decoder(Recorded& recorded, bool preparesShapes) {
  const DecoderGraph graph = {.inPlace = true,
                              .inputs = {{"tokens", DecoderInputRole::kInputIds},
                                         {"pasts", DecoderInputRole::kPastLengths},
                                         {"index", DecoderInputRole::kLogitsIndex}},
                              .caches = {{"cache", "present", 1, 1}},
                              .logits = "logits",
                              .top = {}};
  return {std::make_unique<RecordingModel>(recorded, preparesShapes), graph, kRows, kCapacity, kChunk};
}

std::vector<int32_t> counted(size_t count) {
  std::vector<int32_t> tokens(count);
  std::iota(tokens.begin(), tokens.end(), 0);
  return tokens;
}

TEST(DecoderTest, StepsHaveTheFewShapesThatItExpects) {
  Recorded recorded;
  Decoder model = decoder(recorded, true);
  std::set<std::pair<Shape, const void*>> shapes;
  const std::vector<int32_t> tokens = counted(kChunk);
  for (size_t length = 1; length <= kChunk; ++length) {
    model.prefill(*model.promptRow(), std::span(tokens).first(length), 0);
    const Step& step = recorded.step;
    const auto padded = static_cast<size_t>(step.shape[1]);
    ASSERT_GE(padded, length);
    ASSERT_LT(padded - length, std::max<size_t>(64, length / 4));
    ASSERT_TRUE(padded % 64 == 0 || padded == kChunk);
    ASSERT_EQ(step.past, 0);
    ASSERT_EQ(step.logitsIndex, static_cast<int32_t>(length - 1));
    ASSERT_EQ(step.tokens[length - 1], static_cast<int32_t>(length - 1));
    ASSERT_EQ(step.tokens.back(), static_cast<int32_t>(length - 1));
    shapes.emplace(step.shape, step.cache);
  }
  for (const auto& [count, rows] : {std::pair{1u, 1u}, {2u, 2u}, {3u, 4u}, {4u, 4u}, {5u, 6u}, {6u, 6u}}) {
    ASSERT_EQ(model.decodeRows(count), rows);
    const std::vector<size_t> pasts(rows, 7);
    model.decode(0, pasts, counted(rows), count);
    EXPECT_EQ(recorded.step.shape, (Shape{rows, 1}));
    EXPECT_EQ(recorded.step.logitsIndex, 0);
    EXPECT_EQ(model.cache().held(count - 1), count == kRows ? kChunk : 8);
    shapes.emplace(recorded.step.shape, recorded.step.cache);
  }
  EXPECT_EQ(shapes.size(), recorded.expectedShapes);
  // 1, 2, 4 and 6 rows; up to 512, up to 1024, up to 2048, and up to 4000 tokens.
  EXPECT_EQ(shapes.size(), 4u + 8 + 4 + 4 + 4);
}

TEST(DecoderTest, ReadsTokensAgainWhereTheRestOfARowIsTooShort) {
  Recorded recorded;
  Decoder model = decoder(recorded, true);
  const std::vector<int32_t> tokens = counted(kCapacity);
  model.prefill(5, std::span(tokens).first(4990), 4980);
  EXPECT_EQ(recorded.step.past, static_cast<int32_t>(kCapacity - 64));
  EXPECT_EQ(recorded.step.tokens[0], static_cast<int32_t>(kCapacity - 64));
  EXPECT_EQ(recorded.step.logitsIndex, 53);
  EXPECT_EQ(recorded.step.tokens[53], 4989);
  EXPECT_EQ(recorded.step.tokens.size(), 64u);
  EXPECT_EQ(model.cache().held(5), 4990u);
}

TEST(DecoderTest, StepsAreWhatIsAskedForWhereShapesAreFree) {
  Recorded recorded;
  Decoder model = decoder(recorded, false);
  EXPECT_EQ(model.promptRow(), std::nullopt);
  EXPECT_EQ(model.decodeRows(5), 5u);
  EXPECT_EQ(recorded.expectedShapes, 0u);
  model.prefill(2, counted(37), 30);
  EXPECT_EQ(recorded.step.shape, (Shape{1, 7}));
  EXPECT_EQ(recorded.step.past, 30);
  EXPECT_EQ(recorded.step.logitsIndex, 6);
}

}  // namespace
}  // namespace node_tensorrt
