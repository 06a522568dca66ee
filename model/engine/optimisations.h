// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace piserve::engine {

// What makes the engine fast. Each can be switched off, to see what it is
// worth: a server has all of them on. Actions stay the same within what bf16
// makes of another order of summation.
struct Optimisations {
  // A wave is a few captured graphs; off: kernel by kernel from the host.
  bool graphs = true;
  // Inside a graph a kernel may begin while the one before it ends
  // (programmatic dependent launch); off: it waits. No meaning without graphs.
  bool dependent_launch = true;
  // A wave takes the smallest graph that holds its cameras and prompts; off:
  // that of all cameras and the longest prompt, masked.
  bool compaction = true;
  // pi0's state token is in the first step only; off: in every one.
  bool state_once = true;
  // A GEMM's algorithm is the fastest of cuBLASLt's candidates; off: the first.
  bool timed_gemms = true;
  // Attention by kernels of our own; off: torch's flash attention.
  bool own_attention = true;
  // GeGLU in the epilogue of the gate and up GEMMs; off: a kernel after.
  bool fused_geglu = true;
  // Prefill's down projection of few tokens is cut in two, and the next norm
  // adds the halves; the expert's projections to its residual are cut in four,
  // and clusters add those; off: cuBLASLt's products.
  bool split_sums = true;
  // Vision's layer norms in the GEMMs behind them, where a wave of tiles holds
  // those; off: kernels before.
  bool fused_norm = true;
  // Prefill's down projection and, of vision, fc1, fc2 and the one behind
  // attention, of many tokens, by larger tiles of our own; off: cuBLASLt's
  // products.
  bool large_tiles = true;
  // All steps of one row, or of a few where that is faster, in one kernel,
  // which brings its own attention; off: step by step.
  bool persistent_denoising = true;

  bool operator==(const Optimisations&) const = default;
};

}  // namespace piserve::engine
