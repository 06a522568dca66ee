// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <string>

#include "absl/status/status.h"
#include "model/checkpoint/weights.h"
#include "model/reference/options.h"

namespace piserve::reference {

// Weights as tensors of the dtypes that the mode wants (docs/pi0.md 2.1). A
// tensor that already has its dtype and lives on the CPU is used where it lies;
// any other is converted once.
//
// The first failure sticks: later calls return undefined tensors, and the owner
// asks status() when it has gathered all.
// Source: openpi gemma_pytorch.py, to_bfloat16_for_selected_params.
class Parameters {
 public:
  // Borrows `weights` for its own life only; tensors keep their memory alive.
  Parameters(const checkpoint::Weights& weights, const Options& options)
      : weights_(weights), options_(options) {}

  // By canonical name.
  at::Tensor Get(const std::string& name);

  // Rounded as Get rounds, but of the narrowest dtype that holds the values: a
  // table whose rows are widened when they are looked up.
  at::Tensor GetTable(const std::string& name);

  const checkpoint::Weights& weights() const { return weights_; }
  const Options& options() const { return options_; }
  const absl::Status& status() const { return status_; }

 private:
  at::Tensor Find(const std::string& name);
  bool RoundsToBf16(const std::string& name) const;

  const checkpoint::Weights& weights_;
  Options options_;
  absl::Status status_;
};

}  // namespace piserve::reference
