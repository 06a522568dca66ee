// SPDX-License-Identifier: Apache-2.0
#include "clients/cpp/piserve/codec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <utility>

#include "clients/cpp/piserve/status.h"
#include "tests/clients/cpp/fake_service.h"

namespace piserve::client {
namespace {

using ::testing::ElementsAre;

std::string Reason(const v1::InferResult& result) {
  return ErrorReason(DecodeResult(result, "r").status());
}

TEST(Codec, EveryFieldOfAnObservationReachesTheWire) {
  ObservationIn in = FakeObservation();
  in.policy = "p";
  in.model_digest = "d";
  in.request_id = "r";
  in.robot_id = "robot";
  in.episode_id = "e";
  in.sequence = 7;
  in.request_class = v1::REQUEST_CLASS_BULK;
  in.supersede_older = true;
  in.max_age = absl::Milliseconds(3);
  in.traceparent = "t";
  in.start = Noise{.horizon = 1, .action_dim = 2, .values = {0.5f, -1.0f}};
  in.num_steps = 3;
  v1::ObservationRequest out;
  EncodeObservation(in, &out);
  EXPECT_EQ(out.policy() + out.model_digest() + out.request_id() +
                out.robot_id() + out.episode_id() + out.traceparent(),
            "pdrrobotet");
  EXPECT_EQ(out.sequence(), 7u);
  EXPECT_EQ(out.class_(), v1::REQUEST_CLASS_BULK);
  EXPECT_TRUE(out.supersede_older());
  EXPECT_EQ(out.max_age_us(), 3000u);
  EXPECT_EQ(out.prompt(), "pick up the fork");
  EXPECT_THAT(out.state(), ElementsAre(0.1, 0.2, 0.3));
  EXPECT_EQ(out.images(0).data(), "abcdef");
  EXPECT_EQ(out.images(0).height(), 2u);
  EXPECT_THAT(out.noise().shape(), ElementsAre(1u, 2u));
  EXPECT_EQ(out.noise().data(), std::string("\0\0\0\x3f\0\0\x80\xbf", 8));
  EXPECT_EQ(out.num_steps(), 3u);
}

TEST(Codec, WhatIsAbsentStaysAbsent) {
  ObservationIn in;
  v1::ObservationRequest out;
  EncodeObservation(in, &out);
  EncodeAge(in, Clock::TimePoint(), &out);
  EXPECT_FALSE(out.has_prompt());
  EXPECT_FALSE(out.has_num_steps());
  EXPECT_EQ(out.start_case(), v1::ObservationRequest::START_NOT_SET);
  EXPECT_EQ(out.age_us(), 0u);
}

TEST(Codec, AnEmptyPromptAndSeedZeroAreSent) {
  ObservationIn in;
  in.prompt = "";
  in.start = std::uint64_t{0};
  v1::ObservationRequest out;
  EncodeObservation(in, &out);
  EXPECT_TRUE(out.has_prompt());
  EXPECT_EQ(out.start_case(), v1::ObservationRequest::kSeed);
}

TEST(Codec, AgeIsMeasuredAtSending) {
  ObservationIn in;
  const Clock::TimePoint now = Clock::TimePoint(std::chrono::seconds(9));
  in.captured_at = now - std::chrono::milliseconds(12);
  v1::ObservationRequest out;
  EncodeAge(in, now, &out);
  EXPECT_EQ(out.age_us(), 12000u);
}

TEST(Codec, NoTimeLeftIsNotSentAsNoLimit) {
  for (const absl::Duration left :
       {absl::ZeroDuration(), absl::Nanoseconds(1), -absl::Seconds(1)}) {
    ObservationIn in;
    in.max_age = left;
    v1::ObservationRequest out;
    EncodeObservation(in, &out);
    EXPECT_EQ(out.max_age_us(), 1u) << left;
  }
}

TEST(Codec, TheBytesSentAreThoseOfTheMessage) {
  ObservationIn in = FakeObservation();
  in.images.push_back({.name = "wrist",
                       .encoding = v1::IMAGE_ENCODING_PNG,
                       .data = std::string(300, 'x')});
  in.images.push_back({.name = "empty", .data = ""});
  in.start = std::uint64_t{5};
  const Clock::TimePoint now = Clock::TimePoint(std::chrono::seconds(9));
  in.captured_at = now - std::chrono::milliseconds(12);
  v1::InferRequest message;
  EncodeObservation(in, message.mutable_observation());
  EncodeAge(in, now, message.mutable_observation());

  const grpc::ByteBuffer buffer = EncodeRequest(in, now);
  in.images.clear();  // The bytes stay.
  grpc::Slice bytes;
  ASSERT_TRUE(buffer.DumpToSingleSlice(&bytes).ok());
  v1::InferRequest sent;
  ASSERT_TRUE(sent.ParseFromArray(bytes.begin(), bytes.size()));
  EXPECT_EQ(sent.SerializeAsString(), message.SerializeAsString());
}

TEST(Codec, AChunkIsReadByStep) {
  const auto chunk = DecodeResult(FakeResult("r"), "r");
  ASSERT_TRUE(chunk.ok()) << chunk.status();
  EXPECT_EQ(chunk->horizon, 2);
  EXPECT_EQ(chunk->action_dim, 3);
  EXPECT_THAT(chunk->step(1), ElementsAre(3, 4, 5));
  EXPECT_FALSE(chunk->seed.has_value());
}

TEST(Codec, AnAnswerToAnotherRequestIsRefused) {
  EXPECT_EQ(Reason(FakeResult("other")), "BAD_REPLY");
}

TEST(Codec, AShapeThatItsBytesDoNotFillIsRefused) {
  using Shape = std::pair<std::uint32_t, std::uint32_t>;
  // 2^31 * 2^31 values would be 2^64 bytes, which is 0.
  for (const auto& [horizon, action_dim] :
       {Shape(1u << 31, 1u << 31), Shape(1u << 31, 1u << 30), Shape(0, 3),
        Shape(1u << 31, 0), Shape(0, 0)}) {
    v1::InferResult result = FakeResult("r");
    result.mutable_actions()->set_shape(0, horizon);
    result.mutable_actions()->set_shape(1, action_dim);
    result.mutable_actions()->clear_data();
    EXPECT_EQ(Reason(result), "BAD_REPLY") << horizon << " x " << action_dim;
  }
}

TEST(Codec, ActionsThatAreNotAFiniteFloat32MatrixAreRefused) {
  v1::InferResult result = FakeResult("r");
  result.mutable_actions()->set_dtype(v1::DATA_TYPE_UNSPECIFIED);
  EXPECT_EQ(Reason(result), "BAD_REPLY");

  result = FakeResult("r");
  result.mutable_actions()->add_shape(1);
  EXPECT_EQ(Reason(result), "BAD_REPLY");

  result = FakeResult("r");
  result.mutable_actions()->mutable_data()->pop_back();
  EXPECT_EQ(Reason(result), "BAD_REPLY");

  result = FakeResult("r");
  result.mutable_actions()->set_shape(0, 0xffffffffu);
  result.mutable_actions()->set_shape(1, 0xffffffffu);
  EXPECT_EQ(Reason(result), "BAD_REPLY");

  result = FakeResult("r");
  const float nan = std::numeric_limits<float>::quiet_NaN();
  result.mutable_actions()->mutable_data()->replace(
      8, 4, reinterpret_cast<const char*>(&nan), 4);
  EXPECT_EQ(Reason(result), "BAD_REPLY");
}

}  // namespace
}  // namespace piserve::client
