// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <memory>

#include "absl/status/statusor.h"
#include "model/engine/buffers.h"
#include "model/engine/launcher.h"
#include "model/engine/weights.h"
#include "model/variant.h"

namespace piserve::engine {

// All denoising steps of a few rows as one kernel, where there is one for the
// shape: kernels/expert. Holds the expert's weights a second time, packed in
// the order in which the kernel reads them.
class PersistentDenoise {
 public:
  // Whether there is a kernel for waves of `rows` rows on a device of so many
  // multiprocessors.
  static bool Supports(const Variant& variant, int rows, int processors);

  // Device memory that one for waves of up to `rows` rows takes, up to some
  // hundred KB.
  static double NeededBytes(const EngineWeights& weights, int rows);

  // For waves of up to `rows` rows. Enqueues the packing on the launcher's
  // stream, which must be torch's current one. Borrows weights and buffers.
  // Throws as ATen does.
  static absl::StatusOr<std::unique_ptr<PersistentDenoise>> Create(
      const Variant& variant, const EngineWeights& weights, int rows,
      Buffers& buffers, Launcher& launcher);

  int most_rows() const { return most_rows_; }
  // Of the weights' second copy.
  std::size_t packed_bytes() const { return packed_.nbytes(); }

  // x, keys, values of rows 0 .. rows-1 -> x after all steps that Buffers::call
  // asks for.
  void Enqueue(int rows, Launcher& launcher) const;

 private:
  PersistentDenoise(const Variant& variant, const EngineWeights& weights,
                    int rows, Buffers& buffers);
  void Pack(Launcher& launcher);

  const Variant& variant_;
  const EngineWeights& weights_;
  const int most_rows_;
  Buffers& buffers_;
  at::Tensor packed_, workspace_;  // bytes
  at::Tensor norm_;                // pi0: fp32 [norms, width], w
  at::Tensor shift_;               // pi0.5: fp32
  at::Tensor mix_bias_;            // pi0: fp32 [width]
};

}  // namespace piserve::engine
