// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <string>

#include "absl/status/status.h"
#include "model/checkpoint/weights.h"

namespace piserve::engine {

// Brings tensors of a checkpoint to the current device, rounded as openpi's
// BF16 mode rounds them (docs/pi0.md 2.1). A synthetic tensor is made on the
// device. The first failure sticks: later calls return undefined tensors.
class TensorLoader {
 public:
  // Borrows `weights` for its own life.
  explicit TensorLoader(const checkpoint::Weights& weights)
      : weights_(weights) {}

  // Of paligemma_with_expert: bf16, or bf16 values in an fp32 tensor.
  at::Tensor Bf16(const std::string& name);
  at::Tensor Rounded(const std::string& name);

  // An outer projection: fp32 as the file has it.
  at::Tensor Outer(const std::string& name);

  const absl::Status& status() const { return status_; }
  // The tensor that was asked for last.
  const std::string& last() const { return last_; }

 private:
  template <typename Make>
  at::Tensor Guard(const std::string& name, Make make);
  at::Tensor Copied(const std::string& name);

  const checkpoint::Weights& weights_;
  std::string last_;
  absl::Status status_;
};

}  // namespace piserve::engine
