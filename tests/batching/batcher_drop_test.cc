// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <memory>
#include <tuple>
#include <utility>
#include <variant>
#include <vector>

#include "tests/batching/batcher_fixture.h"

namespace piserve::batching {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Pair;

TEST_F(BatcherTest, AnExpiredTaskIsDroppedAtItsDeadlineAndNotBefore) {
  Build();
  Occupy();
  Enqueue(1, Traits(30));
  PollAt(2);
  EXPECT_EQ(PollAt(4.8), At(4.875));
  puppets_[0]->fake.slots = 1;  // hangs
  EXPECT_EQ(PollAt(29.9), At(30));
  EXPECT_THAT(drops_, IsEmpty());
  PollAt(30);
  EXPECT_THAT(drops_, ElementsAre(Pair(1, DropReason::kExpired)));
  EXPECT_EQ(waves().size(), 1);
}

TEST_F(BatcherTest, ATaskThatWouldMissItsDeadlineIsNotLaunched) {
  Build();
  Occupy();
  Enqueue(1, Traits(13));  // 6.5 + 6.5 ms
  PollAt(1);
  clock_.AdvanceTo(At(7));  // the first wave is late
  FinishAt(7);
  EXPECT_EQ(waves().size(), 1);
  PollAt(13);
  EXPECT_THAT(drops_, ElementsAre(Pair(1, DropReason::kExpired)));
}

TEST_F(BatcherTest, AStaleTaskIsDropped) {
  Build();
  Occupy();
  TaskTraits traits = Traits();
  traits.stale_at = At(4);
  Enqueue(1, traits);
  EXPECT_EQ(PollAt(1), At(4));
  PollAt(4);
  EXPECT_THAT(drops_, ElementsAre(Pair(1, DropReason::kStale)));
}

TEST_F(BatcherTest, ACancelledTaskIsNeverLaunched) {
  Build();
  const TaskId id = Enqueue(1);
  Enqueue(2);
  batcher_->Cancel(id);
  PollAt(0);
  EXPECT_THAT(waves(), ElementsAre(ElementsAre(2)));
  EXPECT_THAT(drops_, ElementsAre(Pair(1, DropReason::kCancelled)));
}

TEST_F(BatcherTest, ATaskCancelledWhilePreparedIsDroppedWhenItComes) {
  Build();
  Ticket ticket = Admit(Traits());
  batcher_->Cancel(ticket.id());
  PollAt(0);
  EXPECT_THAT(drops_, IsEmpty());
  batcher_->Enqueue(std::move(ticket), 1);
  PollAt(0);
  EXPECT_THAT(drops_, ElementsAre(Pair(1, DropReason::kCancelled)));
  EXPECT_THAT(waves(), IsEmpty());
}

TEST_F(BatcherTest, CancellingWhatIsLaunchedOrUnknownDoesNothing) {
  Build();
  const TaskId id = Enqueue(1);
  PollAt(0);
  batcher_->Cancel(id);
  batcher_->Cancel(id + 1);
  FinishAt(5);
  EXPECT_THAT(drops_, IsEmpty());
  EXPECT_TRUE(batcher_->idle());
}

class SupersedeTest : public BatcherTest {
 protected:
  TaskTraits OfRobot(std::uint64_t sequence, bool supersede) {
    TaskTraits traits = Traits();
    traits.client = 5;
    traits.identity = SupersedeKey{9, sequence};
    traits.supersede_older = supersede;
    return traits;
  }
};

TEST_F(SupersedeTest, ANewerTaskReplacesAWaitingOlderOne) {
  Build();
  Enqueue(1, OfRobot(1, true));
  Enqueue(2, OfRobot(2, true));
  PollAt(0);
  EXPECT_THAT(waves(), ElementsAre(ElementsAre(2)));
  EXPECT_THAT(drops_, ElementsAre(Pair(1, DropReason::kSuperseded)));
}

TEST_F(SupersedeTest, NotUnlessItAsksForIt) {
  Build();
  Enqueue(1, OfRobot(1, true));
  Enqueue(2, OfRobot(2, false));
  PollAt(0);
  EXPECT_THAT(drops_, IsEmpty());
}

TEST_F(SupersedeTest, AnOlderOneThatIsPreparedLaterIsReplacedToo) {
  Build();
  Ticket older = Admit(OfRobot(1, true));
  Enqueue(2, OfRobot(2, true));
  PollAt(0);
  batcher_->Enqueue(std::move(older), 1);
  PollAt(0);
  EXPECT_THAT(waves(), ElementsAre(ElementsAre(2)));
  EXPECT_THAT(drops_, ElementsAre(Pair(1, DropReason::kSuperseded)));
}

TEST_F(SupersedeTest, AnOlderOneThatArrivesLaterIsReplacedWhileTheNewerWaits) {
  Build();
  Enqueue(2, OfRobot(2, true));
  Enqueue(1, OfRobot(1, true));
  PollAt(0);
  EXPECT_THAT(waves(), ElementsAre(ElementsAre(2)));
}

TEST_F(SupersedeTest, ANewerOneThatIsNeverEnqueuedReplacesNothing) {
  Build();
  Enqueue(1, OfRobot(1, true));
  { Ticket newer = Admit(OfRobot(2, true)); }
  PollAt(0);
  EXPECT_THAT(waves(), ElementsAre(ElementsAre(1)));
}

TEST_F(SupersedeTest, AnotherClientCannotReplaceThisOnes) {
  Build();
  Enqueue(1, OfRobot(1, true));
  TaskTraits other = OfRobot(2, true);
  other.client = 6;
  Enqueue(2, other);
  PollAt(0);
  EXPECT_THAT(drops_, IsEmpty());
}

}  // namespace
}  // namespace piserve::batching
