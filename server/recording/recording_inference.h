// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "server/inference.h"
#include "server/recording/record_ring.h"

namespace piserve::server {

// An Inference that keeps each request with its answer in a ring. Costs the
// request's way a copy of its small fields; images are read by the ring's
// thread, from the request's own storage, which counts against the queue's
// bytes until the answer and against the ring's from then on.
class RecordingInference final : public Inference {
 public:
  // Both borrowed.
  RecordingInference(Inference& inference, RecordRing& ring)
      : inference_(inference), ring_(ring) {}

  Cancel Start(InferenceRequest request, Done done) override;

 private:
  Inference& inference_;
  RecordRing& ring_;
};

}  // namespace piserve::server
