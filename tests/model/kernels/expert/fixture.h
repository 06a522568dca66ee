// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <vector>

#include "tests/model/kernels/device.h"
#include "tests/model/kernels/expert/twin.h"

namespace piserve::kernels {

// Fills with normal numbers of this deviation, the same for the same seed.
void FillNormal(float* out, long count, float deviation, unsigned seed);
void FillNormal(Bf16* out, long count, float deviation, unsigned seed);

// A full-size expert with random weights, made on the device.
class RandomExpert {
 public:
  explicit RandomExpert(ExpertForm form);

  ExpertForm form() const { return form_; }
  const ExpertWeights& weights() const { return weights_; }
  // The pointers of ExpertArgs that belong to the model.
  ExpertArgs ModelArgs() const;

  static constexpr int kTimes = 12;  // rows of the per-step tables

 private:
  template <typename T>
  T* Make(long count, float deviation);

  ExpertForm form_;
  unsigned seed_ = 1;
  std::vector<std::unique_ptr<DeviceArray<char>>> memory_;
  ExpertWeights weights_;
  ExpertArgs args_;
};

// One call's inputs and outputs. The cache is NaN from `prefix` on.
class RandomCall {
 public:
  RandomCall(const RandomExpert& expert, int horizon, int cache_len,
             ExpertCall call, float key_deviation = 1);

  TwinArgs Twin() const;
  ExpertArgs args() const { return args_; }
  cudaError_t Launch(cudaStream_t stream = nullptr) const;
  // Writes the noise again; a launch turns it into actions.
  void ResetNoise();
  // Velocities and actions as RunTwin gives them.
  std::vector<float> Result() const;

 private:
  const RandomExpert& expert_;
  ExpertCall call_;
  ExpertArgs args_;
  std::vector<float> noise_;
  DeviceArray<Bf16> keys_, values_;
  DeviceArray<float2> rope_;
  DeviceArray<float> x_, velocity_, state_;
  DeviceArray<ExpertCall> device_call_;
  DeviceArray<char> workspace_;
};

// Root mean square of a - b over that of b.
double RelativeError(const std::vector<double>& a,
                     const std::vector<double>& b);

}  // namespace piserve::kernels
