// SPDX-License-Identifier: Apache-2.0
#include "server/hang_limit.h"

#include <gtest/gtest.h>

namespace piserve::server {
namespace {

// Promise 6, with an interval of the watchdog to spare: one row of pi0, eight,
// sixty-four, and sixty-four of pi05.
TEST(HangLimitTest, AHungGpuIsOutWithinASecondWhateverTheWave) {
  const HangLimit limit = HangLimitOf({}, "engine");
  for (const int ms : {11, 60, 450, 580}) {
    const absl::Duration predicted = absl::Milliseconds(ms);
    EXPECT_LE(limit.After(predicted), absl::Milliseconds(950)) << ms;
    EXPECT_GE(limit.After(predicted), 1.5 * predicted) << ms;
  }
  EXPECT_EQ(limit.After(absl::Milliseconds(11)), absl::Milliseconds(410));
}

// What is predicted to take longer than 0.6 s may take half as long again.
TEST(HangLimitTest, AWaveThatIsOnlySlowIsNotHung) {
  const HangLimit limit = HangLimitOf({}, "engine");
  EXPECT_EQ(limit.After(absl::Milliseconds(600)), absl::Milliseconds(900));
  EXPECT_EQ(limit.After(absl::Seconds(2)), absl::Seconds(3));
}

TEST(HangLimitTest, ACpuThatOthersUseMayTakeItsTime) {
  EXPECT_EQ(HangLimitOf({}, "reference").After(absl::Seconds(1)),
            absl::Seconds(30));
}

TEST(HangLimitTest, TheOperatorsFloorHoldsForBoth) {
  const WatchdogConfig config{.factor = 3, .floor = absl::Seconds(5)};
  for (const char* backend : {"engine", "reference"}) {
    EXPECT_EQ(HangLimitOf(config, backend).After(absl::Seconds(1)),
              absl::Seconds(8));
  }
}

}  // namespace
}  // namespace piserve::server
