// SPDX-License-Identifier: Apache-2.0
#include "model/flow.h"

#include <cmath>
#include <numbers>

namespace piserve {
namespace {

// torch's linspace from 0 to 1: the upper half counts down from the end.
double Fraction(int i, int count) {
  if (count == 1) return 0;
  const double step = 1.0 / (count - 1);
  return i < count / 2 ? i * step : 1.0 - (count - 1 - i) * step;
}

}  // namespace

FlowSteps FlowStepsOf(int steps) {
  FlowSteps flow;
  flow.dt = static_cast<float>(-1.0 / steps);
  float t = 1.0f;
  for (int i = 0; i < steps; ++i) {
    flow.times.push_back(t);
    t += flow.dt;
  }
  return flow;
}

std::vector<float> TimeEmbedding(float t, int width) {
  constexpr double kMinPeriod = 4e-3, kMaxPeriod = 4.0;
  const int half = width / 2;
  std::vector<float> embedding(2 * half);
  for (int i = 0; i < half; ++i) {
    const double period =
        std::pow(kMaxPeriod / kMinPeriod, Fraction(i, half)) * kMinPeriod;
    const double frequency = 1.0 / period * 2.0 * std::numbers::pi;
    const double angle = frequency * static_cast<double>(t);
    embedding[i] = static_cast<float>(std::sin(angle));
    embedding[half + i] = static_cast<float>(std::cos(angle));
  }
  return embedding;
}

}  // namespace piserve
