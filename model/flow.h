// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

namespace piserve {

// More are taken from no file and no request.
inline constexpr int kMaxFlowSteps = 1000;

// The Euler steps from noise (t = 1) to actions (t = 0) of one step count.
struct FlowSteps {
  float dt = 0;              // fp32(-1 / steps)
  std::vector<float> times;  // of each step; summed up in fp32, so that
                             // 1 - k/steps would have other bits
};

// steps >= 1. openpi goes on while t >= -dt / 2, which are as many steps up to
// 2000 at least.
// Source: openpi models_pytorch/pi0_pytorch.py, sample_actions (docs/pi0.md
// 2.12).
FlowSteps FlowStepsOf(int steps);

// Sine and cosine features of flow time t in [0, 1]: `width` values, float64
// until the last cast.
// Source: openpi models_pytorch/pi0_pytorch.py,
// create_sinusoidal_pos_embedding (docs/pi0.md 2.9).
std::vector<float> TimeEmbedding(float t, int width);

}  // namespace piserve
