// SPDX-License-Identifier: Apache-2.0
// Which kernel serves which attention. A choice depends on sizes alone.
#include "model/kernels/attention.h"

#include "model/kernels/prefix_attention.h"

namespace piserve::kernels {
namespace {

// Below, short tiles and eight splits leave fewer SMs idle (measured
// before warpgroup_attention/turns.cuh).
constexpr int kLeastRowsForWarpgroups = 2;

bool Valid(const AttentionArgs& a) {
  return SuffixAttentionSupports(a.head_dim, 1) && a.rows >= 1 &&
         a.rows <= 65535 && a.tokens >= 1 && a.heads >= 1 &&
         a.token_stride % 8 == 0;
}

}  // namespace

bool WarpgroupAttentionSupports(const AttentionArgs& args) {
  return args.head_dim == 256 && args.heads >= 1 && 64 % args.heads == 0;
}

bool SuffixAttentionSupports(int head_dim, int kv_heads) {
  return kv_heads == 1 && (head_dim == 32 || head_dim == 256);
}

bool PrefixAttentionSupports(int head_dim, int kv_heads) {
  return SuffixAttentionSupports(head_dim, kv_heads);
}

cudaError_t LaunchSuffixAttention(const SuffixAttentionArgs& args,
                                  cudaStream_t stream) {
  AttentionArgs all;
  static_cast<SuffixAttentionArgs&>(all) = args;
  if (!Valid(all)) return cudaErrorInvalidValue;
  return WarpgroupAttentionSupports(all) && args.rows >= kLeastRowsForWarpgroups
             ? LaunchWarpgroupAttention(all, stream)
             : LaunchTiledAttention(all, stream);
}

cudaError_t LaunchPrefixAttention(const PrefixAttentionArgs& args,
                                  cudaStream_t stream) {
  AttentionArgs all;
  all.q = args.q;
  all.token_stride = args.token_stride;
  all.cache_k = args.cache_k;
  all.cache_v = args.cache_v;
  all.row_base = args.row_base;
  all.start = args.prefix_len;
  all.query_len = args.prefix_len;
  all.out = args.out;
  all.begun = args.begun;
  all.rows = args.rows;
  all.tokens = args.tokens;
  all.heads = args.heads;
  all.head_dim = args.head_dim;
  all.cache_len = args.cache_len;
  if (!Valid(all)) return cudaErrorInvalidValue;
  return WarpgroupAttentionSupports(all) ? LaunchWarpgroupAttention(all, stream)
                                         : LaunchTiledAttention(all, stream);
}

}  // namespace piserve::kernels
