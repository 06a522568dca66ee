// SPDX-License-Identifier: Apache-2.0
// A CTA owns kM query rows (token-major, head-minor) of one batch row and a run
// of its keys; the CTAs of a cluster own the runs of the same query rows. Keys
// pass in tiles of kTileKeys through two cp.async stages. Eight warps share a
// tile twice: for q k, kM / 16 by 8 / (kM / 16) warps over (rows, keys); for
// p v, every warp takes all rows and its own columns of v, so v is read once
// from shared memory. p goes through shared memory in between.
#include <cooperative_groups.h>

#include <cmath>

#include "model/kernels/attention.h"
#include "model/kernels/launch.cuh"
#include "model/kernels/mma.cuh"

namespace piserve::kernels {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kTileKeys = 64;
constexpr int kStages = 2;
constexpr int kMaxSplits = 8;  // the largest portable cluster

template <int kDim, int kM>
struct Layout {
  static constexpr int kPitch = kDim + 8;  // conflict-free ldmatrix
  static constexpr int kPitchP = kTileKeys + 8;
  static constexpr int kRowTiles = kM / 16;
  static constexpr int kKeyWarps = kWarps / kRowTiles;
  static constexpr int kWarpKeys = kTileKeys / kKeyWarps;
  static constexpr int kWarpDim = kDim / kWarps < 16 ? 16 : kDim / kWarps;
  static constexpr int kStageElements = kTileKeys * kPitch;

  // Byte offsets.
  static constexpr int kQ = 0;
  static constexpr int kK = kQ + kM * kPitch * 2;
  static constexpr int kV = kK + kStages * kStageElements * 2;
  static constexpr int kP = kV + kStages * kStageElements * 2;
  static constexpr int kReduce = kP + kM * kPitchP * 2;
  static constexpr int kAlpha = kReduce + kM * kKeyWarps * 4;
  static constexpr int kState = kAlpha + kM * 4;  // float2 (maximum, sum)
  static constexpr int kBytes = kState + kM * 8;
  // The partial result takes the place of the k tiles.
  static constexpr int kPitchO = kDim + 8;
  static_assert(kM * kPitchO * 4 <= 2 * kStages * kStageElements * 2);
};

// Which keys this CTA sums over, and where its rows' visible keys end.
struct KeyRange {
  int begin;
  int end;
  int visible;        // to every token but, it may be, the first
  int visible_first;  // to the first token
};

__device__ KeyRange RangeOf(const SuffixAttentionArgs& a, int row, int split,
                            int splits) {
  const int start = a.start[row];
  KeyRange range;
  range.visible = min(start + a.key_extra, a.cache_len);
  range.visible_first = a.first_token == FirstToken::kSeesItself
                            ? min(start + 1, range.visible)
                            : range.visible;
  const int share = (range.visible + splits * 16 - 1) / (splits * 16) * 16;
  range.begin = min(split * share, range.visible);
  range.end = min(range.begin + share, range.visible);
  return range;
}

// Starts the copy of one tile of keys; rows past the range become zeros.
template <int kDim>
__device__ void FetchTile(const __nv_bfloat16* cache, int first, int end,
                          __nv_bfloat16* tile) {
  constexpr int kRuns = kDim / 8;
  if (first >= end) return;
#pragma unroll
  for (int i = threadIdx.x; i < kTileKeys * kRuns; i += kThreads) {
    const int key = i / kRuns;
    const int column = i % kRuns * 8;
    const bool valid = first + key < end;
    const long at = valid ? first + key : first;
    CopyAsync16(tile + key * (kDim + 8) + column, cache + at * kDim + column,
                valid);
  }
}

template <int kDim, int kM>
__device__ void FetchQueries(const SuffixAttentionArgs& a, int row, int first,
                             __nv_bfloat16* tile) {
  constexpr int kRuns = kDim / 8;
  const int queries = a.tokens * a.heads;
  const __nv_bfloat16* q =
      a.q + static_cast<long>(row) * a.tokens * a.token_stride;
#pragma unroll
  for (int i = threadIdx.x; i < kM * kRuns; i += kThreads) {
    const int query = first + i / kRuns;
    const int column = i % kRuns * 8;
    const bool valid = query < queries;
    const int token = valid ? query / a.heads : 0;
    const int head = valid ? query % a.heads : 0;
    CopyAsync16(tile + i / kRuns * (kDim + 8) + column,
                q + token * a.token_stride + head * kDim + column, valid);
  }
}

// One warp's 16 rows by kWarpKeys keys of q k. Two chains of accumulators over
// alternate k steps hide the latency of one.
template <int kDim, int kM>
__device__ void Scores(const __nv_bfloat16* q, const __nv_bfloat16* k,
                       float (&s)[Layout<kDim, kM>::kWarpKeys / 8][4]) {
  using L = Layout<kDim, kM>;
  constexpr int kTiles = L::kWarpKeys / 8;
  const int lane = threadIdx.x % 32;
  float sum[2][kTiles][4] = {};
  const __nv_bfloat16* q_at = q + lane % 16 * L::kPitch + lane / 16 * 8;
  const __nv_bfloat16* k_at =
      k + (lane % 8 + lane / 16 * 8) * L::kPitch + lane / 8 % 2 * 8;
#pragma unroll
  for (int d = 0; d < kDim / 16; ++d) {
    std::uint32_t a[4];
    LoadMatrix4(q_at + d * 16, a);
#pragma unroll
    for (int n = 0; n < kTiles / 2; ++n) {
      std::uint32_t b[4];
      LoadMatrix4(k_at + n * 16 * L::kPitch + d * 16, b);
      Mma(sum[d % 2][2 * n], a, b[0], b[1]);
      Mma(sum[d % 2][2 * n + 1], a, b[2], b[3]);
    }
  }
#pragma unroll
  for (int n = 0; n < kTiles; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) s[n][i] = sum[0][n][i] + sum[1][n][i];
  }
}

// out += p v for all rows and this warp's columns, over `steps` runs of 16
// keys.
template <int kDim, int kM>
__device__ void AddValues(
    const __nv_bfloat16* p, const __nv_bfloat16* v, int steps,
    float (&out)[kM / 16][Layout<kDim, kM>::kWarpDim / 8][4]) {
  using L = Layout<kDim, kM>;
  const int lane = threadIdx.x % 32;
  const __nv_bfloat16* p_at = p + lane % 16 * L::kPitchP + lane / 16 * 8;
  const __nv_bfloat16* v_at = v + lane % 16 * L::kPitch +
                              threadIdx.x / 32 * L::kWarpDim + lane / 16 * 8;
#pragma unroll
  for (int step = 0; step < kTileKeys / 16; ++step) {
    if (step >= steps) break;
    std::uint32_t b[L::kWarpDim / 16][4];
#pragma unroll
    for (int n = 0; n < L::kWarpDim / 16; ++n) {
      LoadMatrix4Transposed(v_at + step * 16 * L::kPitch + n * 16, b[n]);
    }
#pragma unroll
    for (int m = 0; m < kM / 16; ++m) {
      std::uint32_t a[4];
      LoadMatrix4(p_at + m * 16 * L::kPitchP + step * 16, a);
#pragma unroll
      for (int n = 0; n < L::kWarpDim / 16; ++n) {
        Mma(out[m][2 * n], a, b[n][0], b[n][1]);
        Mma(out[m][2 * n + 1], a, b[n][2], b[n][3]);
      }
    }
  }
}

// A thread's view of the softmax: the two rows of its fragment.
struct RowState {
  float maximum[2] = {-INFINITY, -INFINITY};  // of scores in units of log 2
  float sum[2] = {0, 0};                      // this thread's keys only
};

// Masks and scales the scores of one tile in place and returns the rows' maxima
// over this warp's keys.
template <int kTiles>
__device__ void MaskScores(float (&s)[kTiles][4], float scale, int first_key,
                           const int (&limit)[2], float (&maximum)[2]) {
  maximum[0] = maximum[1] = -INFINITY;
#pragma unroll
  for (int n = 0; n < kTiles; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int key = first_key + n * 8 + i % 2;
      s[n][i] = key < limit[i / 2] ? s[n][i] * scale : -INFINITY;
      maximum[i / 2] = fmaxf(maximum[i / 2], s[n][i]);
    }
  }
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    maximum[r] = fmaxf(maximum[r], __shfl_xor_sync(~0u, maximum[r], 1));
    maximum[r] = fmaxf(maximum[r], __shfl_xor_sync(~0u, maximum[r], 2));
  }
}

// Raises the running maximum to the tile's, and returns the factor that brings
// what was summed so far to it.
template <int kKeyWarps>
__device__ float RaiseMaximum(const float* reduce, float& maximum) {
  float raised = maximum;
#pragma unroll
  for (int w = 0; w < kKeyWarps; ++w) raised = fmaxf(raised, reduce[w]);
  // No key of this row yet: keep zeros as zeros.
  const float factor = raised == -INFINITY ? 1 : Exp2(maximum - raised);
  maximum = raised;
  return factor;
}

// p = exp2(s - maximum) as bf16 into `p_row`; returns the sum before rounding.
template <int kTiles>
__device__ float StoreWeights(const float (&s)[kTiles][4], int r, float maximum,
                              __nv_bfloat16* p_row) {
  const float shift = maximum == -INFINITY ? 0 : maximum;
  float sum = 0;
#pragma unroll
  for (int n = 0; n < kTiles; ++n) {
    const float p0 = Exp2(s[n][2 * r] - shift);
    const float p1 = Exp2(s[n][2 * r + 1] - shift);
    sum += p0 + p1;
    *reinterpret_cast<__nv_bfloat162*>(p_row + n * 8) =
        __floats2bfloat162_rn(p0, p1);
  }
  return sum;
}

// Merges the cluster's partial results of this CTA's share of the rows.
template <int kDim, int kM>
__device__ void Merge(const SuffixAttentionArgs& a, int row, int first,
                      float* partial, float2* state) {
  using L = Layout<kDim, kM>;
  constexpr int kRuns = kDim / 4;
  auto cluster = cooperative_groups::this_cluster();
  const int splits = static_cast<int>(cluster.num_blocks());
  const int rank = static_cast<int>(cluster.block_rank());
  const int share = kM / splits;
  const int queries = a.tokens * a.heads;
  __nv_bfloat16* out = a.out + static_cast<long>(row) * queries * kDim;
  for (int i = threadIdx.x; i < share * kRuns; i += kThreads) {
    const int local = rank * share + i / kRuns;
    const int column = i % kRuns * 4;
    if (first + local >= queries) break;
    float2 part[kMaxSplits];
    float4 value[kMaxSplits];
    float maximum = -INFINITY;
#pragma unroll
    for (int s = 0; s < kMaxSplits; ++s) {
      if (s >= splits) break;
      part[s] = *cluster.map_shared_rank(state + local, s);
      value[s] = *reinterpret_cast<const float4*>(
          cluster.map_shared_rank(partial + local * L::kPitchO + column, s));
      maximum = fmaxf(maximum, part[s].x);
    }
    float4 sum = {0, 0, 0, 0};
    float total = 0;
#pragma unroll
    for (int s = 0; s < kMaxSplits; ++s) {
      if (s >= splits) break;
      const float weight =
          part[s].x == -INFINITY ? 0 : Exp2(part[s].x - maximum);
      total += weight * part[s].y;
      sum.x += weight * value[s].x;
      sum.y += weight * value[s].y;
      sum.z += weight * value[s].z;
      sum.w += weight * value[s].w;
    }
    const float inverse = total > 0 ? 1 / total : 0;
    __nv_bfloat162 packed[2] = {
        __floats2bfloat162_rn(sum.x * inverse, sum.y * inverse),
        __floats2bfloat162_rn(sum.z * inverse, sum.w * inverse)};
    *reinterpret_cast<uint2*>(out + static_cast<long>(first + local) * kDim +
                              column) = *reinterpret_cast<uint2*>(packed);
  }
}

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
  // Per device, hence at each launch; allowed while a stream is captured.
  const cudaError_t error = cudaFuncSetAttribute(
      kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, L::kBytes);
  if (error != cudaSuccess) return error;
  const int tiles = (a.tokens * a.heads + kM - 1) / kM;
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

cudaError_t LaunchTiledAttention(const AttentionArgs& args,
                                 cudaStream_t stream) {
  return args.head_dim == 256 ? LaunchDim<256>(args, stream)
                              : LaunchDim<32>(args, stream);
}

}  // namespace piserve::kernels
