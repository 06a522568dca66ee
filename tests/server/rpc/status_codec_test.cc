// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/status_codec.h"

#include <optional>
#include <string>

#include "absl/strings/string_view.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "gtest/gtest.h"
#include "model/error.h"

namespace piserve::server::rpc {
namespace {

template <typename Detail, typename Message>
std::optional<Detail> DetailIn(const Message& message) {
  for (const auto& any : message.details()) {
    Detail detail;
    if (any.UnpackTo(&detail)) return detail;
  }
  return std::nullopt;
}

google::rpc::Status Rich(const absl::Status& status) {
  google::rpc::Status rich;
  EXPECT_TRUE(rich.ParseFromString(ToGrpcStatus(status).error_details()));
  return rich;
}

TEST(ToGrpcStatus, OkIsOk) {
  EXPECT_TRUE(ToGrpcStatus(absl::OkStatus()).ok());
  EXPECT_TRUE(ToGrpcStatus(absl::OkStatus()).error_details().empty());
}

TEST(ToGrpcStatus, EveryCodeKeepsItsNumberAndGetsAReason) {
  for (int code = 1; code <= 16; ++code) {
    const absl::Status status(static_cast<absl::StatusCode>(code), "why");
    EXPECT_EQ(ToGrpcStatus(status).error_code(), code);
    const auto info = DetailIn<google::rpc::ErrorInfo>(Rich(status));
    ASSERT_TRUE(info.has_value());
    EXPECT_EQ(info->domain(), "piserve");
    EXPECT_EQ(info->reason(), absl::StatusCodeToString(status.code()));
  }
}

TEST(ToGrpcStatus, ABadFieldIsABadRequest) {
  const absl::Status status =
      InvalidField("images[1].data", "WRONG_SIZE", "got 3 bytes, want 12");
  const google::rpc::Status rich = Rich(status);
  EXPECT_EQ(rich.code(), 3);
  EXPECT_EQ(rich.message(), "images[1].data: got 3 bytes, want 12");
  const auto bad = DetailIn<google::rpc::BadRequest>(rich);
  ASSERT_TRUE(bad.has_value());
  EXPECT_EQ(bad->field_violations(0).field(), "images[1].data");
  EXPECT_EQ(DetailIn<google::rpc::ErrorInfo>(rich)->reason(), "WRONG_SIZE");
  EXPECT_FALSE(DetailIn<google::rpc::RetryInfo>(rich).has_value());
  EXPECT_EQ(RetryPushbackMs(status), std::nullopt);
}

TEST(ToGrpcStatus, MetadataGoesIntoErrorInfo) {
  const absl::Status status = WithMetadata(
      WithReason(absl::DeadlineExceededError("cannot be met"), "CANNOT_MEET"),
      "predicted_us", "41000");
  EXPECT_EQ(DetailIn<google::rpc::ErrorInfo>(Rich(status))
                ->metadata()
                .at("predicted_us"),
            "41000");
}

TEST(ToGrpcStatus, RetryAfterIsRetryInfoAndPushback) {
  const absl::Status status =
      WithRetryAfter(WithReason(absl::ResourceExhaustedError("full"), "FULL"),
                     absl::Microseconds(1'250'500));
  const auto retry = DetailIn<google::rpc::RetryInfo>(Rich(status));
  ASSERT_TRUE(retry.has_value());
  EXPECT_EQ(retry->retry_delay().seconds(), 1);
  EXPECT_EQ(retry->retry_delay().nanos(), 250'500'000);
  EXPECT_EQ(RetryPushbackMs(status), "1251");
  EXPECT_EQ(RetryPushbackMs(WithRetryAfter(status, absl::ZeroDuration())), "0");
  // gRPC reads a negative pushback as "never".
  EXPECT_EQ(RetryPushbackMs(WithRetryAfter(status, absl::Seconds(-1))), "0");
}

TEST(ToGrpcStatus, PathsAndTracesOfLibrariesStayInside) {
  for (const char* leak :
       {"open failed: /home/robot/weights/model.safetensors",
        "at ../aten/src/ATen/native/Linear.cpp:91", "C:\\models\\pi0"}) {
    for (const absl::Status& status :
         {absl::InternalError(leak), absl::UnknownError(leak),
          WithReason(absl::DataLossError(leak), "LOST")}) {
      EXPECT_EQ(ToGrpcStatus(status).error_message(),
                "internal error; the server's log has the cause");
      EXPECT_EQ(ToGrpcStatus(status).error_details().find("pi0"),
                std::string::npos);
      EXPECT_EQ(ToError(status).message(),
                "internal error; the server's log has the cause");
    }
  }
  EXPECT_EQ(ToGrpcStatus(absl::InternalError("boom\n#0 0x7f frame\n#1"))
                .error_message(),
            "boom");
}

TEST(ToGrpcStatus, TopicNamesOfClientsAreNoPaths) {
  EXPECT_EQ(ToGrpcStatus(InvalidField("images[0].name", "UNKNOWN_CAMERA",
                                      "got \"/cam/left\""))
                .error_message(),
            "images[0].name: got \"/cam/left\"");
}

TEST(ToGrpcStatus, LongMessagesAreCutAtACharacter) {
  std::string text(510, 'x');
  for (int i = 0; i < 1000; ++i) text += "\xe2\x82\xac";
  const std::string message =
      ToGrpcStatus(absl::InvalidArgumentError(text)).error_message();
  EXPECT_EQ(message, std::string(510, 'x') + "...");
}

TEST(ToGrpcStatus, BytesThatAreNotUtf8BecomeQuestionMarks) {
  EXPECT_EQ(
      ToGrpcStatus(absl::InvalidArgumentError("got \xff\xfe")).error_message(),
      "got ??");
}

TEST(ToError, CarriesWhatTheUnaryStatusWould) {
  const absl::Status status =
      WithRetryAfter(InvalidField("state", "WRONG_LENGTH", "got 7, want 8"),
                     absl::Milliseconds(5));
  const v1::Error error = ToError(status);
  EXPECT_EQ(error.code(), 3);
  EXPECT_EQ(error.message(), "state: got 7, want 8");
  EXPECT_EQ(DetailIn<google::rpc::ErrorInfo>(error)->reason(), "WRONG_LENGTH");
  EXPECT_EQ(
      DetailIn<google::rpc::BadRequest>(error)->field_violations(0).field(),
      "state");
  EXPECT_EQ(DetailIn<google::rpc::RetryInfo>(error)->retry_delay().nanos(),
            5'000'000);
}

}  // namespace
}  // namespace piserve::server::rpc
