#include "core/scheduler.h"

#include <gtest/gtest.h>

#include "core/error.h"

namespace node_tensorrt {
namespace {

using Ids = std::vector<uint32_t>;

class SchedulerTest : public testing::Test {
 protected:
  std::shared_ptr<Request> add(uint32_t id, double priority = 0, bool ofSequence = false) {
    GenerateOptions options;
    options.priority = priority;
    const auto request = std::make_shared<Request>(id, std::move(options), nullptr);
    request->sequence = std::make_shared<Sequence>();
    request->sequence->held = ofSequence;
    request->sequence->request = id;
    scheduler_.add(request);
    return request;
  }

  // The requests that have begun, which decode from now on.
  Ids begin(size_t held = 0) {
    scheduler_.admit(held);
    Ids ids;
    while (const auto next = scheduler_.nextPrompt()) {
      ids.push_back(next->id);
      next->decoding = true;
    }
    return ids;
  }

  template <class Body>
  static std::string refusal(Body body) {
    try {
      body();
      return "";
    } catch (const Error& error) {
      return error.code();
    }
  }

  Scheduler scheduler_ = Scheduler(/*rows*/ 3, /*maxQueue*/ 2, /*chunkSize*/ 64);
};

TEST_F(SchedulerTest, RowsGoToTheHighestPriorityAndAmongEqualsToWhoCameFirst) {
  add(1);
  add(2, 5);
  add(3);
  add(4, 5);
  add(5, -1);
  EXPECT_EQ(begin(), (Ids{2, 4, 1}));
  EXPECT_EQ(scheduler_.waiting(), 2u);
  EXPECT_EQ(scheduler_.occupied(), 3u);
  EXPECT_EQ(begin(), Ids());
  add(6, 1);
  scheduler_.remove(scheduler_.requests().at(4));
  EXPECT_EQ(begin(), Ids{6});
  scheduler_.remove(scheduler_.requests().at(1));
  EXPECT_EQ(begin(), Ids{3});
}

TEST_F(SchedulerTest, RequestsOfSequencesNeedNoRow) {
  add(1);
  add(2);
  add(3, 9, /*ofSequence*/ true);
  add(4, -9, /*ofSequence*/ true);
  EXPECT_EQ(begin(/*held*/ 2), (Ids{3, 1, 4})) << "one row is free";
  EXPECT_EQ(scheduler_.occupied(), 1u);
  scheduler_.remove(scheduler_.requests().at(3));
  EXPECT_EQ(scheduler_.occupied(), 1u);
  EXPECT_EQ(begin(2), Ids());
  EXPECT_EQ(begin(1), Ids{2}) << "a sequence was disposed of";
}

TEST_F(SchedulerTest, ASequenceGetsARowThatNoRequestHasOrWaitsFor) {
  EXPECT_EQ(refusal([&] { scheduler_.requireRow(2); }), "");
  EXPECT_EQ(refusal([&] { scheduler_.requireRow(3); }), "ERR_CACHE_FULL");
  add(1);
  EXPECT_EQ(refusal([&] { scheduler_.requireRow(1); }), "");
  EXPECT_EQ(refusal([&] { scheduler_.requireRow(2); }), "ERR_CACHE_FULL") << "it waits";
  add(2, 0, /*ofSequence*/ true);
  EXPECT_EQ(refusal([&] { scheduler_.requireRow(1); }), "") << "which has its row already";
  begin(1);
  EXPECT_EQ(refusal([&] { scheduler_.requireRow(2); }), "ERR_CACHE_FULL") << "it runs";
  scheduler_.remove(scheduler_.requests().at(1));
  EXPECT_EQ(refusal([&] { scheduler_.requireRow(2); }), "");
}

TEST_F(SchedulerTest, AsManyWaitAsTheQueueTakesAndRowsAreFree) {
  for (uint32_t id = 1; id <= 4; ++id) {
    EXPECT_EQ(refusal([&] { scheduler_.requirePlace(1); }), "");
    add(id);
  }
  EXPECT_EQ(refusal([&] { scheduler_.requirePlace(1); }), "ERR_QUEUE_FULL") << "two rows and two places";
  EXPECT_EQ(refusal([&] { scheduler_.requirePlace(0); }), "");
  EXPECT_EQ(begin(1), (Ids{1, 2}));
  EXPECT_EQ(refusal([&] { scheduler_.requirePlace(1); }), "ERR_QUEUE_FULL");
  scheduler_.remove(scheduler_.requests().at(3));
  EXPECT_EQ(refusal([&] { scheduler_.requirePlace(1); }), "");
  EXPECT_EQ(refusal([&] { scheduler_.requirePlace(3); }), "ERR_CACHE_FULL") << "no row will ever be free";
}

TEST_F(SchedulerTest, PromptsGetAWholeChunkAloneAndAQuarterWhileOthersAnswer) {
  const auto first = add(1);
  scheduler_.admit(0);
  EXPECT_EQ(scheduler_.promptBudget().share(1000), 64u);
  add(2);
  scheduler_.admit(0);
  EXPECT_EQ(scheduler_.promptBudget().share(1000), 64u) << "neither answers yet";
  first->decoding = true;
  EXPECT_EQ(scheduler_.promptBudget().share(1000), 16u);
  scheduler_.remove(first);
  EXPECT_EQ(scheduler_.promptBudget().share(1000), 64u);

  Scheduler small(2, 2, 3);
  small.add(first);
  small.admit(0);
  EXPECT_EQ(small.promptBudget().share(1000), 1u) << "never nothing";
}

TEST_F(SchedulerTest, OnlyTheFirstPromptOfAStepIsSplit) {
  PromptBudget budget(64);
  EXPECT_EQ(budget.share(50), 50u);
  budget.spend(50);
  EXPECT_EQ(budget.share(15), std::nullopt) << "it enters whole with the next step";
  EXPECT_EQ(budget.share(0), 0u);
  EXPECT_EQ(budget.share(14), 14u);
  EXPECT_FALSE(budget.isSpent());
  budget.spend(14);
  EXPECT_TRUE(budget.isSpent());
}

TEST_F(SchedulerTest, APromptOfHigherPriorityIsReadFirstEvenIfAnotherHasBegun) {
  const auto begun = add(1);
  scheduler_.admit(0);
  EXPECT_EQ(scheduler_.nextPrompt(), begun);
  const auto urgent = add(2, 1);
  EXPECT_EQ(scheduler_.nextPrompt(), begun) << "which has no row yet";
  scheduler_.admit(0);
  EXPECT_EQ(scheduler_.nextPrompt(), urgent);
  urgent->decoding = true;
  EXPECT_EQ(scheduler_.nextPrompt(), begun);
  Scheduler::Requests decoding;
  scheduler_.listDecoding(decoding);
  EXPECT_EQ(decoding, Scheduler::Requests{urgent});
}

TEST_F(SchedulerTest, TellsOnceOfCancellations) {
  const auto request = add(7);
  scheduler_.cancel(8);
  EXPECT_FALSE(scheduler_.takeCancels());
  scheduler_.cancel(7);
  EXPECT_TRUE(request->cancelled);
  EXPECT_TRUE(scheduler_.takeCancels());
  EXPECT_FALSE(scheduler_.takeCancels());
  EXPECT_FALSE(scheduler_.isIdle());
  scheduler_.remove(request);
  EXPECT_TRUE(scheduler_.isIdle());
  EXPECT_TRUE(scheduler_.requests().empty());
}

TEST_F(SchedulerTest, RowsThatDecodeAreTheFirstOnesAtTheLeastCost) {
  Scheduler::Requests decoding;
  const auto decodes = [&](uint32_t id, size_t row, size_t length) {
    const auto request = add(id);
    request->sequence->row = row;
    request->sequence->cached = length;
    decoding.push_back(request);
  };
  decodes(1, 9, 500);
  decodes(2, 1, 900);
  decodes(3, 7, 100);
  decodes(4, 3, 10);
  decodes(5, 8, 300);
  std::vector<RowMove> moves = {{1, 1}};
  arrange(decoding, moves);
  ASSERT_EQ(moves.size(), 3u) << "two stay";
  const auto isMove = [](RowMove move, size_t from, size_t to) { return move.from == from && move.to == to; };
  EXPECT_TRUE(isMove(moves[0], 7, 0)) << "the shortest first";
  EXPECT_TRUE(isMove(moves[1], 8, 2));
  EXPECT_TRUE(isMove(moves[2], 9, 4));
  Ids ids;
  for (const auto& request : decoding) ids.push_back(request->id);
  EXPECT_EQ(ids, (Ids{3, 2, 5, 4, 1})) << "by the rows that they have then";

  // The moves put every request in its place.
  for (size_t row = 0; row < decoding.size(); ++row) decoding[row]->sequence->row = row;
  arrange(decoding, moves);
  EXPECT_TRUE(moves.empty());
}

}  // namespace
}  // namespace node_tensorrt
