// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>
#include <cublasLt.h>
#include <cuda_runtime.h>

#include <cstddef>
#include <map>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/engine/gemm.h"

namespace piserve::engine {

// The GEMMs of an engine: for every shape one algorithm, chosen once by timing
// (or taken from a plan) and then fixed. Not thread-safe; one stream at a time.
class GemmBook {
 public:
  // Whether a shape that is met for the first time is timed or refused.
  enum class Unknown { kTime, kRefuse };

  // How an algorithm is chosen among cuBLASLt's candidates.
  enum class Choice { kFastest, kFirstGuess };

  // Takes 160 MiB of the current device. Throws as ATen does.
  static absl::StatusOr<std::unique_ptr<GemmBook>> Create(
      Choice choice = Choice::kFastest);
  ~GemmBook();
  GemmBook(const GemmBook&) = delete;
  GemmBook& operator=(const GemmBook&) = delete;

  void set_unknown(Unknown unknown) { unknown_ = unknown; }

  // Enqueues. INTERNAL if the shape is unknown and may not be timed, or if
  // cuBLASLt fails. Timing runs the GEMM many times on these operands, cold
  // weights each time, and waits for the device: never under capture.
  absl::Status Run(const GemmShape& shape, const GemmOperands& operands,
                   cudaStream_t stream);

  // The algorithms, to be kept in a plan and put back by Add.
  std::map<GemmShape, Gemm::Algorithm> Algorithms() const;
  absl::Status Add(const GemmShape& shape, const Gemm::Algorithm& algorithm);

 private:
  explicit GemmBook(Choice choice) : choice_(choice) {}
  absl::StatusOr<Gemm::Algorithm> Fastest(const GemmShape& shape,
                                          const GemmOperands& operands,
                                          cudaStream_t stream);
  absl::StatusOr<float> Time(const Gemm& gemm, const GemmOperands& operands,
                             cudaStream_t stream);

  const Choice choice_;
  cublasLtHandle_t handle_ = nullptr;
  cudaEvent_t start_ = nullptr;
  cudaEvent_t end_ = nullptr;
  at::Tensor workspace_;
  at::Tensor flush_;  // written between runs, so that weights come from HBM
  Unknown unknown_ = Unknown::kTime;
  std::map<GemmShape, std::unique_ptr<Gemm>> gemms_;
};

}  // namespace piserve::engine
