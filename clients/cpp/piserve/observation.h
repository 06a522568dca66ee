// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/time/time.h"
#include "clients/cpp/piserve/bytes.h"
#include "piserve/v1/policy.pb.h"

namespace piserve::client {

// One camera's view, as the camera gave it.
struct ImageIn {
  std::string name;  // as GetPolicyInfo lists it
  v1::ImageEncoding encoding = v1::IMAGE_ENCODING_RGB8;
  int width = 0;   // px; may stay 0 for JPEG and PNG
  int height = 0;  // px
  Bytes data;
};

// Start noise, standard normal, row-major [horizon, action_dim].
struct Noise {
  int horizon = 0;
  int action_dim = 0;  // the model's: PolicyInfo.noise_shape
  std::vector<float> values;
};

// What a robot sees. Robot units throughout; see ObservationRequest in
// proto/piserve/v1/policy.proto for every field's range.
struct ObservationIn {
  std::string policy;        // empty: the only one
  std::string model_digest;  // empty: any weights will do
  std::string request_id;    // empty: streams number their requests
  std::string robot_id;
  std::string episode_id;
  // Must rise within a robot, restarts included, for `supersede_older`: else a
  // restarted robot's observations are those that are superseded. The wall
  // clock's nanoseconds will do; the client does not number by itself.
  std::uint64_t sequence = 0;
  v1::RequestClass request_class = v1::REQUEST_CLASS_CONTROL;
  bool supersede_older = false;
  // When the cameras fired. With it the server knows the observation's age at
  // each try, and can honour `max_age`.
  std::optional<std::chrono::steady_clock::time_point> captured_at;
  std::optional<absl::Duration> max_age;
  std::string traceparent;

  std::optional<std::string> prompt;  // absent: the policy's default
  std::vector<double> state;
  std::vector<ImageIn> images;
  // Given noise, a seed, or neither: the server draws a seed.
  std::variant<std::monostate, Noise, std::uint64_t> start;
  std::optional<std::uint32_t> num_steps;
};

// Actions to carry out one after another, in robot units, and how they came to
// be.
struct ActionChunk {
  int horizon = 0;
  int action_dim = 0;
  std::vector<float> values;  // [horizon, action_dim], all finite

  std::string request_id;
  std::optional<std::uint64_t> seed;  // absent when noise was given
  std::string policy;
  std::string model_digest;
  absl::Duration deadline_served;
  int wave_rows = 0;   // requests computed together with this one
  int graph_rows = 0;  // rows that really ran
  int num_steps = 0;
  std::vector<std::pair<std::string, absl::Duration>> stages;

  // Actions of step `t`, 0 <= t < horizon.
  std::span<const float> step(int t) const {
    return std::span(values).subspan(static_cast<std::size_t>(t) * action_dim,
                                     action_dim);
  }
};

struct CallOptions {
  // Budget from the call to its answer, a retry included. Absent: the client's
  // default. There is no call without one.
  std::optional<absl::Duration> timeout = std::nullopt;
  int attempts = 2;  // 1: never tried once more
};

}  // namespace piserve::client
