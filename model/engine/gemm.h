// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cublasLt.h>
#include <cuda_runtime.h>

#include <cstddef>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/engine/gemm_shape.h"

namespace piserve::engine {

struct GemmOperands {
  const void* x = nullptr;
  const void* w = nullptr;
  const void* bias = nullptr;  // [n] bf16, for the epilogues that name it
  void* y = nullptr;
  float alpha = 1;
};

// cuBLASLt with one fixed algorithm a shape. Splits of K are reduced in a fixed
// order, the same for every tile, so a row's result does not depend on its
// place and a replay is bit-identical.
class Gemm {
 public:
  // An algorithm as cuBLASLt's opaque bytes: what a plan keeps on disk.
  using Algorithm = cublasLtMatmulAlgo_t;

  // Candidates of cuBLASLt's heuristic, best guess first, that need at most
  // `workspace_bytes`. INTERNAL if there is none.
  static absl::StatusOr<std::vector<Algorithm>> Candidates(
      cublasLtHandle_t handle, const GemmShape& shape,
      std::size_t workspace_bytes);

  static absl::StatusOr<std::unique_ptr<Gemm>> Create(cublasLtHandle_t handle,
                                                      const GemmShape& shape,
                                                      const Algorithm& algo);
  ~Gemm();
  Gemm(const Gemm&) = delete;
  Gemm& operator=(const Gemm&) = delete;

  const Algorithm& algorithm() const { return algo_; }

  // Enqueues. `workspace` must hold the bytes given to Candidates and be used
  // by this stream only.
  absl::Status Run(const GemmOperands& operands, void* workspace,
                   std::size_t workspace_bytes, cudaStream_t stream) const;

 private:
  struct Descriptors;
  Gemm(cublasLtHandle_t handle, const GemmShape& shape, const Algorithm& algo,
       std::unique_ptr<Descriptors> descriptors);

  cublasLtHandle_t handle_;
  GemmShape shape_;
  Algorithm algo_;
  std::unique_ptr<Descriptors> descriptors_;
};

}  // namespace piserve::engine
