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

// Inputs and outputs of one call for each row. A row's cache is NaN from its
// `prefix` on.
class RandomCall {
 public:
  RandomCall(const RandomExpert& expert, int horizon, int cache_len,
             std::vector<ExpertCall> calls, float key_deviation = 1);
  RandomCall(const RandomExpert& expert, int horizon, int cache_len,
             ExpertCall call, float key_deviation = 1)
      : RandomCall(expert, horizon, cache_len, std::vector{call},
                   key_deviation) {}

  TwinArgs Twin() const;  // of the first row
  ExpertArgs args() const { return args_; }
  cudaError_t Launch(cudaStream_t stream = nullptr) const;
  // The same memory, but of all rows only this one.
  cudaError_t LaunchAlone(int row) const;
  // Writes the noise again; a launch turns it into actions.
  void ResetNoise();
  // Velocities and actions, for one row as RunTwin gives them.
  std::vector<float> Result() const;

 private:
  const RandomExpert& expert_;
  std::vector<ExpertCall> calls_;
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
