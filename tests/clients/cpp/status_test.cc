// SPDX-License-Identifier: Apache-2.0
#include "clients/cpp/piserve/status.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "google/rpc/error_details.pb.h"
#include "tests/clients/cpp/fake_service.h"

namespace piserve::client {
namespace {

grpc::Status BadField() {
  google::rpc::ErrorInfo info;
  info.set_reason("IMAGE_SIZE");
  google::rpc::BadRequest bad;
  bad.add_field_violations()->set_field("images[1].data");
  return Refusal(grpc::StatusCode::INVALID_ARGUMENT, "got 5 bytes, want 6",
                 {&info, &bad});
}

TEST(Status, DetailsOfAUnaryCallAreReadable) {
  const absl::Status status = FromGrpc(BadField());
  EXPECT_TRUE(absl::IsInvalidArgument(status));
  EXPECT_EQ(status.message(), "got 5 bytes, want 6");
  EXPECT_EQ(ErrorReason(status), "IMAGE_SIZE");
  EXPECT_EQ(ErrorField(status), "images[1].data");
  EXPECT_FALSE(RetryAfter(status).has_value());
}

TEST(Status, RetryDelayKeepsItsFraction) {
  const absl::Status status = FromGrpc(RefusalWithRetry(
      grpc::StatusCode::RESOURCE_EXHAUSTED, absl::Milliseconds(1250)));
  EXPECT_EQ(RetryAfter(status), absl::Milliseconds(1250));
}

TEST(Status, AStreamsErrorReadsAsAUnaryOne) {
  google::rpc::ErrorInfo info;
  info.set_reason("SUPERSEDED");
  v1::Error error;
  error.set_code(10);
  error.set_message("newer observation");
  error.add_details()->PackFrom(info);
  const absl::Status status = FromWire(error);
  EXPECT_TRUE(absl::IsAborted(status));
  EXPECT_EQ(ErrorReason(status), "SUPERSEDED");
}

TEST(Status, AnErrorNeverReadsAsSuccess) {
  for (int code : {0, -1, 17, 1000}) {
    v1::Error error;
    error.set_code(code);
    EXPECT_TRUE(absl::IsUnknown(FromWire(error))) << code;
  }
}

TEST(Status, AnErrorNeverSaysNothing) {
  v1::Error error;
  error.set_code(13);
  EXPECT_EQ(FromWire(error).message(), "got INTERNAL and no message");
  EXPECT_EQ(FromGrpc(grpc::Status(grpc::StatusCode::INTERNAL, "")).message(),
            "got INTERNAL and no message");
}

TEST(Status, AMissingServiceReadsAsAWrongPort) {
  const absl::Status status =
      FromGrpc(grpc::Status(grpc::StatusCode::UNIMPLEMENTED, ""));
  EXPECT_TRUE(absl::IsUnimplemented(status));
  EXPECT_THAT(std::string(status.message()),
              ::testing::HasSubstr("public port"));
}

TEST(Status, ACallThatAServerDroppedAsItStoppedReadsAsUnavailable) {
  const absl::Status dropped =
      FromGrpc(grpc::Status(grpc::StatusCode::CANCELLED, "CANCELLED"));
  EXPECT_TRUE(absl::IsUnavailable(dropped)) << dropped;
  google::rpc::ErrorInfo info;
  info.set_reason("CANCELLED");
  EXPECT_TRUE(absl::IsCancelled(FromGrpc(
      Refusal(grpc::StatusCode::CANCELLED, "the client cancelled", {&info}))));
}

TEST(Status, NothingIsReadFromAStatusWithoutDetails) {
  const absl::Status status =
      FromGrpc(grpc::Status(grpc::StatusCode::INTERNAL, "x", "not a proto"));
  EXPECT_TRUE(absl::IsInternal(status));
  EXPECT_EQ(ErrorReason(status), "");
  EXPECT_EQ(ErrorField(status), "");
}

}  // namespace
}  // namespace piserve::client
