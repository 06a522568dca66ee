// SPDX-License-Identifier: Apache-2.0
#include "tests/model/engine/gemm_roof.h"

#include <ATen/ops/empty_like.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/randn.h>
#include <c10/core/InferenceMode.h>
#include <cuda_runtime.h>

#include <exception>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "model/engine/cuda_status.h"
#include "model/engine/energy_meter.h"

namespace piserve::engine {
namespace {

constexpr int kSize = 8192;
constexpr int kBatch = 20;  // products between looks at the clock, about 30 ms

absl::StatusOr<GemmRoof> Measure(absl::Duration duration) {
  const c10::InferenceMode inference;
  const auto normal = [] {
    return at::randn({kSize, kSize},
                     at::TensorOptions(at::kBFloat16).device(at::kCUDA));
  };
  const at::Tensor a = normal(), b = normal();
  at::Tensor c = at::empty_like(a);
  const EnergyMeter meter(PciBusId(0));
  GemmRoof roof;
  int products = 0;
  double joules = 0;
  const absl::Time start = absl::Now();
  absl::Time counted = start;
  for (absl::Time now = start; now < start + duration; now = absl::Now()) {
    if (products == 0 && now - start > duration / 2) {
      counted = now;
      joules = meter.Joules().value_or(0);
    }
    for (int i = 0; i < kBatch; ++i) at::mm_out(c, a, b);
    roof.mhz = meter.ClockMhz().value_or(0);
    absl::Status s = CudaStatus(cudaDeviceSynchronize(), "the GEMM roof");
    if (!s.ok()) return s;
    if (counted != start) products += kBatch;
  }
  const double seconds = absl::ToDoubleSeconds(absl::Now() - counted);
  roof.tflops = 2.0 * kSize * kSize * kSize * products / seconds / 1e12;
  roof.watts = (meter.Joules().value_or(0) - joules) / seconds;
  return roof;
}

}  // namespace

absl::StatusOr<GemmRoof> MeasureGemmRoof(absl::Duration duration) {
  try {
    return Measure(duration);
  } catch (const std::exception& e) {
    return absl::InternalError(absl::StrCat("the GEMM roof: ", e.what()));
  }
}

}  // namespace piserve::engine
