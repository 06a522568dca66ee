// SPDX-License-Identifier: Apache-2.0
#include "clients/cpp/load/verifier.h"

#include <gtest/gtest.h>

#include "clients/cpp/cli/observation_source.h"
#include "clients/cpp/load/row_hash.h"
#include "tests/clients/cpp/fake_service.h"

namespace piserve::load {
namespace {

constexpr int kHorizon = 2;
constexpr int kModelDim = 4;
constexpr int kActionDim = 3;

class HashVerifier : public ::testing::Test {
 protected:
  HashVerifier() {
    info_ = service_.info;
    info_.mutable_cameras(0)->set_model_slot("base_0_rgb");
    info_.mutable_cameras(1)->set_model_slot("right_wrist_0_rgb");
    info_.add_noise_shape(kHorizon);
    info_.add_noise_shape(kModelDim);
    for (int robot = 0; robot < 2; ++robot) {
      client::ObservationIn observation;
      observation.state = {0.5, -1, robot / 64.0};
      observation.images = {client::TestPattern("wrist", 224, 224, robot),
                            client::TestPattern("base", 224, 224, 9)};
      observations_.push_back(observation);
    }
  }

  // What a policy answers to `observation`, as the wire and its transforms
  // leave it.
  static client::ActionChunk Answer(const client::ObservationIn& observation) {
    std::vector<float> state(observation.state.begin(),
                             observation.state.end());
    for (float& value : state) value += 1e-6f;
    state.resize(32);
    HashedRow row = {.cameras = {}, .state = state, .noise = {}};
    for (int i : {0, 1}) {
      const std::string& data = observation.images[i].data.str();
      row.cameras[observation.images[i].name == "base" ? 0 : 2] = HashBytes(
          {reinterpret_cast<const std::uint8_t*>(data.data()), data.size()});
    }
    row.noise = std::get<client::Noise>(observation.start).values;
    client::ActionChunk chunk;
    chunk.horizon = kHorizon;
    chunk.action_dim = kActionDim;
    for (int t = 0; t < kHorizon; ++t) {
      for (int a = 0; a < kActionDim; ++a) {
        chunk.values.push_back(HashAction(RowDigest(row), t, a) + 1e-6f);
      }
    }
    return chunk;
  }

  client::FakeService service_;
  v1::PolicyInfo info_;
  std::vector<client::ObservationIn> observations_;
};

TEST_F(HashVerifier, AcceptsTheAnswerToItsOwnObservationOnly) {
  const auto verifier = *MakeHashVerifier(info_, observations_);
  const Expectation first = verifier->Prepare(0, 0, &observations_[0]);
  const client::ActionChunk first_answer = Answer(observations_[0]);
  const Expectation other = verifier->Prepare(1, 0, &observations_[1]);
  const client::ActionChunk other_answer = Answer(observations_[1]);
  EXPECT_TRUE(first(first_answer));
  EXPECT_TRUE(other(other_answer));
  EXPECT_FALSE(first(other_answer));
  EXPECT_FALSE(other(first_answer));
}

TEST_F(HashVerifier, EachRequestOfOneRobotHasItsOwnAnswer) {
  const auto verifier = *MakeHashVerifier(info_, observations_);
  verifier->Prepare(0, 0, &observations_[0]);
  const client::ActionChunk old_answer = Answer(observations_[0]);
  EXPECT_FALSE(verifier->Prepare(0, 1, &observations_[0])(old_answer));
}

TEST_F(HashVerifier, PixelsAndStateCount) {
  const auto verifier = *MakeHashVerifier(info_, observations_);
  const Expectation expectation = verifier->Prepare(0, 0, &observations_[0]);
  client::ObservationIn changed = observations_[0];
  std::string pixels = changed.images[1].data.str();
  pixels[7] ^= 1;
  changed.images[1].data = pixels;
  EXPECT_FALSE(expectation(Answer(changed)));
  changed = observations_[0];
  changed.state[2] += 1 / 64.0;
  EXPECT_FALSE(expectation(Answer(changed)));
}

TEST_F(HashVerifier, RefusesWhatDoesNotReachThePolicyUnchanged) {
  observations_[0].images[0].width = 225;
  EXPECT_TRUE(
      absl::IsInvalidArgument(MakeHashVerifier(info_, observations_).status()));
  observations_[0].images[0].width = 224;
  observations_[0].state[0] = 0.51;
  EXPECT_TRUE(
      absl::IsInvalidArgument(MakeHashVerifier(info_, observations_).status()));
}

class AloneVerifier : public ::testing::Test {
 protected:
  AloneVerifier() {
    service_.on_infer = [this](grpc::ServerContext*,
                               const v1::InferRequest& request,
                               v1::InferResponse* response) {
      *response->mutable_result() =
          client::FakeResult(request.observation().request_id());
      const float first = scale_ * request.observation().seed();
      response->mutable_result()->mutable_actions()->mutable_data()->replace(
          0, 4, reinterpret_cast<const char*>(&first), 4);
      return grpc::Status::OK;
    };
    client_ = *client::PolicyClient::Connect(
        {.address = service_.address(), .api_key = "", .tls = {}});
    observations_.assign(2, client::FakeObservation());
  }

  float scale_ = 0.5f;
  client::FakeService service_;
  std::unique_ptr<client::PolicyClient> client_;
  std::vector<client::ObservationIn> observations_;
};

TEST_F(AloneVerifier, AcceptsWhatTheObservationGotAlone) {
  const auto verifier = *MakeAloneVerifier(*client_, 0.1, &observations_);
  const auto answer = client_->Infer(observations_[1]);
  ASSERT_TRUE(answer.ok());
  EXPECT_TRUE(verifier->Prepare(1, 5, &observations_[1])(*answer));
  EXPECT_FALSE(verifier->Prepare(0, 5, &observations_[0])(*answer));
  client::ActionChunk near = *answer;
  near.values[5] += 0.09f;
  EXPECT_TRUE(verifier->Prepare(1, 5, &observations_[1])(near));
  near.values[5] += 0.02f;
  EXPECT_FALSE(verifier->Prepare(1, 5, &observations_[1])(near));
}

TEST_F(AloneVerifier, RefusesRobotsThatCannotBeToldApart) {
  EXPECT_TRUE(absl::IsFailedPrecondition(
      MakeAloneVerifier(*client_, 0.25, &observations_).status()));
  scale_ = 0;
  EXPECT_TRUE(absl::IsFailedPrecondition(
      MakeAloneVerifier(*client_, 0, &observations_).status()));
}

}  // namespace
}  // namespace piserve::load
