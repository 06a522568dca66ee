// SPDX-License-Identifier: Apache-2.0
// A CTA owns 128 query rows (token-major, head-minor) of one batch row and a
// run of its keys; with a cluster, its CTAs own the runs of the same queries
// and merge at the end through distributed shared memory. Two consumer
// warpgroups take 64 query rows each: scores in registers by wgmma from shared
// memory, softmax there, and p, never leaving registers, times v by wgmma.
// While one is in its softmax the other has the tensor cores. A producer
// warpgroup keeps two stages of 64 keys filled with cp.async, which zero-fills
// past the visible keys. Bound by wgmma issue, then by the way of k and v from
// L2.
#include <cooperative_groups.h>

#include <cmath>

#include "model/kernels/attention.h"
#include "model/kernels/launch.cuh"
#include "model/kernels/mma.cuh"
#include "model/kernels/warpgroup.cuh"

namespace piserve::kernels {
namespace {

constexpr int kDim = 256;
constexpr int kGroup = 128;    // threads of a warpgroup
constexpr int kConsumers = 2;  // warpgroups
constexpr int kThreads = (kConsumers + 1) * kGroup;
constexpr int kGroupRows = 64;
constexpr int kRows = kConsumers * kGroupRows;
constexpr int kKeys = 64;  // a tile's
constexpr int kStages = 2;
constexpr int kMaxSplits = 8;
constexpr int kConsumerRegisters = 216, kProducerRegisters = 72;
constexpr float kLog2E = 1.4426950408889634f;

constexpr int kQBytes = kGroupRows * kDim * 2;  // a warpgroup's
constexpr int kTileBytes = kKeys * kDim * 2;

struct Shared {
  alignas(1024) char q[kConsumers][kQBytes];
  // The partial results take the place of k and v at the end.
  alignas(1024) char k[kStages][kTileBytes];
  alignas(1024) char v[kStages][kTileBytes];
  float2 state[kRows];  // (maximum, sum)
  std::uint64_t full_k[kStages], full_v[kStages];
  std::uint64_t empty_k[kStages], empty_v[kStages];
};
static_assert(kRows * kDim * 4 <= 2 * kStages * kTileBytes);

struct Work {
  int row;          // of the batch
  int first_query;  // of the CTA
  int queries;      // of the batch row
  int begin, end;   // keys
  int visible_first;
  long cache;  // elements

  __device__ int Tiles() const { return (end - begin + kKeys - 1) / kKeys; }
};

__device__ Work WorkOf(const AttentionArgs& a) {
  Work w;
  w.row = blockIdx.z;
  w.first_query = blockIdx.y * kRows;
  w.queries = a.tokens * a.heads;
  const int start = a.start[w.row];
  const int visible = min(start + a.key_extra, a.cache_len);
  w.visible_first = a.first_token == FirstToken::kSeesItself
                        ? min(start + 1, visible)
                        : visible;
  const int splits = static_cast<int>(gridDim.x);
  const int share = (visible + splits * 16 - 1) / (splits * 16) * 16;
  w.begin = min(static_cast<int>(blockIdx.x) * share, visible);
  w.end = min(w.begin + share, visible);
  const int cache_row = w.row + (a.row_base == nullptr ? 0 : *a.row_base);
  w.cache = static_cast<long>(cache_row) * a.cache_len * kDim;
  return w;
}

// Starts the copy of 64 rows of 256 columns by 128 threads; `address(row)` is
// null where zeros belong.
template <typename Address>
__device__ void CopyTile(char* tile, Address address) {
  const int thread = threadIdx.x % kGroup;
#pragma unroll 8
  for (int i = thread; i < kKeys * kDim / 8; i += kGroup) {
    const int row = i / (kDim / 8), piece = i % (kDim / 8);
    const __nv_bfloat16* from = address(row);
    CopyAsync16(tile + SwizzledOffset(kKeys, row, piece), from + piece * 8,
                from != nullptr);
  }
}

// Signals, once this thread's share of an older copy has landed.
template <int kPending>
__device__ void Landed(std::uint64_t* barrier) {
  CopyAsyncWait<kPending>();
  FenceForWgmma();
  BarrierArrive(barrier);
}

// Copies k and v of tile after tile; each is announced two copies later, so
// that a third is always under way.
__device__ void Produce(const AttentionArgs& a, const Work& w, Shared& s) {
  const int tiles = w.Tiles();
  for (int tile = 0; tile < tiles; ++tile) {
    const int stage = tile % kStages, parity = tile / kStages % 2;
    const int before = (tile - 1 + kStages) % kStages;
    const int first = w.begin + tile * kKeys;
    const auto rows_of = [&](const __nv_bfloat16* cache) {
      return [=](int row) -> const __nv_bfloat16* {
        const int key = first + row;
        return key < w.end ? cache + w.cache + static_cast<long>(key) * kDim
                           : nullptr;
      };
    };
    BarrierWait(&s.empty_k[stage], parity ^ 1);
    CopyTile(s.k[stage], rows_of(a.cache_k));
    CopyAsyncCommit();
    if (tile > 0) Landed<2>(&s.full_k[before]);
    BarrierWait(&s.empty_v[stage], parity ^ 1);
    CopyTile(s.v[stage], rows_of(a.cache_v));
    CopyAsyncCommit();
    if (tile > 0) Landed<2>(&s.full_v[before]);
  }
  if (tiles == 0) return;
  Landed<1>(&s.full_k[(tiles - 1) % kStages]);
  Landed<0>(&s.full_v[(tiles - 1) % kStages]);
}

// A consumer thread: fragment rows `row` and `row + 8` of its warpgroup's 64.
struct Consumer {
  float out[128] = {};
  float maximum[2] = {-INFINITY, -INFINITY};
  float sum[2] = {0, 0};
  int limit[2];  // keys from here on are hidden from the row
  // The same for a warp: from a shuffle the compiler knows it, and keeps what
  // follows from it in uniform registers.
  int group = __shfl_sync(~0u, threadIdx.x / kGroup, 0) - 1;
  int lane = threadIdx.x % 32;
  int row = threadIdx.x % kGroup / 32 * 16 + lane / 4;
};

__device__ void LoadQueries(const AttentionArgs& a, const Work& w, int group,
                            char* tile) {
  const __nv_bfloat16* q =
      a.q + static_cast<long>(w.row) * a.tokens * a.token_stride;
  CopyTile(tile, [=](int row) -> const __nv_bfloat16* {
    const int query = w.first_query + group * kGroupRows + row;
    if (query >= w.queries) return nullptr;
    return q + query / a.heads * a.token_stride + query % a.heads * kDim;
  });
  CopyAsyncCommit();
  CopyAsyncWait<0>();
  FenceForWgmma();
  if (group == 0) {
    asm volatile("bar.sync 1, %0;" ::"n"(kGroup) : "memory");
  } else {
    asm volatile("bar.sync 2, %0;" ::"n"(kGroup) : "memory");
  }
}

__device__ void Scores(std::uint64_t q, std::uint64_t k, float (&s)[32]) {
  WgmmaFence();
#pragma unroll
  for (int d = 0; d < kDim; d += 16) {
    Wgmma64x64(s, AtColumn(q, kGroupRows, d), AtColumn(k, kKeys, d), d != 0);
  }
  WgmmaCommit();
  WgmmaWait();
}

// The warpgroups take turns at their scores, so that one is in its softmax
// while the other has the tensor cores.
__device__ void AwaitTurn(int group) {
  if (group == 0) {
    asm volatile("bar.sync 4, %0;" ::"n"(kConsumers * kGroup) : "memory");
  } else {
    asm volatile("bar.sync 5, %0;" ::"n"(kConsumers * kGroup) : "memory");
  }
}
__device__ void GiveTurn(int group) {
  if (group == 0) {
    asm volatile("bar.arrive 4, %0;" ::"n"(kConsumers * kGroup) : "memory");
  } else {
    asm volatile("bar.arrive 5, %0;" ::"n"(kConsumers * kGroup) : "memory");
  }
}

// A thread's 32 scores are 16 of each of its two rows, in pairs.
__device__ constexpr int ScoreAt(int r, int i) {
  return i / 2 * 4 + 2 * r + i % 2;
}

// The row's maximum, in units of log 2, raised to this tile's.
__device__ float RaisedMaximum(const Consumer& c, float (&s)[32], float scale,
                               int first, int r) {
  const int key = first + c.lane % 4 * 2;
  float raised = -INFINITY;
  if (first + kKeys > c.limit[r]) {
#pragma unroll
    for (int i = 0; i < 16; ++i) {
      if (key + i / 2 * 8 + i % 2 >= c.limit[r]) s[ScoreAt(r, i)] = -INFINITY;
    }
  }
#pragma unroll
  for (int i = 0; i < 16; ++i) raised = fmaxf(raised, s[ScoreAt(r, i)]);
  raised = fmaxf(raised, __shfl_xor_sync(~0u, raised, 1));
  raised = fmaxf(raised, __shfl_xor_sync(~0u, raised, 2));
  return fmaxf(c.maximum[r], raised * scale);
}

// Scores to weights in place; `out` and the sums move to the new maximum.
__device__ void Softmax(Consumer& c, float (&s)[32], float scale, int first) {
  float factor[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const float raised = RaisedMaximum(c, s, scale, first, r);
    // No key of this row yet: keep zeros as zeros.
    const float shift = raised == -INFINITY ? 0 : raised;
    factor[r] = Exp2(c.maximum[r] - shift);
    c.maximum[r] = raised;
    float sum = 0;
#pragma unroll
    for (int i = 0; i < 16; ++i) {
      float& score = s[ScoreAt(r, i)];
      score = Exp2(score * scale - shift);
      sum += score;
    }
    c.sum[r] = c.sum[r] * factor[r] + sum;
  }
  // Exact to leave out: most tiles raise no maximum.
  if (!__any_sync(~0u, factor[0] != 1 || factor[1] != 1)) return;
#pragma unroll
  for (int i = 0; i < 128; ++i) c.out[i] *= factor[i / 2 % 2];
}

__device__ std::uint32_t PackPair(float a, float b) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(a, b);
  return *reinterpret_cast<const std::uint32_t*>(&pair);
}

// out += p v. A fragment of two neighbouring score tiles is one of p.
__device__ void AddValues(Consumer& c, const float (&s)[32], std::uint64_t v) {
  std::uint32_t p[kKeys / 16][4];
#pragma unroll
  for (int i = 0; i < kKeys / 4; ++i) {
    p[i / 4][i % 4] = PackPair(s[2 * i], s[2 * i + 1]);
  }
  WgmmaFence();
#pragma unroll
  for (int k = 0; k < kKeys / 16; ++k) {
    Wgmma64x256(c.out, p[k], AtRow(v, k * 16));
  }
  WgmmaCommit();
  WgmmaWait();
}

// One arrival a warp.
__device__ void Release(std::uint64_t* barrier, int lane) {
  __syncwarp();
  if (lane == 0) BarrierArrive(barrier);
}

__device__ void Consume(const AttentionArgs& a, const Work& w, float scale,
                        Shared& shared, Consumer& c) {
  const int first_query = w.first_query + c.group * kGroupRows + c.row;
  for (int r = 0; r < 2; ++r) {
    const bool first_token = first_query + 8 * r < a.heads;
    c.limit[r] = first_token ? min(w.visible_first, w.end) : w.end;
  }
  LoadQueries(a, w, c.group, shared.q[c.group]);
  const std::uint64_t q = RowsTile(SharedAddress(shared.q[c.group]));
  const int tiles = w.Tiles();
  if (c.group == 1 && tiles > 0) GiveTurn(0);
  for (int tile = 0; tile < tiles; ++tile) {
    const int stage = tile % kStages, parity = tile / kStages % 2;
    float s[32];
    BarrierWait(&shared.full_k[stage], parity);
    AwaitTurn(c.group);
    Scores(q, RowsTile(SharedAddress(shared.k[stage])), s);
    if (c.group == 0 || tile + 1 < tiles) GiveTurn(1 - c.group);
    Release(&shared.empty_k[stage], c.lane);
    Softmax(c, s, scale, w.begin + tile * kKeys);
    BarrierWait(&shared.full_v[stage], parity);
    AddValues(c, s, ColumnsTile(SharedAddress(shared.v[stage]), kKeys));
    Release(&shared.empty_v[stage], c.lane);
  }
  for (int r = 0; r < 2; ++r) {
    c.sum[r] += __shfl_xor_sync(~0u, c.sum[r], 1);
    c.sum[r] += __shfl_xor_sync(~0u, c.sum[r], 2);
  }
}

// Without a cluster: this thread's fragments are the result.
__device__ void StoreResult(const AttentionArgs& a, const Work& w,
                            const Consumer& c) {
  __nv_bfloat16* out = a.out + static_cast<long>(w.row) * w.queries * kDim;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int query = w.first_query + c.group * kGroupRows + c.row + 8 * r;
    if (query >= w.queries) continue;
    const float inverse = c.sum[r] > 0 ? 1 / c.sum[r] : 0;
    __nv_bfloat16* to = out + static_cast<long>(query) * kDim + c.lane % 4 * 2;
#pragma unroll
    for (int n = 0; n < kDim / 8; ++n) {
      *reinterpret_cast<std::uint32_t*>(to + n * 8) = PackPair(
          c.out[n * 4 + 2 * r] * inverse, c.out[n * 4 + 2 * r + 1] * inverse);
    }
  }
}

// Column of a partial result, permuted so that neither side conflicts.
__device__ int PartialAt(int row, int column) {
  return row * kDim + (column ^ (row % 8 * 8));
}

__device__ void StorePartial(Shared& shared, const Consumer& c) {
  auto* partial = reinterpret_cast<float*>(shared.k);
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int row = c.group * kGroupRows + c.row + 8 * r;
    if (c.lane % 4 == 0) shared.state[row] = {c.maximum[r], c.sum[r]};
#pragma unroll
    for (int n = 0; n < kDim / 8; ++n) {
      const int at = PartialAt(row, n * 8 + c.lane % 4 * 2);
      *reinterpret_cast<float2*>(partial + at) = {c.out[n * 4 + 2 * r],
                                                  c.out[n * 4 + 2 * r + 1]};
    }
  }
}

// Merges the cluster's parts of this CTA's share of the rows, in rank order.
__device__ void Merge(const AttentionArgs& a, const Work& w, Shared& shared) {
  auto cluster = cooperative_groups::this_cluster();
  const int splits = static_cast<int>(cluster.num_blocks());
  const int share = (kRows + splits - 1) / splits;
  const int first = static_cast<int>(cluster.block_rank()) * share;
  auto* partial = reinterpret_cast<float*>(shared.k);
  __nv_bfloat16* out = a.out + static_cast<long>(w.row) * w.queries * kDim;
  const int thread = threadIdx.x - kGroup;
  for (int i = thread; i < share * kDim / 4; i += kConsumers * kGroup) {
    const int local = first + i / (kDim / 4);
    const int column = i % (kDim / 4) * 4;
    const int query = w.first_query + local;
    if (local >= kRows || query >= w.queries) break;
    float2 state[kMaxSplits];
    float4 value[kMaxSplits];
    float maximum = -INFINITY;
#pragma unroll
    for (int s = 0; s < kMaxSplits; ++s) {
      if (s >= splits) break;
      state[s] = *cluster.map_shared_rank(shared.state + local, s);
      value[s] = *reinterpret_cast<const float4*>(
          cluster.map_shared_rank(partial + PartialAt(local, column), s));
      maximum = fmaxf(maximum, state[s].x);
    }
    float4 sum = {0, 0, 0, 0};
    float total = 0;
#pragma unroll
    for (int s = 0; s < kMaxSplits; ++s) {
      if (s >= splits) break;
      const float weight =
          state[s].x == -INFINITY ? 0 : Exp2(state[s].x - maximum);
      total += weight * state[s].y;
      sum.x += weight * value[s].x;
      sum.y += weight * value[s].y;
      sum.z += weight * value[s].z;
      sum.w += weight * value[s].w;
    }
    const float inverse = total > 0 ? 1 / total : 0;
    *reinterpret_cast<uint2*>(out + static_cast<long>(query) * kDim +
                              column) = {
        PackPair(sum.x * inverse, sum.y * inverse),
        PackPair(sum.z * inverse, sum.w * inverse)};
  }
}

// Queries that do not matter: zeros, by the first CTA of the cluster.
__device__ void StoreZeros(const AttentionArgs& a, const Work& w) {
  if (blockIdx.x != 0) return;
  const int count = min(kRows, w.queries - w.first_query);
  auto* out = reinterpret_cast<uint4*>(
      a.out + (static_cast<long>(w.row) * w.queries + w.first_query) * kDim);
  for (int i = threadIdx.x; i < count * kDim / 8; i += kThreads) {
    out[i] = {0, 0, 0, 0};
  }
}

__global__ void __launch_bounds__(kThreads, 1)
    WarpgroupAttentionKernel(AttentionArgs a, float scale) {
  extern __shared__ char raw[];
  auto& shared = *reinterpret_cast<Shared*>(
      raw + (1024 - SharedAddress(raw) % 1024) % 1024);
  LetNextStart();
  if (threadIdx.x < kStages) {
    BarrierInit(&shared.full_k[threadIdx.x], kGroup);
    BarrierInit(&shared.full_v[threadIdx.x], kGroup);
    BarrierInit(&shared.empty_k[threadIdx.x], kConsumers * kGroup / 32);
    BarrierInit(&shared.empty_v[threadIdx.x], kConsumers * kGroup / 32);
  }
  __syncthreads();
  WaitForPrevious();
  const Work w = WorkOf(a);
  if (a.query_len != nullptr && w.first_query >= a.query_len[w.row] * a.heads) {
    StoreZeros(a, w);
    return;  // as does the whole cluster
  }
  if (threadIdx.x < kGroup) {
    GiveRegisters<kProducerRegisters>();
    Produce(a, w, shared);
    if (gridDim.x == 1) return;
    ClusterSync();
    ClusterLeave();
  } else {
    TakeRegisters<kConsumerRegisters>();
    Consumer c;
    Consume(a, w, scale, shared, c);
    if (gridDim.x == 1) {
      StoreResult(a, w, c);
      return;
    }
    // Both warpgroups are past the last tile before its place is taken.
    asm volatile("bar.sync 3, %0;" ::"n"(kConsumers * kGroup) : "memory");
    StorePartial(shared, c);
    ClusterSync();
    Merge(a, w, shared);
    ClusterLeave();
  }
}

// The number of splits with the shortest makespan, counted in tiles of keys:
// waves of CTAs times a CTA's tiles and what it costs besides.
int Splits(int ctas, int keys) {
  int best = 1, best_cost = 1 << 30;
  for (const int splits : {1, 2, 3, 4, 6, kMaxSplits}) {
    const int resident = splits <= 2 ? 132 : 120;
    const int waves = (ctas * splits + resident - 1) / resident;
    const int tiles = (keys + splits * kKeys - 1) / (splits * kKeys);
    const int cost = waves * (tiles + (splits == 1 ? 2 : 4));
    if (cost < best_cost) best = splits, best_cost = cost;
  }
  return best;
}

}  // namespace

cudaError_t LaunchWarpgroupAttention(const AttentionArgs& args,
                                     cudaStream_t stream) {
  if (args.head_dim != kDim) return cudaErrorInvalidValue;
  constexpr int kBytes = sizeof(Shared) + 1024;  // and what aligns it
  // Per device, hence at each launch; allowed while a stream is captured.
  const cudaError_t error =
      cudaFuncSetAttribute(WarpgroupAttentionKernel,
                           cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
  if (error != cudaSuccess) return error;
  const int tiles = (args.tokens * args.heads + kRows - 1) / kRows;
  const int splits = Splits(tiles * args.rows, args.cache_len);
  LaunchShape shape;
  shape.grid = dim3(splits, tiles, args.rows);
  shape.threads = kThreads;
  shape.shared_bytes = kBytes;
  shape.cluster = splits;
  const float scale = kLog2E / std::sqrt(static_cast<float>(kDim));
  return Launch(WarpgroupAttentionKernel, shape, stream, args, scale);
}

}  // namespace piserve::kernels
