// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "absl/status/statusor.h"
#include "model/checkpoint/weights.h"
#include "model/variant.h"

namespace piserve::engine {

// A network's weights on the device, laid out as its GEMMs read them: bf16
// [out, in], what is multiplied with the same input merged along `out`. Norms,
// patch positions and outer projections are fp32.

struct VisionWeights {
  struct Norm {
    at::Tensor weight, bias;  // fp32 [width]
  };
  // Of normalised tokens: the norm's affine is in it.
  struct Projection {
    at::Tensor weight, bias;  // [out, width], [out]
    at::Tensor sums;          // fp32 [out], of the weight's rows
  };
  struct Layer {
    Projection qkv;            // 3 * heads * padded head
    at::Tensor out, out_bias;  // [width, heads * padded head]
    Projection fc1;            // padded mlp
    at::Tensor fc2, fc2_bias;  // [width, padded mlp]
  };
  at::Tensor patch;     // [width, patch_pitch], zero past 3 * patch^2
  at::Tensor position;  // fp32 [tokens, width], the convolution's bias minus
                        // the sum of its weights included
  std::vector<Layer> layers;
  Norm plain_norm;  // no affine
  Norm post_norm;
  at::Tensor projector, projector_bias;  // [VLM width, width]

  // Sizes rounded up to what a 16-byte access wants, or such that a row begins
  // with a line of 128 bytes, without which a GEMM's copies touch one line more
  // for each; the rest holds zeros.
  int head = 0;         // elements of a head; an access
  int mlp = 0;          // a line
  int patch_pitch = 0;  // a line
};

// Order of the rows of a merged gate and up projection.
enum class GateUp {
  kGateFirst,
  kPacked,  // as kernels/weight_gemm/geglu_gemm.h wants them
};

struct GemmaWeights {
  struct Layer {
    at::Tensor input_gain;  // fp32 [width], 1 + w; undefined with adaRMS
    at::Tensor qkv;         // [(heads + 2 kv_heads) * head_dim, width]; in the
                            // VLM's last layer the keys and values only
    at::Tensor o;           // [width, heads * head_dim]
    at::Tensor post_gain;
    at::Tensor gate_up;  // [2 * mlp, width]
    at::Tensor down;     // [width, mlp]
  };
  std::vector<Layer> layers;
  GateUp gate_up = GateUp::kGateFirst;  // of every layer
  at::Tensor final_gain;                // fp32; expert without adaRMS only
};

// Outer projections, fp32, and what of them is folded.
struct SuffixWeights {
  at::Tensor action_in;  // [width, action_dim]: pi0: times the action
                         // half of action_time_mlp_in
  at::Tensor mix_out, mix_out_bias;        // pi0: bf16 action_time_mlp_out
  at::Tensor state, state_bias;            // pi0: [width, action_dim]
  at::Tensor action_out, action_out_bias;  // [action_dim, width]
  // [action_dim, width]: action_in and state as kernels/suffix.h wants them.
  at::Tensor action_in_transposed, state_transposed;
};

// What changes from step to step, for all step counts one after another.
struct StepTables {
  std::vector<int> first;  // row of each step count's first step
  at::Tensor action_bias;  // fp32 [rows or 1, width]: added to action_in x
  at::Tensor modulation;   // pi0.5: fp32 [rows, norms, 3, width]: scale,
                           // shift, gate of each adaRMS norm in order
  at::Tensor dt;           // fp32 [rows]
};

struct EngineWeights {
  VisionWeights vision;
  at::Tensor embedding;  // bf16 [vocab, VLM width]
  GemmaWeights vlm;
  GemmaWeights expert;
  SuffixWeights suffix;
  StepTables steps;
};

// Brings the weights to the current device, synthetic ones made there.
// `step_counts` says for which counts tables are made, `gate_up` how rows of
// gate and up should lie; kPacked only where there is a kernel for the sizes.
// FAILED_PRECONDITION that names the tensor if memory does not suffice; what
// Weights::Find returns.
absl::StatusOr<EngineWeights> LoadWeights(const checkpoint::Weights& weights,
                                          const std::vector<int>& step_counts,
                                          GateUp gate_up);

}  // namespace piserve::engine
