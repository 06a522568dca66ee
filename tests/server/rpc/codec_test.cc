// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/codec.h"

#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "grpcpp/support/slice.h"
#include "gtest/gtest.h"
#include "model/error.h"

namespace piserve::server::rpc {
namespace {

using testing::ElementsAre;

std::string Bytes(const std::vector<float>& values) {
  return std::string(reinterpret_cast<const char*>(values.data()),
                     values.size() * sizeof(float));
}

absl::StatusOr<InferenceRequest> Translate(const v1::ObservationRequest& o) {
  return ToInferenceRequest(o, nullptr);
}

void SetNoise(v1::ObservationRequest& o, std::vector<std::uint32_t> shape,
              const std::string& data) {
  v1::Array* noise = o.mutable_noise();
  noise->set_dtype(v1::DATA_TYPE_FLOAT32);
  noise->mutable_shape()->Assign(shape.begin(), shape.end());
  noise->set_data(data);
}

TEST(ToInferenceRequest, CarriesEveryField) {
  v1::ObservationRequest o;
  o.set_policy("pi05_libero");
  o.set_model_digest("d");
  o.set_request_id("r1");
  o.set_robot_id("robot");
  o.set_episode_id("e");
  o.set_sequence(9);
  o.set_class_(v1::REQUEST_CLASS_BULK);
  o.set_supersede_older(true);
  o.set_age_us(1000);
  o.set_max_age_us(2000);
  o.set_traceparent("00-01");
  o.set_prompt("");
  o.add_state(1.5);
  o.add_state(-2);
  v1::Image* image = o.add_images();
  image->set_name("cam");
  image->set_encoding(v1::IMAGE_ENCODING_PNG);
  image->set_width(4);
  image->set_height(3);
  image->set_data("png");
  SetNoise(o, {1, 2}, Bytes({0.5f, -1.0f}));
  o.set_num_steps(5);

  const auto request = Translate(o);
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(request->policy, "pi05_libero");
  EXPECT_EQ(request->model_digest, "d");
  EXPECT_EQ(request->request_id, "r1");
  EXPECT_EQ(request->robot_id, "robot");
  EXPECT_EQ(request->episode_id, "e");
  EXPECT_EQ(request->traceparent, "00-01");
  EXPECT_EQ(request->sequence, 9);
  EXPECT_EQ(request->priority, batching::Class::kBulk);
  EXPECT_TRUE(request->supersede_older);
  EXPECT_EQ(request->age, absl::Milliseconds(1));
  EXPECT_EQ(request->max_age, absl::Milliseconds(2));
  ASSERT_TRUE(request->observation.prompt.has_value());
  EXPECT_EQ(*request->observation.prompt, "");
  EXPECT_THAT(request->observation.state, ElementsAre(1.5, -2));
  ASSERT_EQ(request->observation.images.size(), 1);
  EXPECT_EQ(request->observation.images[0].name, "cam");
  EXPECT_EQ(request->observation.images[0].encoding, ImageEncoding::kPng);
  EXPECT_EQ(request->observation.images[0].width, 4);
  EXPECT_EQ(request->observation.images[0].height, 3);
  EXPECT_THAT(std::get<std::vector<float>>(request->start),
              ElementsAre(0.5f, -1.0f));
  EXPECT_THAT(request->noise_shape, ElementsAre(1, 2));
  EXPECT_EQ(request->num_steps, 5);
}

TEST(ToInferenceRequest, LeavesAbsentFieldsAbsent) {
  const auto request = Translate({});
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_FALSE(request->observation.prompt.has_value());
  EXPECT_EQ(request->max_age, absl::InfiniteDuration());
  EXPECT_EQ(request->priority, batching::Class::kControl);
  EXPECT_TRUE(std::holds_alternative<std::monostate>(request->start));
  EXPECT_FALSE(request->num_steps.has_value());
}

TEST(ToInferenceRequest, KeepsASeedOfAnyValue) {
  for (const std::uint64_t seed :
       {std::uint64_t{0}, std::numeric_limits<std::uint64_t>::max()}) {
    v1::ObservationRequest o;
    o.set_seed(seed);
    EXPECT_EQ(std::get<std::uint64_t>(Translate(o)->start), seed);
  }
}

TEST(ToInferenceRequest, ViewsPointIntoTheMessage) {
  auto o = std::make_shared<v1::ObservationRequest>();
  o->set_prompt("go");
  v1::Image* image = o->add_images();
  image->set_encoding(v1::IMAGE_ENCODING_RGB8);
  image->set_data(std::string(12, 'x'));
  const auto request = ToInferenceRequest(*o, o);
  ASSERT_TRUE(request.ok());
  EXPECT_EQ(request->observation.prompt->data(), o->prompt().data());
  EXPECT_EQ(request->observation.images[0].data.data(),
            o->images(0).data().data());
  EXPECT_EQ(o.use_count(), 2);
}

TEST(ToInferenceRequest, NumbersBeyondOurTypesStayBeyondEveryLimit) {
  v1::ObservationRequest o;
  o.set_age_us(std::numeric_limits<std::uint64_t>::max());
  o.set_max_age_us(std::numeric_limits<std::uint64_t>::max());
  v1::Image* image = o.add_images();
  image->set_encoding(v1::IMAGE_ENCODING_RGB8);
  image->set_width(4294967295u);
  image->set_height(2147483648u);
  const auto request = Translate(o);
  ASSERT_TRUE(request.ok());
  EXPECT_GT(request->age, absl::Hours(1'000'000));
  EXPECT_GT(request->max_age, absl::Hours(1'000'000));
  EXPECT_EQ(request->observation.images[0].width,
            std::numeric_limits<int>::max());
  EXPECT_EQ(request->observation.images[0].height,
            std::numeric_limits<int>::max());
}

struct Refusal {
  const char* name;
  const char* field;
  const char* reason;
  std::function<void(v1::ObservationRequest&)> spoil;
};

class RefusedObservation : public testing::TestWithParam<Refusal> {};

TEST_P(RefusedObservation, IsInvalidArgumentWithItsField) {
  v1::ObservationRequest o;
  GetParam().spoil(o);
  const absl::Status status = Translate(o).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  EXPECT_EQ(FieldOf(status), GetParam().field) << status;
  EXPECT_EQ(ReasonOf(status), GetParam().reason) << status;
}

const std::string kTooLong(kMaxIdBytes + 1, 'x');

INSTANTIATE_TEST_SUITE_P(
    Codec, RefusedObservation,
    testing::Values(
        Refusal{"RequestIdTooLong", "request_id", "TOO_LONG",
                [](auto& o) { o.set_request_id(kTooLong); }},
        Refusal{"RobotIdTooLong", "robot_id", "TOO_LONG",
                [](auto& o) { o.set_robot_id(kTooLong); }},
        Refusal{"EpisodeIdTooLong", "episode_id", "TOO_LONG",
                [](auto& o) { o.set_episode_id(kTooLong); }},
        Refusal{"TraceparentTooLong", "traceparent", "TOO_LONG",
                [](auto& o) { o.set_traceparent(kTooLong); }},
        Refusal{"SupersedeWithoutRobot", "supersede_older", "NEEDS_ROBOT_ID",
                [](auto& o) { o.set_supersede_older(true); }},
        Refusal{"ClassUnknown", "class", "UNKNOWN_ENUM_VALUE",
                [](auto& o) { o.set_class_(v1::RequestClass(4)); }},
        Refusal{"EncodingMissing", "images[1].encoding", "UNKNOWN_ENUM_VALUE",
                [](auto& o) {
                  o.add_images()->set_encoding(v1::IMAGE_ENCODING_JPEG);
                  o.add_images();
                }},
        Refusal{"EncodingUnknown", "images[0].encoding", "UNKNOWN_ENUM_VALUE",
                [](auto& o) {
                  o.add_images()->set_encoding(v1::ImageEncoding(-1));
                }},
        Refusal{"NoiseWithoutDtype", "noise.dtype", "UNKNOWN_ENUM_VALUE",
                [](auto& o) {
                  SetNoise(o, {1, 1}, Bytes({0}));
                  o.mutable_noise()->clear_dtype();
                }},
        Refusal{"NoiseOfOneDimension", "noise.shape", "WRONG_SHAPE",
                [](auto& o) { SetNoise(o, {1}, Bytes({0})); }},
        Refusal{"NoiseTooShort", "noise.data", "WRONG_SIZE",
                [](auto& o) {
                  SetNoise(o, {2, 2}, Bytes({0, 0, 0}));
                }},
        Refusal{"NoiseNotWhole", "noise.data", "WRONG_SIZE",
                [](auto& o) {
                  SetNoise(o, {1, 1}, "12345");
                }},
        // 65536 * 65536 * 4 is 0 modulo 2^32 and modulo 2^34.
        Refusal{"NoiseShapeThatOverflows", "noise.data", "WRONG_SIZE",
                [](auto& o) {
                  SetNoise(o, {65536, 65536}, "");
                }},
        Refusal{"NoiseNan", "noise.data", "NOT_FINITE",
                [](auto& o) {
                  SetNoise(o, {1, 2}, Bytes({0, NAN}));
                }},
        Refusal{"NoiseInfinite", "noise.data", "NOT_FINITE",
                [](auto& o) {
                  SetNoise(o, {1, 2}, Bytes({-INFINITY, 0}));
                }},
        Refusal{"ZeroSteps", "num_steps", "ZERO_STEPS",
                [](auto& o) { o.set_num_steps(0); }},
        Refusal{"ActionPrefix", "action_prefix", "NOT_SUPPORTED",
                [](auto& o) { o.mutable_action_prefix(); }}),
    [](const auto& info) { return std::string(info.param.name); });

TEST(ToInferenceRequest, TakesIdsOfTheFullLength) {
  v1::ObservationRequest o;
  o.set_request_id(std::string(kMaxIdBytes, 'x'));
  o.set_robot_id(std::string(kMaxIdBytes, 'x'));
  EXPECT_TRUE(Translate(o).ok());
}

TEST(ToInferResult, CarriesEveryField) {
  InferenceReply reply;
  reply.actions = {1, 2, 3, 4, 5, 6};
  reply.horizon = 2;
  reply.dim = 3;
  reply.seed = 0;
  reply.policy = "p";
  reply.model_digest = "d";
  reply.deadline_served = absl::Seconds(5);
  reply.wave_rows = 3;
  reply.graph_rows = 4;
  reply.num_steps = 10;
  reply.stages = {{"queue", absl::Microseconds(7)},
                  {"gpu", absl::Microseconds(-1)}};
  const v1::InferResult result = ToInferResult(reply, "id");
  EXPECT_EQ(result.request_id(), "id");
  EXPECT_EQ(result.actions().dtype(), v1::DATA_TYPE_FLOAT32);
  EXPECT_THAT(result.actions().shape(), ElementsAre(2, 3));
  EXPECT_EQ(result.actions().data(), Bytes(reply.actions));
  EXPECT_TRUE(result.has_seed());
  EXPECT_EQ(result.seed(), 0);
  EXPECT_EQ(result.policy(), "p");
  EXPECT_EQ(result.model_digest(), "d");
  EXPECT_EQ(result.deadline_us(), 5'000'000);
  EXPECT_EQ(result.wave_rows(), 3);
  EXPECT_EQ(result.graph_rows(), 4);
  EXPECT_EQ(result.num_steps(), 10);
  ASSERT_EQ(result.stages_size(), 2);
  EXPECT_EQ(result.stages(0).stage(), "queue");
  EXPECT_EQ(result.stages(0).duration_us(), 7);
  EXPECT_EQ(result.stages(1).duration_us(), 0);
}

TEST(ToInferResult, HasNoSeedWhereTheRequestGaveNoise) {
  EXPECT_FALSE(ToInferResult({}, "").has_seed());
}

TEST(Parse, ReadsWhatSerializeWrote) {
  v1::InferRequest request;
  request.mutable_observation()->set_request_id("r");
  request.mutable_observation()->add_images()->set_data(
      std::string(3 << 20, 'x'));
  grpc::ByteBuffer buffer = Serialize(request);
  v1::InferRequest parsed;
  std::string id;
  ASSERT_TRUE(Parse(buffer, &parsed, &id).ok());
  EXPECT_EQ(parsed.SerializeAsString(), request.SerializeAsString());
  EXPECT_EQ(id, "r");
}

TEST(Parse, ReadsBytesThatCameInPieces) {
  v1::InferRequest request;
  request.mutable_observation()->set_request_id("request");
  request.mutable_observation()->set_prompt("pick up the block");
  const std::string bytes = request.SerializeAsString();
  std::vector<grpc::Slice> slices;
  for (const char c : bytes) slices.emplace_back(&c, 1);
  grpc::ByteBuffer buffer(slices.data(), slices.size());
  v1::InferRequest parsed;
  std::string id;
  ASSERT_TRUE(Parse(buffer, &parsed, &id).ok());
  EXPECT_EQ(parsed.observation().prompt(), "pick up the block");
  EXPECT_EQ(id, "request");
}

TEST(Parse, ReadsTheEmptyMessage) {
  grpc::ByteBuffer buffer = Serialize(v1::InferRequest());
  v1::InferRequest parsed;
  std::string id;
  EXPECT_TRUE(Parse(buffer, &parsed, &id).ok());
}

}  // namespace
}  // namespace piserve::server::rpc
