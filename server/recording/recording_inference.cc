// SPDX-License-Identifier: Apache-2.0
#include "server/recording/recording_inference.h"

#include <cstddef>
#include <memory>
#include <utility>
#include <variant>
#include <vector>

#include "absl/time/clock.h"
#include "server/recording/recording_codec.h"

namespace piserve::server {
namespace {

// What a record keeps in memory until it is written, but for small fields.
std::size_t BytesKept(const InferenceRequest& request,
                      const absl::StatusOr<InferenceReply>& reply) {
  std::size_t bytes =
      request.bytes + request.observation.state.size() * sizeof(double);
  if (const auto* noise = std::get_if<std::vector<float>>(&request.start)) {
    bytes += noise->size() * sizeof(float);
  }
  if (reply.ok()) bytes += reply->actions.size() * sizeof(float);
  return bytes;
}

}  // namespace

Inference::Cancel RecordingInference::Start(InferenceRequest request,
                                            Done done) {
  const std::int64_t now_us = absl::ToUnixMicros(absl::Now());
  request.storage_kept = true;
  auto kept = std::make_shared<const InferenceRequest>(request);
  return inference_.Start(
      std::move(request),
      [this, now_us, kept = std::move(kept),
       done = std::move(done)](absl::StatusOr<InferenceReply> reply) {
        ring_.Add(now_us, BytesKept(*kept, reply), [now_us, kept, reply] {
          return ToRecording(now_us, *kept, reply).SerializeAsString();
        });
        done(std::move(reply));
      });
}

}  // namespace piserve::server
