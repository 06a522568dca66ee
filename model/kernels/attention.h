// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime.h>

#include "model/kernels/suffix_attention.h"

namespace piserve::kernels {

// The kernels behind suffix and prefix attention. Both keep the promises made
// in suffix_attention.h.

struct AttentionArgs : SuffixAttentionArgs {
  // [rows], device: tokens of a row that matter. Tiles of queries wholly beyond
  // become zeros. Null: all.
  const int* query_len = nullptr;
  // Two words of device memory, zero before the first call and for calls of one
  // stream only, by which the second of a call's two launches knows that the
  // work before both has ended, and need not wait for the first's end. Null: it
  // waits.
  unsigned* begun = nullptr;
};

// mma.sync, short tiles, keys split eight ways at one row: for few queries, and
// for head_dim 32. Ignores query_len.
cudaError_t LaunchTiledAttention(const AttentionArgs& args,
                                 cudaStream_t stream);

// wgmma, 128 or 64 query rows at a time: for many queries, of head_dim 256 and
// a number of heads that divides 64.
bool WarpgroupAttentionSupports(const AttentionArgs& args);
cudaError_t LaunchWarpgroupAttention(const AttentionArgs& args,
                                     cudaStream_t stream);

}  // namespace piserve::kernels
