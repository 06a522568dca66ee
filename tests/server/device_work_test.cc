// SPDX-License-Identifier: Apache-2.0
#include "server/device_work.h"

#include "absl/time/time.h"
#include "gtest/gtest.h"

namespace piserve::server {
namespace {

constexpr absl::Duration kPredicted = absl::Milliseconds(10);

absl::Time At(int milliseconds) {
  return absl::UnixEpoch() + absl::Milliseconds(milliseconds);
}

TEST(DeviceWorkTest, WavesThatOverlapKeepTheDeviceBusyOnce) {
  DeviceWork work;
  work.Give(0, kPredicted, At(0));
  work.Give(1, kPredicted, At(2));
  work.Give(1, kPredicted, At(5));
  EXPECT_EQ(work.Finish(1, kPredicted, At(6)), absl::Milliseconds(6));
  EXPECT_EQ(work.Finish(0, kPredicted, At(10)), absl::Milliseconds(4));
  EXPECT_EQ(work.Finish(1, kPredicted, At(12)), absl::Milliseconds(2));
  work.Give(0, kPredicted, At(20));
  EXPECT_EQ(work.Finish(0, kPredicted, At(25)), absl::Milliseconds(5));
}

// Two executors read the clock before they wait for each other.
TEST(DeviceWorkTest, NoTimeIsCountedTwiceWhenCallsChangePlaces) {
  DeviceWork work;
  work.Give(0, kPredicted, At(0));
  work.Give(1, kPredicted, At(0));
  EXPECT_EQ(work.Finish(0, kPredicted, At(11)), absl::Milliseconds(11));
  EXPECT_EQ(work.Finish(1, kPredicted, At(10)), absl::ZeroDuration());
}

}  // namespace
}  // namespace piserve::server
