// SPDX-License-Identifier: Apache-2.0
// A CTA owns kM query rows (token-major, head-minor) of one batch row and a run
// of its keys; the CTAs of a cluster own the runs of the same query rows. Keys
// pass in tiles of kTileKeys through two cp.async stages. Eight warps share a
// tile twice: for q k, kM / 16 by 8 / (kM / 16) warps over (rows, keys); for
// p v, every warp takes all rows and its own columns of v, so v is read once
// from shared memory. p goes through shared memory in between.
#include <cmath>

#include "model/kernels/attention.h"
#include "model/kernels/launch.cuh"
#include "model/kernels/processors.h"
#include "model/kernels/tiled_attention/merge.cuh"
#include "model/kernels/tiled_attention/products.cuh"
#include "model/kernels/tiled_attention/softmax.cuh"
#include "model/kernels/tiled_attention/tile.cuh"

namespace piserve::kernels {
namespace tiled_attention {
namespace {

// One CTA's shared memory and the thread's place in it.
template <int kDim, int kM>
struct Cta {
  using L = Layout<kDim, kM>;
  using Output = float[kM / 16][L::kWarpDim / 8][4];

  __device__ explicit Cta(char* shared)
      : q(reinterpret_cast<__nv_bfloat16*>(shared + L::kQ)),
        k(reinterpret_cast<__nv_bfloat16*>(shared + L::kK)),
        v(reinterpret_cast<__nv_bfloat16*>(shared + L::kV)),
        p(reinterpret_cast<__nv_bfloat16*>(shared + L::kP)),
        reduce(reinterpret_cast<float*>(shared + L::kReduce)),
        alpha(reinterpret_cast<float*>(shared + L::kAlpha)),
        state(reinterpret_cast<float2*>(shared + L::kState)) {}

  // Two groups: the tile's k, the tile's v.
  __device__ void Fetch(const SuffixAttentionArgs& a, int row,
                        const KeyRange& keys, int tile) {
    const int first = keys.begin + tile * kTileKeys;
    const int stage = tile % kStages * L::kStageElements;
    const int cache_row = row + (a.row_base == nullptr ? 0 : *a.row_base);
    const long cache = static_cast<long>(cache_row) * a.cache_len * kDim;
    FetchTile<kDim>(a.cache_k + cache, first, keys.end, k + stage);
    CopyAsyncCommit();
    FetchTile<kDim>(a.cache_v + cache, first, keys.end, v + stage);
    CopyAsyncCommit();
  }

  // Leaves the value of every key warp of the thread's rows in `reduce`.
  __device__ void Share(const float (&value)[2]) {
    if (lane % 4 != 0) return;
    for (int r = 0; r < 2; ++r) {
      reduce[(my_row + 8 * r) * L::kKeyWarps + key_warp] = value[r];
    }
  }

  // Scores of a tile to p, between two barriers.
  __device__ void Softmax(const float (&s)[L::kWarpKeys / 8][4],
                          RowState& rows) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int local = my_row + 8 * r;
      const float factor = RaiseMaximum<L::kKeyWarps>(
          reduce + local * L::kKeyWarps, rows.maximum[r]);
      if (key_warp == 0 && lane % 4 == 0) alpha[local] = factor;
      rows.sum[r] =
          rows.sum[r] * factor +
          StoreWeights(s, r, rows.maximum[r], p + local * L::kPitchP + my_key);
    }
  }

  __device__ void Rescale(Output& out) {
#pragma unroll
    for (int m = 0; m < kM / 16; ++m) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const float factor = alpha[m * 16 + r * 8 + lane / 4];
#pragma unroll
        for (auto& fragment : out[m]) {
          fragment[2 * r] *= factor;
          fragment[2 * r + 1] *= factor;
        }
      }
    }
  }

  // The rows' maxima and sums to `state`, the sums over keys to `partial`.
  __device__ void StorePartial(const RowState& rows, const Output& out) {
    float sum[2];
    for (int r = 0; r < 2; ++r) {
      sum[r] = rows.sum[r] + __shfl_xor_sync(~0u, rows.sum[r], 1);
      sum[r] += __shfl_xor_sync(~0u, sum[r], 2);
    }
    Share(sum);
    __syncthreads();
    for (int r = 0; key_warp == 0 && lane % 4 == 0 && r < 2; ++r) {
      const float* sums = reduce + (my_row + 8 * r) * L::kKeyWarps;
      float total = 0;
      for (int w = 0; w < L::kKeyWarps; ++w) total += sums[w];
      state[my_row + 8 * r] = {rows.maximum[r], total};
    }
    if (!HasColumns()) return;
#pragma unroll
    for (int i = 0; i < kM / 8; ++i) {
      float* to = Partial() + (i * 8 + lane / 4) * L::kPitchO +
                  warp * L::kWarpDim + lane % 4 * 2;
#pragma unroll
      for (int n = 0; n < L::kWarpDim / 8; ++n) {
        const float(&fragment)[4] = out[i / 2][n];
        *reinterpret_cast<float2*>(to + n * 8) = {fragment[i % 2 * 2],
                                                  fragment[i % 2 * 2 + 1]};
      }
    }
  }

  __device__ bool HasColumns() const { return warp * L::kWarpDim < kDim; }
  __device__ float* Partial() const { return reinterpret_cast<float*>(k); }

  __nv_bfloat16 *q, *k, *v, *p;
  float *reduce, *alpha;
  float2* state;
  int warp = threadIdx.x / 32;
  int lane = threadIdx.x % 32;
  int row_tile = warp / L::kKeyWarps;
  int key_warp = warp % L::kKeyWarps;
  int my_row = row_tile * 16 + lane / 4;                // and my_row + 8
  int my_key = key_warp * L::kWarpKeys + lane % 4 * 2;  // in the tile
};

template <int kDim, int kM>
__global__ void __launch_bounds__(kThreads, 1)
    SuffixAttentionKernel(SuffixAttentionArgs a, float scale) {
  using L = Layout<kDim, kM>;
  extern __shared__ __align__(16) char shared[];
  Cta<kDim, kM> cta(shared);
  LetNextStart();
  WaitForPrevious();
  const int row = blockIdx.z;
  const int first_query = blockIdx.y * kM;
  FetchQueries<kDim, kM>(a, row, first_query, cta.q);
  const KeyRange keys = RangeOf(a, row, blockIdx.x, gridDim.x);
  for (int tile = 0; tile < kStages; ++tile) cta.Fetch(a, row, keys, tile);

  int limit[2];
  for (int r = 0; r < 2; ++r) {
    const bool first_token = first_query + cta.my_row + 8 * r < a.heads;
    limit[r] = min(first_token ? keys.visible_first : keys.visible, keys.end);
  }
  RowState rows;
  typename Cta<kDim, kM>::Output out = {};
  for (int first = keys.begin, tile = 0; first < keys.end;
       first += kTileKeys, ++tile) {
    const int stage = tile % kStages * L::kStageElements;
    float s[L::kWarpKeys / 8][4];
    float maximum[2];
    CopyAsyncWait<2 * kStages - 1>();
    __syncthreads();
    Scores<kDim, kM>(cta.q + cta.row_tile * 16 * L::kPitch,
                     cta.k + stage + cta.key_warp * L::kWarpKeys * L::kPitch,
                     s);
    MaskScores(s, scale, first + cta.my_key, limit, maximum);
    cta.Share(maximum);
    __syncthreads();
    cta.Softmax(s, rows);
    CopyAsyncWait<2 * kStages - 2>();
    __syncthreads();
    if (cta.HasColumns()) {
      cta.Rescale(out);
      const int count = min(keys.end - first, kTileKeys);
      AddValues<kDim, kM>(cta.p, cta.v + stage, (count + 15) / 16, out);
    }
    __syncthreads();
    cta.Fetch(a, row, keys, tile + kStages);
  }
  CopyAsyncWait<0>();  // only empty groups and, without a tile, the queries
  cta.StorePartial(rows, out);
  ClusterSync();
  Merge<kDim, kM>(a, row, first_query, cta.Partial(), cta.state);
  ClusterLeave();
}

// How many ways the keys are shared out: as many as keep one wave on the SMs
// that clusters of eight can fill.
int Splits(int ctas) {
  constexpr int kResident = 120;
  int splits = kMaxSplits;
  while (splits > 1 && ctas * splits > kResident) splits /= 2;
  return splits;
}

template <int kDim, int kM>
cudaError_t LaunchTiles(const SuffixAttentionArgs& a, cudaStream_t stream) {
  using L = Layout<kDim, kM>;
  const auto kernel = SuffixAttentionKernel<kDim, kM>;
  const int tiles = CeilDiv(a.tokens * a.heads, kM);
  const int splits = Splits(tiles * a.rows);
  LaunchShape shape;
  shape.grid = dim3(splits, tiles, a.rows);
  shape.threads = kThreads;
  shape.shared_bytes = L::kBytes;
  shape.cluster = splits;
  const float scale = kLog2E / sqrtf(static_cast<float>(kDim));
  return Launch(kernel, shape, stream, a, scale);
}

// Short query tiles fill the SMs at one row; tall ones read k and v less often.
template <int kDim>
cudaError_t LaunchDim(const SuffixAttentionArgs& a, cudaStream_t stream) {
  if (a.rows == 1) return LaunchTiles<kDim, 32>(a, stream);
  return LaunchTiles<kDim, 64>(a, stream);
}

}  // namespace
}  // namespace tiled_attention

cudaError_t LaunchTiledAttention(const AttentionArgs& args,
                                 cudaStream_t stream) {
  return args.head_dim == 256 ? tiled_attention::LaunchDim<256>(args, stream)
                              : tiled_attention::LaunchDim<32>(args, stream);
}

}  // namespace piserve::kernels
