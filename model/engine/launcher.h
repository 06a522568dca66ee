// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime.h>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "model/engine/cuda_status.h"
#include "model/engine/gemm_book.h"

namespace piserve::engine {

// Enqueues kernels and GEMMs on one stream. The first failure sticks: what
// comes after it is not enqueued, and whoever captures or waits asks status().
class Launcher {
 public:
  // `gemms` is borrowed.
  Launcher(GemmBook& gemms, cudaStream_t stream)
      : gemms_(gemms), stream_(stream) {}

  cudaStream_t stream() const { return stream_; }
  bool ok() const { return status_.ok(); }
  const absl::Status& status() const { return status_; }

  // `launch` takes the stream and returns a cudaError_t.
  template <typename Launch>
  void Run(absl::string_view what, Launch launch) {
    if (ok()) status_ = CudaStatus(launch(stream_), what);
  }

  void Gemm(const GemmShape& shape, const GemmOperands& operands);

 private:
  GemmBook& gemms_;
  cudaStream_t stream_;
  absl::Status status_;
};

}  // namespace piserve::engine
