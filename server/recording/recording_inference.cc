// SPDX-License-Identifier: Apache-2.0
#include "server/recording/recording_inference.h"

#include <memory>
#include <utility>

#include "absl/time/clock.h"
#include "server/recording/recording_codec.h"

namespace piserve::server {

Inference::Cancel RecordingInference::Start(InferenceRequest request,
                                            Done done) {
  const std::int64_t now_us = absl::ToUnixMicros(absl::Now());
  auto kept = std::make_shared<const InferenceRequest>(request);
  return inference_.Start(
      std::move(request),
      [this, now_us, kept = std::move(kept),
       done = std::move(done)](absl::StatusOr<InferenceReply> reply) {
        ring_.Add(now_us, [now_us, kept, reply] {
          return ToRecording(now_us, *kept, reply).SerializeAsString();
        });
        done(std::move(reply));
      });
}

}  // namespace piserve::server
