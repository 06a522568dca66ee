// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "batching/task.h"
#include "model/observation.h"
#include "model/policy.h"

namespace piserve::server {

// One request, free of any transport. Produced by a front's codec, judged
// and answered by Inference.
struct InferenceRequest {
  std::string policy;        // empty: the only one
  std::string model_digest;  // empty: no pin
  std::string request_id;
  std::string robot_id;
  std::string episode_id;
  std::string traceparent;
  std::string identity;  // authenticated client; empty without credentials
  std::string peer;      // address, for fairness where nothing else is known
  std::uint64_t sequence = 0;
  batching::Class priority = batching::Class::kControl;
  bool supersede_older = false;
  absl::Duration age;  // at receipt
  absl::Duration max_age = absl::InfiniteDuration();
  absl::Time received;                           // batching::Clock
  absl::Time deadline = absl::InfiniteFuture();  // as the client set it
  Observation observation;                       // borrows `storage`
  std::shared_ptr<const void> storage;
  std::size_t bytes = 0;  // of the message as received
  // `storage` lives until the answer, not only until images are decoded, so
  // `bytes` count as long.
  bool storage_kept = false;
  // Given noise [H, action_dim], a seed, or neither.
  std::variant<std::monostate, std::vector<float>, std::uint64_t> start;
  std::vector<std::uint32_t> noise_shape;  // as given, to be checked
  std::optional<std::uint32_t> num_steps;
};

struct InferenceReply {
  std::vector<float> actions;  // [horizon, dim], robot units, finite
  int horizon = 0;
  int dim = 0;
  std::optional<std::uint64_t> seed;
  std::string policy;
  std::string model_digest;
  absl::Duration deadline_served;
  int wave_rows = 0;
  int graph_rows = 0;
  int num_steps = 0;
  std::vector<StageDuration> stages;
};

// From a request to its one answer: checks, admission, preparation on a bounded
// pool, batching, the policy, and back to robot units.
class Inference {
 public:
  // Fires exactly once, on any thread; must not block.
  using Done = std::function<void(absl::StatusOr<InferenceReply>)>;

  // Cancels a request that still waits; one that is being computed is answered
  // as usual. Callable from any thread, any number of times, also after Done.
  using Cancel = std::function<void()>;

  virtual ~Inference() = default;

  // Never blocks. Done may fire before it returns.
  virtual Cancel Start(InferenceRequest request, Done done) = 0;
};

}  // namespace piserve::server
