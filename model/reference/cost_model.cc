// SPDX-License-Identifier: Apache-2.0
#include "model/reference/cost_model.h"

#include <algorithm>

namespace piserve::reference {

CostModel::Line CostModel::Line::Through(int x0, absl::Duration y0, int x1,
                                         absl::Duration y1) {
  const absl::Duration slope =
      std::max((y1 - y0) / (x1 - x0), absl::ZeroDuration());
  return {std::max(y1 - slope * x1, absl::ZeroDuration()), slope};
}

CostModel CostModel::Fit(int tokens_per_camera, const CostSample& small,
                         const CostSample& large) {
  const auto prefix = [&](const CostSample& sample) {
    return sample.cameras * tokens_per_camera + sample.prompt_tokens;
  };
  CostModel model;
  model.tokens_per_camera_ = tokens_per_camera;
  model.camera_ = large.times.vision / large.cameras;
  model.prefill_ = Line::Through(prefix(small), small.times.prefill,
                                 prefix(large), large.times.prefill);
  model.step_ = Line::Through(prefix(small), small.times.denoise / small.steps,
                              prefix(large), large.times.denoise / large.steps);
  return model;
}

absl::Duration CostModel::Predict(const WaveShape& shape) const {
  const int prefix = shape.cameras * tokens_per_camera_ + shape.prompt_tokens;
  const absl::Duration row = camera_ * shape.cameras + prefill_.At(prefix) +
                             step_.At(prefix) * shape.steps;
  return row * shape.rows;
}

}  // namespace piserve::reference
