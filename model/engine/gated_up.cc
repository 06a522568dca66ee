// SPDX-License-Identifier: Apache-2.0
#include "model/engine/gated_up.h"

#include "model/engine/buffers.h"
#include "model/kernels/prefix.h"
#include "model/kernels/weight_gemm/geglu_gemm.h"

namespace piserve::engine {

using Bf16 = __nv_bfloat16;

void EnqueueGatedUp(const GatedUp& g, Launcher& launcher) {
  if (g.order == GateUp::kPacked) {
    launcher.Run(g.what, [&](cudaStream_t stream) {
      return kernels::LaunchGegluGemm({.x = Data<Bf16>(g.x),
                                       .w = Data<Bf16>(g.w),
                                       .y = Data<Bf16>(g.y),
                                       .tokens = g.tokens,
                                       .in = g.size.width,
                                       .out = g.size.mlp},
                                      stream);
    });
    return;
  }
  launcher.Gemm(
      {.m = g.tokens,
       .n = 2 * g.size.mlp,
       .k = g.size.width,
       .output = Output::kReplace},
      {.x = g.x.data_ptr(), .w = g.w.data_ptr(), .y = g.gate_up.data_ptr()});
  launcher.Run(g.what, [&](cudaStream_t stream) {
    return kernels::LaunchGeglu(Data<Bf16>(g.gate_up), Data<Bf16>(g.y),
                                g.tokens, g.size.mlp, stream);
  });
}

}  // namespace piserve::engine
