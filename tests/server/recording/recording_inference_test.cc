// SPDX-License-Identifier: Apache-2.0
#include "server/recording/recording_inference.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string_view>
#include <utility>
#include <vector>

#include "model/error.h"
#include "piserve/v1/recording.pb.h"

namespace piserve::server {
namespace {

namespace fs = std::filesystem;

// Answers at once, with what it was given.
class InstantInference final : public Inference {
 public:
  explicit InstantInference(absl::StatusOr<InferenceReply> reply)
      : reply_(std::move(reply)) {}
  Cancel Start(InferenceRequest request, Done done) override {
    storage_kept_ = request.storage_kept;
    done(reply_);
    return [] {};
  }
  bool storage_kept() const { return storage_kept_; }

 private:
  bool storage_kept_ = false;
  const absl::StatusOr<InferenceReply> reply_;
};

InferenceReply Reply() {
  InferenceReply reply;
  reply.actions = {1, 2, 3, 4, 5, 6};
  reply.horizon = 3;
  reply.dim = 2;
  reply.seed = 77;
  reply.model_digest = "digest";
  return reply;
}

InferenceRequest Request() {
  auto storage = std::make_shared<std::string>("prompt,pixels");
  InferenceRequest request;
  request.request_id = "r1";
  request.robot_id = "arm";
  request.priority = batching::Class::kEvaluation;
  request.max_age = absl::Milliseconds(40);
  request.num_steps = 5;
  request.observation.prompt = std::string_view(*storage).substr(0, 6);
  request.observation.state = {0.5, -1};
  request.observation.images = {{.name = "prompt",
                                 .encoding = ImageEncoding::kPng,
                                 .data = std::string_view(*storage).substr(7)}};
  request.storage = storage;
  request.bytes = storage->size();
  return request;
}

class RecordingInferenceTest : public testing::Test {
 protected:
  ~RecordingInferenceTest() override { fs::remove_all(folder_); }

  // What is on disk after one request.
  v1::Recording Record(InferenceRequest request,
                       const absl::StatusOr<InferenceReply>& reply,
                       std::size_t max_waiting_bytes = 1000) {
    auto ring = *RecordRing::Create(
        {.folder = folder_.string(), .max_waiting_bytes = max_waiting_bytes});
    InstantInference inference(reply);
    RecordingInference recorder(inference, *ring);
    bool answered = false;
    recorder.Start(std::move(request),
                   [&](const absl::StatusOr<InferenceReply>& got) {
                     answered = true;
                     EXPECT_EQ(got.status(), reply.status());
                   });
    EXPECT_TRUE(answered);
    EXPECT_TRUE(inference.storage_kept()) << "until the answer, for the record";
    ring.reset();
    v1::Recording recording;
    for (const auto& entry : fs::directory_iterator(folder_)) {
      std::ifstream file(entry.path(), std::ios::binary);
      EXPECT_TRUE(recording.ParseFromIstream(&file));
    }
    return recording;
  }

  const fs::path folder_ =
      fs::path(testing::TempDir()) / "recordings" /
      testing::UnitTest::GetInstance()->current_test_info()->name();
};

TEST_F(RecordingInferenceTest, KeepsWhatWasAskedAndAnswered) {
  const v1::Recording recording = Record(Request(), Reply());
  const v1::ObservationRequest& asked = recording.observation();
  EXPECT_EQ(asked.request_id(), "r1");
  EXPECT_EQ(asked.robot_id(), "arm");
  EXPECT_EQ(asked.class_(), v1::REQUEST_CLASS_EVALUATION);
  EXPECT_EQ(asked.max_age_us(), 40'000u);
  EXPECT_EQ(asked.num_steps(), 5u);
  EXPECT_EQ(asked.prompt(), "prompt");
  ASSERT_EQ(asked.state_size(), 2);
  EXPECT_EQ(asked.state(1), -1);
  ASSERT_EQ(asked.images_size(), 1);
  EXPECT_EQ(asked.images(0).encoding(), v1::IMAGE_ENCODING_PNG);
  EXPECT_EQ(asked.images(0).data(), "pixels");
  EXPECT_EQ(recording.result().actions().data().size(), 6 * sizeof(float));
  EXPECT_EQ(recording.result().model_digest(), "digest");
  EXPECT_GT(recording.received_unix_us(), 0);
}

TEST_F(RecordingInferenceTest, ASeedThatTheServerDrewIsKeptForARepetition) {
  EXPECT_EQ(Record(Request(), Reply()).observation().seed(), 77u);
}

TEST_F(RecordingInferenceTest, GivenNoiseIsKeptAsItWas) {
  InferenceRequest request = Request();
  request.start = std::vector<float>{0.5f, 1.5f};
  request.noise_shape = {1, 2};
  const v1::Recording recording = Record(std::move(request), Reply());
  EXPECT_FALSE(recording.observation().has_seed());
  EXPECT_EQ(recording.observation().noise().shape(1), 2u);
  EXPECT_EQ(recording.observation().noise().data().size(), 2 * sizeof(float));
}

TEST_F(RecordingInferenceTest, ARefusalIsKeptAsTheClientSawIt) {
  const v1::Recording recording =
      Record(Request(), InvalidField("state", "WRONG_SIZE", "got 2, want 8"));
  EXPECT_FALSE(recording.has_result());
  EXPECT_EQ(recording.error().code(),
            static_cast<int>(absl::StatusCode::kInvalidArgument));
}

TEST_F(RecordingInferenceTest, WhatARecordKeepsInMemoryCountsWhileItWaits) {
  InferenceRequest request = Request();
  request.start = std::vector<float>{0.5f, 1.5f};
  const std::size_t kept = 13 + 2 * sizeof(double) + (2 + 6) * sizeof(float);
  EXPECT_FALSE(Record(request, Reply(), kept - 1).has_observation());
  EXPECT_TRUE(Record(request, Reply(), kept).has_observation());
}

// Over the websocket; the policy refuses it, and the record must still parse.
TEST_F(RecordingInferenceTest, APromptThatIsNotUtf8IsLeftOut) {
  InferenceRequest request = Request();
  request.observation.prompt = "\xff";
  const v1::Recording recording = Record(std::move(request), Reply());
  EXPECT_TRUE(recording.has_observation());
  EXPECT_FALSE(recording.observation().has_prompt());
  EXPECT_EQ(recording.observation().request_id(), "r1");
  EXPECT_TRUE(recording.has_result());
}

TEST_F(RecordingInferenceTest, AnyOtherPromptIsKeptAsItWas) {
  using std::literals::operator""sv;
  for (const std::string_view prompt : {""sv, "a\0b"sv, "机器人"sv}) {
    InferenceRequest request = Request();
    request.observation.prompt = prompt;
    const v1::Recording recording = Record(std::move(request), Reply());
    ASSERT_TRUE(recording.observation().has_prompt());
    EXPECT_EQ(recording.observation().prompt(), prompt);
    fs::remove_all(folder_);
  }
}

}  // namespace
}  // namespace piserve::server
