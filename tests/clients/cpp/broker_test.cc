// SPDX-License-Identifier: Apache-2.0
#include "clients/cpp/piserve/broker.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace piserve::client {
namespace {

using ::testing::ElementsAre;

// A policy whose n-th chunk is [3, 1] of 10 n + step.
class Broker : public ::testing::Test {
 protected:
  std::unique_ptr<ActionChunkBroker> Make(int steps) {
    auto broker = ActionChunkBroker::Create(
        [this](const ObservationIn&) -> absl::StatusOr<ActionChunk> {
          if (!error_.ok()) return error_;
          const float base = 10.0f * ++calls_;
          ActionChunk chunk;
          chunk.horizon = 3;
          chunk.action_dim = 1;
          chunk.values = {base, base + 1, base + 2};
          return chunk;
        },
        steps);
    return *std::move(broker);
  }
  static float Next(ActionChunkBroker& broker) {
    return broker.NextAction({})->front();
  }

  int calls_ = 0;
  absl::Status error_;
};

TEST_F(Broker, AsksAgainAfterItsStepsAndNotAfterTheHorizon) {
  const auto broker = Make(2);
  EXPECT_THAT((std::vector<float>{Next(*broker), Next(*broker), Next(*broker)}),
              ElementsAre(10, 11, 20));
  EXPECT_EQ(calls_, 2);
}

TEST_F(Broker, SaysWhenItWillLookAtTheObservation) {
  const auto broker = Make(2);
  EXPECT_TRUE(broker->needs_observation());
  Next(*broker);
  EXPECT_FALSE(broker->needs_observation());
  Next(*broker);
  EXPECT_TRUE(broker->needs_observation());
}

TEST_F(Broker, ResetDropsTheRestOfTheChunk) {
  const auto broker = Make(3);
  Next(*broker);
  broker->Reset();
  EXPECT_EQ(Next(*broker), 20);
}

TEST_F(Broker, AnErrorIsHandedOnAndTheNextCallAsksAgain) {
  const auto broker = Make(3);
  error_ = absl::UnavailableError("down");
  EXPECT_TRUE(absl::IsUnavailable(broker->NextAction({}).status()));
  error_ = absl::OkStatus();
  EXPECT_EQ(Next(*broker), 10);
}

TEST_F(Broker, AChunkShorterThanItsStepsIsRefused) {
  const auto broker = Make(4);
  EXPECT_TRUE(absl::IsFailedPrecondition(broker->NextAction({}).status()));
}

TEST_F(Broker, StepsBelowOneAreRefused) {
  EXPECT_TRUE(
      absl::IsInvalidArgument(ActionChunkBroker::Create({}, 0).status()));
}

}  // namespace
}  // namespace piserve::client
