// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <string>

#include "absl/status/statusor.h"
#include "clients/cpp/piserve/observation.h"
#include "grpcpp/support/byte_buffer.h"
#include "piserve/v1/policy.pb.h"

namespace piserve::client {

// Writes all of `observation` but its age, which depends on the moment of
// sending. Images are copied; streams do that.
void EncodeObservation(const ObservationIn& observation,
                       v1::ObservationRequest* request);

// Sets age_us as of `now`, if the observation says when it was captured.
void EncodeAge(const ObservationIn& observation,
               std::chrono::steady_clock::time_point now,
               v1::ObservationRequest* request);

// The bytes of an InferRequest to be sent at `now`, its images not copied: the
// bytes hold on to them.
grpc::ByteBuffer EncodeRequest(const ObservationIn& observation,
                               std::chrono::steady_clock::time_point now);

// INTERNAL, reason BAD_REPLY, if the actions are not a finite float32 [H, A]
// or answer another request than `request_id`: such a reply never drives a
// robot.
absl::StatusOr<ActionChunk> DecodeResult(const v1::InferResult& result,
                                         const std::string& request_id);

}  // namespace piserve::client
