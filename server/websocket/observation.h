// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string_view>

#include "absl/status/statusor.h"
#include "piserve/v1/policy.pb.h"
#include "server/inference.h"
#include "server/websocket/value.h"

namespace piserve::server::websocket {

// Reads the observation dicts that openpi's client sends for one policy. Only
// dtype and layout are settled here, as clients/python/piserve/observations.py
// does for gRPC: resizing and all else are the pipeline's. Keys that the policy
// does not use are dropped. Immutable, thread-safe.
// Source: openpi policies/{libero,droid,aloha}_policy.py, transforms.py
// (TokenizePrompt); docs/pi0.md 4.2.
class ObservationReader {
 public:
  // FAILED_PRECONDITION (ROBOT_UNKNOWN) if the policy's cameras are none of
  // LIBERO's, DROID's or ALOHA's.
  static absl::StatusOr<ObservationReader> Create(const v1::PolicyInfo& info);

  // A request that borrows `message`, which `storage` keeps alive. Sets policy,
  // observation, storage and bytes.
  //
  // INVALID_ARGUMENT as DecodeMap and ndarray.h say, and with the dict's key:
  // KEY_MISSING, CAMERA_UNKNOWN, CAMERA_MISSING, STATE_LENGTH, IMAGE_TYPE,
  // PROMPT_TYPE.
  absl::StatusOr<InferenceRequest> Read(
      std::string_view message, std::shared_ptr<const void> storage) const;

 private:
  enum class Robot { kLibero, kDroid, kAloha };
  struct Storage;

  ObservationReader(const v1::PolicyInfo& info, Robot robot);

  absl::StatusOr<std::vector<double>> ReadState(const Map& map) const;
  absl::StatusOr<std::vector<double>> ReadDroidState(const Map& map) const;
  absl::Status ReadPrompt(const Map& map, Storage& storage,
                          Observation& out) const;
  absl::Status ReadImages(const Map& map, Storage& storage,
                          Observation& out) const;
  absl::Status CheckCameraNames(const Map& images) const;

  std::shared_ptr<const v1::PolicyInfo> info_;  // requests borrow its names
  Robot robot_;
  std::size_t state_dim_;
};

}  // namespace piserve::server::websocket
