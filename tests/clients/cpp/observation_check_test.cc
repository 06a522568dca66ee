// SPDX-License-Identifier: Apache-2.0
#include "clients/cpp/piserve/observation_check.h"

#include <gtest/gtest.h>

#include "clients/cpp/piserve/status.h"
#include "tests/clients/cpp/fake_service.h"

namespace piserve::client {
namespace {

class ObservationCheck : public ::testing::Test {
 protected:
  absl::Status Check() { return CheckObservation(observation_, service_.info); }

  FakeService service_;
  ObservationIn observation_ = FakeObservation();
};

TEST_F(ObservationCheck, AFittingObservationPasses) {
  EXPECT_TRUE(Check().ok());
  observation_.images.push_back({.name = "wrist", .data = {}});
  EXPECT_TRUE(Check().ok());
}

TEST_F(ObservationCheck, StateLengthMustBeTheSumOfTheBlocks) {
  observation_.state.pop_back();
  EXPECT_TRUE(absl::IsInvalidArgument(Check()));
  EXPECT_EQ(ErrorField(Check()), "state");
  EXPECT_EQ(Check().message(), "state: got 2 values, want 3");
}

TEST_F(ObservationCheck, AnUnknownCameraIsNamed) {
  observation_.images.push_back({.name = "wirst", .data = {}});
  EXPECT_EQ(ErrorField(Check()), "images[1].name");
  EXPECT_EQ(Check().message(), "images[1].name: got 'wirst', want base, wrist");
}

TEST_F(ObservationCheck, ADoubledCameraIsRefused) {
  observation_.images.push_back(observation_.images[0]);
  EXPECT_EQ(ErrorField(Check()), "images[1].name");
}

TEST_F(ObservationCheck, AMissingRequiredCameraIsNamed) {
  observation_.images[0].name = "wrist";
  EXPECT_EQ(ErrorField(Check()), "images");
  EXPECT_EQ(Check().message(),
            "images: no image of the required camera 'base'");
}

}  // namespace
}  // namespace piserve::client
