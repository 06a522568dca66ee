// SPDX-License-Identifier: Apache-2.0
#include "model/error.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace piserve {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Pair;

TEST(ErrorTest, AnInvalidFieldCarriesItsPathAndReason) {
  const absl::Status status =
      InvalidField("images[1].data", "IMAGE_SIZE", "got 3, want 4");
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(status.message(), "images[1].data: got 3, want 4");
  EXPECT_EQ(FieldOf(status), "images[1].data");
  EXPECT_EQ(ReasonOf(status), "IMAGE_SIZE");
}

TEST(ErrorTest, AReasonLeavesCodeAndMessageAlone) {
  const absl::Status status =
      WithReason(absl::ResourceExhaustedError("full"), "QUEUE_FULL");
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(status.message(), "full");
  EXPECT_EQ(ReasonOf(status), "QUEUE_FULL");
  EXPECT_EQ(FieldOf(status), std::nullopt);
}

TEST(ErrorTest, MetadataAndRetryDelayAreCarried) {
  absl::Status status = absl::UnavailableError("draining");
  status = WithMetadata(status, "predicted_us", "120");
  status = WithMetadata(status, "rows", "3");
  status = WithRetryAfter(status, absl::Milliseconds(250));
  EXPECT_THAT(MetadataOf(status),
              ElementsAre(Pair("predicted_us", "120"), Pair("rows", "3")));
  EXPECT_EQ(RetryAfterOf(status), absl::Milliseconds(250));
}

TEST(ErrorTest, APlainStatusCarriesNothing) {
  const absl::Status status = absl::InternalError("fault");
  EXPECT_EQ(ReasonOf(status), std::nullopt);
  EXPECT_EQ(FieldOf(status), std::nullopt);
  EXPECT_EQ(RetryAfterOf(status), std::nullopt);
  EXPECT_THAT(MetadataOf(status), IsEmpty());
}

}  // namespace
}  // namespace piserve
