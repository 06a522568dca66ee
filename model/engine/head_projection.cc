// SPDX-License-Identifier: Apache-2.0
#include "model/engine/head_projection.h"

#include "model/engine/buffers.h"
#include "model/kernels/weight_gemm/rope_gemm.h"

namespace piserve::engine {
namespace {

// From how many rows on one kernel is the faster: one row's 816 tokens are 80
// tiles for 132 multiprocessors.
constexpr int kFusedRows = 2;

}  // namespace

void EnqueueHeadProjection(const HeadProjection& p, Launcher& launcher) {
  kernels::RopeScatterArgs to = p.to;
  to.order = p.order.heads;
  if (to.order == kernels::HeadOrder::kPairs && to.rows >= kFusedRows) {
    launcher.Run(p.what, [&](cudaStream_t stream) {
      return kernels::LaunchRopeGemm({.x = Data<__nv_bfloat16>(p.x),
                                      .w = Data<__nv_bfloat16>(p.w),
                                      .in = p.size.width,
                                      .to = to},
                                     stream);
    });
    return;
  }
  launcher.Gemm({.m = to.rows * to.seq,
                 .n = (to.heads + 2 * to.kv_heads) * to.head_dim,
                 .k = p.size.width,
                 .output = Output::kReplace},
                {.x = p.x.data_ptr(), .w = p.w.data_ptr(), .y = to.qkv});
  launcher.Run(p.what, [&](cudaStream_t stream) {
    return kernels::LaunchRopeScatter(to, stream);
  });
}

}  // namespace piserve::engine
