// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "model/kernels/expert/expert.h"

namespace piserve::kernels {

// Where the twin rounds: nowhere, or to bf16 wherever openpi's eager PyTorch
// does (docs/pi0.md 2.6 to 2.12).
enum class Rounding { kNone, kOpenpi };

// The plain matrices beside LaunchExpert's arguments; all on the device.
struct TwinArgs {
  ExpertArgs args;
  ExpertWeights weights;
  ExpertCall call;  // what args.call points to
};

// What the expert computes, one element at a time in double precision: the
// scalar definition, run by one device thread an element. Noise is read from
// args.x, which stays as it is. Returns every step's velocity and then the
// actions, [steps + 1, H, 32].
std::vector<double> RunTwin(const TwinArgs& twin, Rounding rounding);

}  // namespace piserve::kernels
