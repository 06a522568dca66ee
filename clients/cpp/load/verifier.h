// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "clients/cpp/cli/recorded.h"
#include "clients/cpp/piserve/client.h"
#include "clients/cpp/piserve/observation.h"
#include "piserve/v1/policy.pb.h"

namespace piserve::load {

// What a reply's actions must be.
using Expectation = std::function<bool(const client::ActionChunk&)>;

// Tells whether a reply answers its own observation. Prepare is called by one
// thread, expectations by any.
class Verifier {
 public:
  virtual ~Verifier() = default;

  // Makes `observation` of `robot` ready to send for the `sequence`-th time and
  // says what its answer must be.
  virtual Expectation Prepare(int robot, std::uint64_t sequence,
                              client::ObservationIn* observation) = 0;
};

// Against a server whose policy answers with row_hash.h: fresh noise with every
// request, so that no two answers are alike. INVALID_ARGUMENT unless every
// image is RGB8 of 224x224 and every state value on the grid.
absl::StatusOr<std::unique_ptr<Verifier>> MakeHashVerifier(
    const v1::PolicyInfo& info,
    const std::vector<client::ObservationIn>& observations);

// Against any policy that repeats itself: asks for each observation alone, with
// a seed of its own, and takes that for what the answer must be under load, up
// to `tolerance` in every action (0: the same bits). FAILED_PRECONDITION if the
// expected chunks of two robots are too alike to be told apart.
absl::StatusOr<std::unique_ptr<Verifier>> MakeAloneVerifier(
    client::PolicyClient& client, double tolerance,
    std::vector<client::ObservationIn>* observations);

// Repeats recorded calls, each robot all of them in order and from another one
// on, and compares with the answers of then, up to `tolerance`.
// INVALID_ARGUMENT if none of them was answered.
absl::StatusOr<std::unique_ptr<Verifier>> MakeRecordingVerifier(
    std::vector<client::RecordedCall> calls, double tolerance);

}  // namespace piserve::load
