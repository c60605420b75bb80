#include "core/row_table.h"

#include <gtest/gtest.h>

#include <numeric>

#include "core/error.h"

namespace node_tensorrt {
namespace {

using Tokens = std::vector<int32_t>;
using Handle = std::shared_ptr<Sequence>;

// Returns first, first + 1, and so on.
Tokens range(int32_t first, size_t count) {
  Tokens tokens(count);
  std::iota(tokens.begin(), tokens.end(), first);
  return tokens;
}

Handle prompt(Tokens tokens, uint32_t request = 1) {
  const auto sequence = std::make_shared<Sequence>();
  sequence->tokens = std::move(tokens);
  sequence->request = request;
  return sequence;
}

Handle held(Tokens tokens) {
  const auto sequence = std::make_shared<Sequence>();
  sequence->tokens = std::move(tokens);
  sequence->held = true;
  return sequence;
}

// Puts a sequence in the row that the table gives it, with all its tokens cached.
Handle settled(RowTable& rows, const Handle& sequence) {
  rows.take(sequence);
  sequence->cached = sequence->tokens.size();
  return sequence;
}

// A prefix, as an ended request leaves it.
Handle prefix(RowTable& rows, Tokens tokens) {
  const Handle sequence = settled(rows, prompt(std::move(tokens)));
  sequence->request.reset();
  rows.retire(*sequence, /*isSound*/ true);
  return sequence;
}

TEST(RowTableTest, TakesThePreferredRowThenAFreeOneThenThatOfThePrefixUnusedForLongest) {
  RowTable rows(4, true);
  EXPECT_EQ(rows.take(prompt({1}), 3), 3u);
  const Handle older = prefix(rows, range(10, 5));
  const Handle newer = prefix(rows, range(20, 5));
  EXPECT_EQ(older->row, 0u);
  EXPECT_EQ(newer->row, 1u);
  EXPECT_EQ(rows.take(prompt({2})), 2u) << "a free row, while there is one";

  // The older prefix has been used again, so the other one is dropped.
  const Handle next = prompt(range(10, 9));
  EXPECT_EQ(rows.place(next, std::nullopt).length, 5u);
  next->cached = 5;
  next->request.reset();
  rows.retire(*next, true);
  EXPECT_EQ(rows.take(prompt({3})), 1u);
  EXPECT_EQ(newer->row, std::nullopt);
  EXPECT_EQ(newer->cached, 0u);
  EXPECT_EQ(rows.take(prompt({4})), 0u);
  try {
    rows.take(prompt({5}));
    FAIL() << "requests need all rows";
  } catch (const Error& error) {
    EXPECT_STREQ(error.code(), "ERR_CACHE_FULL");
  }
}

TEST(RowTableTest, APrefixThatAPromptBeganWithIsOfUse) {
  RowTable rows(3, true);
  const Handle older = prefix(rows, range(10, 5));
  const Handle newer = prefix(rows, range(20, 5));
  const Handle copied = prompt({10, 11, 99, 98});
  EXPECT_EQ(rows.place(copied, std::nullopt).length, 2u);
  EXPECT_EQ(rows.take(prompt({1})), 1u);
  EXPECT_EQ(newer->row, std::nullopt);
  EXPECT_EQ(older->row, 0u);
}

// A sequence in the preferred row moves to the row that is taken.
TEST(RowTableTest, TakesTheLastFreeRowForAResidentThatRestsAndTheFirstForOneThatDecodes) {
  for (const bool rests : {true, false}) {
    RowTable rows(5, true);
    const Handle resident = rests ? held({1}) : prompt({1});
    rows.take(resident, 4);
    EXPECT_EQ(rows.take(prompt({2}, 2), 4), rests ? 3u : 0u);
  }
}

TEST(RowTableTest, NeverTakesTheRowOfAHeldSequenceOrARequest) {
  RowTable rows(3, true);
  const Handle sequence = settled(rows, held(range(0, 3)));
  const Handle request = settled(rows, prompt(range(0, 3)));
  const Handle rest = prefix(rows, range(0, 3));
  EXPECT_EQ(rows.take(prompt({9})), 2u);
  EXPECT_EQ(rest->row, std::nullopt);
  EXPECT_EQ(sequence->row, 0u);
  EXPECT_EQ(request->row, 1u);
}

TEST(RowTableTest, FindsTheLongestBeginningButForThePromptsLastToken) {
  RowTable rows(6, true);
  settled(rows, held(range(0, 4)));
  settled(rows, held(range(0, 9)));
  const Handle begun = settled(rows, held(range(0, 20)));
  begun->cached = 6;  // its other tokens aren't in the row
  const auto found = [&](const Handle& sequence) {
    const RowTable::Beginning beginning = rows.place(sequence, std::nullopt);
    rows.release(*sequence);
    return std::pair(beginning.row, beginning.length);
  };
  EXPECT_EQ(found(prompt(range(0, 15))), std::pair(size_t{1}, size_t{9}));
  EXPECT_EQ(found(prompt(range(0, 9))), std::pair(size_t{1}, size_t{8})) << "its logits are needed";
  EXPECT_EQ(found(prompt({0, 1, 2, 7})), std::pair(size_t{0}, size_t{3}));
  EXPECT_EQ(found(prompt(range(1, 9))).second, 0u);
  EXPECT_EQ(found(prompt({0})).second, 0u);
}

TEST(RowTableTest, SharesOnlyWithinASaltAndWhatIsShared) {
  RowTable rows(4, true);
  const Handle source = settled(rows, held(range(0, 8)));
  const auto lengthOf = [&](RowTable& table, const Handle& sequence) {
    const size_t length = table.place(sequence, std::nullopt).length;
    table.release(*sequence);
    return length;
  };
  EXPECT_EQ(lengthOf(rows, prompt(range(0, 10))), 8u);
  const Handle salted = prompt(range(0, 10));
  salted->salt = "another";
  EXPECT_EQ(lengthOf(rows, salted), 0u);
  const Handle unshared = prompt(range(0, 10));
  unshared->shared = false;
  EXPECT_EQ(lengthOf(rows, unshared), 0u);
  source->shared = false;
  EXPECT_EQ(lengthOf(rows, prompt(range(0, 10))), 0u);

  RowTable forgetful(4, false);
  settled(forgetful, held(range(0, 8)));
  EXPECT_EQ(lengthOf(forgetful, prompt(range(0, 10))), 0u);
  EXPECT_EQ(prefix(forgetful, range(0, 8))->row, std::nullopt);
}

// A prompt continues in the row of a prefix that it contains completely. If something would be lost, the row
// is copied.
TEST(RowTableTest, GoesOnInPlaceWhereNothingIsLost) {
  RowTable rows(4, true);
  const Handle whole = prefix(rows, range(0, 8));
  const Handle first = prompt(range(0, 12));
  const RowTable::Beginning inPlace = rows.place(first, 3);
  EXPECT_EQ(inPlace.length, 8u);
  EXPECT_EQ(first->row, inPlace.row);
  EXPECT_EQ(first->row, 0u) << "not the preferred row, which the prompt moves into later";
  EXPECT_EQ(whole->row, std::nullopt);
  EXPECT_EQ(rows[0], first);
  first->cached = 12;

  // The first prompt is being answered, so one with the same beginning gets a copy. Of two equal sources, it
  // continues in the prefix.
  const Handle second = prompt(range(0, 12), 2);
  const RowTable::Beginning copied = rows.place(second, std::nullopt);
  EXPECT_EQ(copied.row, 0u);
  EXPECT_EQ(copied.length, 11u);
  EXPECT_EQ(second->row, 1u);
  rows.release(*second);
  const Handle same = prefix(rows, range(0, 12));
  const Handle third = prompt(range(0, 14), 3);
  EXPECT_EQ(rows.place(third, std::nullopt).row, 1u);
  EXPECT_EQ(third->row, 1u);
  EXPECT_EQ(same->row, std::nullopt);

  // The prompt contains only part of the prefix, which is kept as long as there is another row.
  rows.release(*third);
  const Handle longer = prefix(rows, range(50, 10));
  const Handle fourth = prompt(range(50, 6), 4);
  EXPECT_EQ(rows.place(fourth, std::nullopt).row, 1u);
  EXPECT_EQ(fourth->row, 2u);
  EXPECT_EQ(longer->cached, 10u);
}

TEST(RowTableTest, ThePartOfAPrefixIsUsedInPlaceWhereItsRowIsTheOnlyOne) {
  RowTable rows(1, true);
  const Handle only = prefix(rows, range(0, 10));
  const Handle next = prompt({0, 1, 2, 3, 99});
  const RowTable::Beginning beginning = rows.place(next, std::nullopt);
  EXPECT_EQ(beginning.row, 0u);
  EXPECT_EQ(beginning.length, 4u);
  EXPECT_EQ(next->row, 0u);
  EXPECT_EQ(only->row, std::nullopt);
}

TEST(RowTableTest, ARowKeepsWhatWasPromised) {
  RowTable rows(2, true);
  const Handle sequence = settled(rows, held(range(0, 10)));
  sequence->promise();
  sequence->cached = 4;  // it is truncated
  EXPECT_EQ(rows.kept(0), 10u);
  sequence->promise();
  sequence->cached = 2;
  sequence->endPromise();
  EXPECT_EQ(rows.kept(0), 10u) << "one still waits";
  sequence->endPromise();
  EXPECT_EQ(rows.kept(0), 2u);
  sequence->promise();
  sequence->cached = 12;  // it grows
  EXPECT_EQ(rows.kept(0), 12u);
  EXPECT_EQ(rows.kept(1), 0u);
}

TEST(RowTableTest, ExchangesResidents) {
  RowTable rows(3, true);
  const Handle sequence = settled(rows, held({1}));
  const Handle other = settled(rows, held({2}));
  rows.exchange(0, 2);
  EXPECT_EQ(sequence->row, 2u);
  EXPECT_EQ(rows[0], nullptr);
  EXPECT_EQ(rows[2], sequence);
  rows.exchange(1, 2);
  EXPECT_EQ(sequence->row, 1u);
  EXPECT_EQ(other->row, 2u);
  EXPECT_EQ(rows[1], sequence);
  EXPECT_EQ(rows[2], other);
}

TEST(RowTableTest, RetiredSequencesStayAsPrefixesAsFarAsTheyAreSound) {
  RowTable rows(3, true);
  const Handle sound = settled(rows, prompt(range(0, 6)));
  sound->cached = 4;  // the last tokens were not read
  sound->request.reset();
  rows.retire(*sound, true);
  EXPECT_EQ(sound->tokens, range(0, 4));
  EXPECT_EQ(rows[0], sound);
  const Handle failed = settled(rows, prompt(range(0, 6)));
  failed->request.reset();
  rows.retire(*failed, false);
  EXPECT_EQ(rows[1], nullptr);
  const Handle unread = settled(rows, prompt(range(0, 6)));
  unread->cached = 0;
  unread->request.reset();
  rows.retire(*unread, true);
  EXPECT_EQ(rows[1], nullptr);
}

TEST(RowTableTest, ForgetsWhatIsInDoubtOfTheFailedSequenceAndOfPrefixes) {
  RowTable rows(5, true);
  const Handle failed = settled(rows, held(range(0, 10)));
  const Handle other = settled(rows, held(range(0, 10)));
  const Handle answering = settled(rows, prompt(range(0, 10)));
  const Handle part = prefix(rows, range(0, 10));
  const Handle nothing = prefix(rows, range(0, 10));
  for (size_t row = 0; row < 5; ++row) rows.forgetDoubtful(row, row == 4 ? 0 : 3, *failed);
  EXPECT_EQ(failed->cached, 3u);
  EXPECT_EQ(other->cached, 10u);
  EXPECT_EQ(answering->cached, 10u);
  EXPECT_EQ(part->cached, 3u);
  EXPECT_EQ(part->row, 3u);
  EXPECT_EQ(nothing->row, std::nullopt);
  rows.forgetDoubtful(3, SIZE_MAX, *failed);
  EXPECT_EQ(part->cached, 3u);
}

TEST(RowTableTest, ReleasesPrefixesAndNotesTheirMemory) {
  RowTable rows(3, true);
  const Handle sequence = settled(rows, held({1, 2}));
  const Handle left = prefix(rows, {1, 2});
  const Handle request = settled(rows, prompt({1, 2}));
  EXPECT_FALSE(rows.hasSurplus());
  rows.releasePrefixes();
  EXPECT_TRUE(rows.hasSurplus());
  EXPECT_EQ(left->row, std::nullopt);
  EXPECT_EQ(sequence->row, 0u);
  EXPECT_EQ(request->row, 2u);
  rows.clearSurplus();
  EXPECT_FALSE(rows.hasSurplus());
}

}  // namespace
}  // namespace node_tensorrt
