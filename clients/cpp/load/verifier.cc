// SPDX-License-Identifier: Apache-2.0
#include "clients/cpp/load/verifier.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>
#include <random>
#include <span>
#include <utility>

#include "absl/strings/str_cat.h"
#include "clients/cpp/load/row_hash.h"

namespace piserve::load {
namespace {

constexpr int kModelImageSide = 224;  // px
// What normalising there and back may cost (row_hash.h), and far below the
// grid's step of 1 / 256.
constexpr float kHashTolerance = 1e-4f;
constexpr std::array<const char*, 3> kModelSlots = {
    "base_0_rgb", "left_wrist_0_rgb", "right_wrist_0_rgb"};

bool IsHashOf(std::uint64_t digest, int horizon,
              const client::ActionChunk& chunk) {
  if (chunk.horizon != horizon) return false;
  for (int t = 0; t < chunk.horizon; ++t) {
    const std::span<const float> step = chunk.step(t);
    for (int a = 0; a < chunk.action_dim; ++a) {
      if (std::abs(step[a] - HashAction(digest, t, a)) > kHashTolerance) {
        return false;
      }
    }
  }
  return true;
}

class HashVerifier final : public Verifier {
 public:
  struct Robot {
    std::array<std::optional<std::uint64_t>, 3> cameras;
    std::vector<float> state;
  };

  HashVerifier(int horizon, int action_dim, std::vector<Robot> robots)
      : horizon_(horizon),
        action_dim_(action_dim),
        robots_(std::move(robots)) {}

  Expectation Prepare(int robot, std::uint64_t,
                      client::ObservationIn* observation) override {
    client::Noise noise;
    noise.horizon = horizon_;
    noise.action_dim = action_dim_;
    noise.values.resize(static_cast<std::size_t>(horizon_) * action_dim_);
    std::generate(noise.values.begin(), noise.values.end(),
                  [this] { return normal_(random_); });
    const std::uint64_t digest = RowDigest({.cameras = robots_[robot].cameras,
                                            .state = robots_[robot].state,
                                            .noise = noise.values});
    observation->start = std::move(noise);
    return [digest, horizon = horizon_](const client::ActionChunk& chunk) {
      return IsHashOf(digest, horizon, chunk);
    };
  }

 private:
  const int horizon_;
  const int action_dim_;
  const std::vector<Robot> robots_;
  std::mt19937_64 random_{20240531};
  std::normal_distribution<float> normal_;
};

absl::Status HashImages(const v1::PolicyInfo& info,
                        const client::ObservationIn& observation,
                        HashVerifier::Robot* robot) {
  for (const client::ImageIn& image : observation.images) {
    if (image.encoding != v1::IMAGE_ENCODING_RGB8 ||
        image.width != kModelImageSide || image.height != kModelImageSide) {
      return absl::InvalidArgumentError(absl::StrCat(
          "--verify=hash: image '", image.name, "' is ", image.width, "x",
          image.height, " of encoding ", image.encoding,
          ", want raw RGB8 of 224x224: others change on their way"));
    }
    for (const v1::Camera& camera : info.cameras()) {
      if (camera.name() != image.name) continue;
      const auto slot = std::find(kModelSlots.begin(), kModelSlots.end(),
                                  camera.model_slot());
      if (slot == kModelSlots.end()) continue;
      robot->cameras[slot - kModelSlots.begin()] = HashBytes(
          {reinterpret_cast<const std::uint8_t*>(image.data.str().data()),
           image.data.size()});
    }
  }
  return absl::OkStatus();
}

class AloneVerifier final : public Verifier {
 public:
  AloneVerifier(double tolerance, std::vector<client::ActionChunk> expected)
      : tolerance_(tolerance), expected_(std::move(expected)) {}

  Expectation Prepare(int robot, std::uint64_t,
                      client::ObservationIn*) override {
    return [this, robot](const client::ActionChunk& chunk) {
      return client::LargestDifference(expected_[robot].values, chunk) <=
             tolerance_;
    };
  }

  // FAILED_PRECONDITION if a crossed answer could pass for the right one.
  absl::Status CheckDistinct() const {
    for (std::size_t i = 0; i < expected_.size(); ++i) {
      for (std::size_t j = 0; j < i; ++j) {
        const double apart =
            client::LargestDifference(expected_[i].values, expected_[j]);
        if (apart > 2 * tolerance_) continue;
        return absl::FailedPreconditionError(absl::StrCat(
            "--verify=alone: robots ", j, " and ", i,
            " get actions that differ by ", apart, " at most, want more than ",
            2 * tolerance_, " to tell them apart"));
      }
    }
    return absl::OkStatus();
  }

 private:
  const double tolerance_;
  const std::vector<client::ActionChunk> expected_;
};

class RecordingVerifier final : public Verifier {
 public:
  RecordingVerifier(std::vector<client::RecordedCall> calls, double tolerance)
      : calls_(std::move(calls)), tolerance_(tolerance) {}

  Expectation Prepare(int robot, std::uint64_t sequence,
                      client::ObservationIn* observation) override {
    const client::RecordedCall& call =
        calls_[(robot + sequence) % calls_.size()];
    client::ObservationIn repeated = call.observation;
    repeated.policy = observation->policy;
    repeated.robot_id = observation->robot_id;
    repeated.request_id = observation->request_id;
    repeated.sequence = observation->sequence;
    *observation = std::move(repeated);
    return [&call, tolerance = tolerance_](const client::ActionChunk& chunk) {
      return client::LargestDifference(*call.actions, chunk) <= tolerance;
    };
  }

 private:
  const std::vector<client::RecordedCall> calls_;
  const double tolerance_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Verifier>> MakeHashVerifier(
    const v1::PolicyInfo& info,
    const std::vector<client::ObservationIn>& observations) {
  if (info.noise_shape_size() != 2) {
    return absl::FailedPreconditionError(absl::StrCat(
        "noise_shape: got ", info.noise_shape_size(), " dimensions, want 2"));
  }
  std::vector<HashVerifier::Robot> robots;
  for (const client::ObservationIn& observation : observations) {
    HashVerifier::Robot& robot = robots.emplace_back();
    for (double value : observation.state) {
      if (std::abs(value) > 1 || value * 64 != std::round(value * 64)) {
        return absl::InvalidArgumentError(
            absl::StrCat("--verify=hash: got state ", value,
                         ", want multiples of 1/64 in [-1, 1]"));
      }
      robot.state.push_back(value);
    }
    if (absl::Status status = HashImages(info, observation, &robot);
        !status.ok()) {
      return status;
    }
  }
  return std::make_unique<HashVerifier>(info.noise_shape(0),
                                        info.noise_shape(1), std::move(robots));
}

absl::StatusOr<std::unique_ptr<Verifier>> MakeAloneVerifier(
    client::PolicyClient& client, double tolerance,
    std::vector<client::ObservationIn>* observations) {
  std::vector<client::ActionChunk> expected;
  for (std::size_t robot = 0; robot < observations->size(); ++robot) {
    client::ObservationIn& observation = (*observations)[robot];
    observation.start = std::uint64_t{robot};
    auto chunk = client.Infer(observation);
    if (!chunk.ok()) return chunk.status();
    expected.push_back(*std::move(chunk));
  }
  auto verifier =
      std::make_unique<AloneVerifier>(tolerance, std::move(expected));
  if (absl::Status status = verifier->CheckDistinct(); !status.ok()) {
    return status;
  }
  return verifier;
}

absl::StatusOr<std::unique_ptr<Verifier>> MakeRecordingVerifier(
    std::vector<client::RecordedCall> calls, double tolerance) {
  std::erase_if(calls, [](const client::RecordedCall& call) {
    return !call.actions.has_value();
  });
  if (calls.empty()) {
    return absl::InvalidArgumentError(
        "--recording: got no call that was answered, want one or more");
  }
  return std::make_unique<RecordingVerifier>(std::move(calls), tolerance);
}

}  // namespace piserve::load
