// SPDX-License-Identifier: Apache-2.0
// Two consumer warpgroups of a CTA take 64 query rows (token-major, head-minor)
// of a batch row each, and a third one fills a ring of tiles of 64 keys' k or v
// by bulk copies. Where queries are many, two CTAs with neighbouring queries
// form a cluster, fetch half of each tile for both and go on from item to item,
// the copies ahead (own.cuh). Where they are few, the CTAs of a cluster have
// parts of the keys of the same queries and merge at the end through
// distributed shared memory (merge.cuh); where they are fewer still, both
// consumers have the same 64 and take turns at the tiles, by rings of their own
// (turns.cuh): less of a last tile of queries is empty and less comes from
// other CTAs to be merged, but twice as much from L2. Bound by tensor cores and
// shared memory: of 128 queries 64 keys cost 2048 cycles of the former and 1888
// of the latter's bandwidth (operands 1376, arriving tiles 512), of 64 queries
// 1024 and 1200.
#include <algorithm>
#include <cmath>
#include <cstdint>

#include "model/kernels/attention.h"
#include "model/kernels/launch.cuh"
#include "model/kernels/processors.h"
#include "model/kernels/tma.cuh"
#include "model/kernels/warpgroup.cuh"
#include "model/kernels/warpgroup_attention/begin.cuh"
#include "model/kernels/warpgroup_attention/merge.cuh"
#include "model/kernels/warpgroup_attention/own.cuh"
#include "model/kernels/warpgroup_attention/turns.cuh"
#include "model/kernels/warpgroup_attention/work.cuh"

namespace piserve::kernels {
namespace warpgroup_attention {
namespace {

// CTAs that fetch k and v for each other where keys are not split; 1 or 2.
constexpr int kPeersOfWhole = 2;

__device__ void PrefetchMaps(const Params& p) {
  PrefetchTensorMap(p.q);
  PrefetchTensorMap(p.k);
  PrefetchTensorMap(p.v);
}

// kPeers CTAs of a cluster fetch for each other; or, with kParts, each has a
// part of the keys.
template <int kPeers, bool kParts>
__global__ void __launch_bounds__(kThreads, 1)
    OwnKernel(const __grid_constant__ Params p) {
  extern __shared__ char raw[];
  auto& shared = AlignShared<OwnShared>(raw);
  if (p.turn != Turn::kFirst) LetNextStart();
  if (threadIdx.x == 0) {
    PrefetchMaps(p);
    shared.InitBarriers(kPeers);
  }
  AwaitFirst(p);
  __syncthreads();
  if (kPeers > 1) ClusterArriveRelaxed();
  Begin(p);
  if (kPeers > 1) ClusterWait();  // all peers' barriers are there
  if (threadIdx.x < kGroup) {
    GiveRegisters<kProducerRegisters>();
    if (threadIdx.x == 0) ProduceItems<kPeers>(p, shared);
    if (threadIdx.x >= 32) CleanLastValues<kPeers>(p, shared);
    if (kParts) SitMergeOut();
    if (kPeers > 1) ClusterSync();
  } else {
    TakeRegisters<kConsumerRegisters>();
    if constexpr (kParts) {
      ConsumePart(p, shared);
    } else {
      ConsumeItems<kPeers>(p, shared);
    }
  }
  End(p);
}

__global__ void __launch_bounds__(kThreads, 1)
    TurnsKernel(const __grid_constant__ Params p) {
  extern __shared__ char raw[];
  auto& shared = AlignShared<TurnsShared>(raw);
  LetNextStart();
  if (threadIdx.x == 0) {
    PrefetchMaps(p);
    shared.InitBarriers();
  }
  AwaitFirst(p);
  __syncthreads();
  Begin(p);
  const Work w = PartOf(p);
  const bool matters = w.Needs(w.first_query);
  if (threadIdx.x < kGroup) {
    GiveRegisters<kProducerRegisters>();
    // In warps apart, neither of which is about to count what it has seen.
    constexpr int kApart = kGroup / kConsumers;
    const int thread = static_cast<int>(threadIdx.x);
    if (matters && thread % kApart == 0) {
      ProduceTurns(p, w, thread / kApart, shared);
    }
    SitMergeOut();
  } else {
    TakeRegisters<kConsumerRegisters>();
    if (matters) ConsumeTurns(p, w, shared);
    MergeOrStoreZeros(p, w, shared);
  }
  End(p);
}

// How a row's queries are shared out: the first `whole` tiles of 128 see their
// keys in one CTA, the others, `rest` tiles of 128 or, in turns, of 64, in
// `parts`.
struct Plan {
  int whole = 0;
  int rest = 0;
  int parts = 1;
  bool turns = false;
};

int Waves(int ctas, int resident) { return CeilDiv(ctas, resident); }

// How many CTAs fetch for each other. An odd tile's peer has no queries of its
// own: nobody, where that would cost a wave or there is no other tile.
int PeersOf(int whole, int rows) {
  const int paired = CeilDiv(whole, kPeersOfWhole) * kPeersOfWhole;
  const bool dear = Waves(paired * rows, kTargetProcessors) >
                    Waves(whole * rows, kTargetProcessors);
  return whole == 1 || dear ? 1 : kPeersOfWhole;
}

// What a CTA costs with a part of the keys: some sevenths of what 128 queries
// and 64 keys do for each tile, and some besides (measured).
struct PartCost {
  bool turns;
  int queries;  // of a tile
  int tile, extra;
};
constexpr PartCost kPartCosts[] = {
    {.turns = false, .queries = OwnShared::kRows, .tile = 7, .extra = 21},
    {.turns = true, .queries = TurnsShared::kRows, .tile = 5, .extra = 13}};

// The shortest makespan: waves of CTAs times a CTA's cost. The rows' tiles are
// alike, so that a row's bits do not depend on its place.
Plan PlanFor(int queries, int rows, int keys) {
  constexpr int kWholeTile = 7, kWholeExtra = 7, kSecondLaunch = 7;
  const int tiles = CeilDiv(queries, OwnShared::kRows);
  const int whole_cost = CeilDiv(keys, kKeys) * kWholeTile + kWholeExtra;
  Plan best;
  int best_cost = 1 << 30;
  // Peers share a batch row, so an odd tile is left over only at its end.
  for (int whole = tiles; whole >= 0; whole = (whole - 1) / 2 * 2) {
    const int first = Waves(whole * rows, kTargetProcessors) * whole_cost;
    if (whole == tiles) {
      best = {.whole = whole}, best_cost = first;
      continue;
    }
    const int boundary = whole > 0 ? kSecondLaunch : 0;
    for (const PartCost& cost : kPartCosts) {
      const int rest =
          CeilDiv(queries - whole * OwnShared::kRows, cost.queries);
      for (const int parts : {1, 2, 3, 4, 6, 8}) {
        constexpr int kMostInTurns = kMostParts / TurnsShared::kSharers;
        if (cost.turns ? parts > kMostInTurns : parts == 1) continue;
        const int resident =
            parts <= 2 ? kTargetProcessors : 4 * kTargetClustersOfFour;
        const int part = CeilDiv(keys, parts * kKeys) * cost.tile + cost.extra;
        const int all =
            first + Waves(rest * rows * parts, resident) * part + boundary;
        if (all < best_cost) {
          best = {whole, rest, parts, cost.turns};
          best_cost = all;
        }
      }
    }
    if (whole == 0) break;
  }
  return best;
}

cudaError_t EncodeQueries(const AttentionArgs& a, CUtensorMap* map) {
  const auto heads = static_cast<std::uint32_t>(a.heads);
  const std::uint64_t token = static_cast<std::uint64_t>(a.token_stride) * 2;
  BoxedTensor q;
  q.data = a.q;
  q.rank = 5;  // column, head, token, block of columns, row
  const std::uint64_t size[] = {64, heads, static_cast<std::uint64_t>(a.tokens),
                                kBlocks, static_cast<std::uint64_t>(a.rows)};
  const std::uint64_t stride[] = {kDim * 2, token, 128, a.tokens * token};
  const std::uint32_t box[] = {64, heads, kGroupRows / heads, kBlocks, 1};
  std::copy(std::begin(size), std::end(size), q.size);
  std::copy(std::begin(stride), std::end(stride), q.stride_bytes);
  std::copy(std::begin(box), std::end(box), q.box);
  return EncodeTensorMap(q, map);
}

cudaError_t EncodeCache(const AttentionArgs& a, const __nv_bfloat16* cache,
                        CUtensorMap* map) {
  // How many rows it has is unknown here, and nobody asks for one it has not.
  constexpr std::uint64_t kManyRows = 1 << 20;
  const auto keys = static_cast<std::uint64_t>(a.cache_len);
  BoxedTensor tensor;
  tensor.data = cache;
  tensor.rank = 4;  // column, key, block of columns, row
  const std::uint64_t size[] = {64, keys, kBlocks, kManyRows};
  const std::uint64_t stride[] = {kDim * 2, 128, keys * kDim * 2};
  const std::uint32_t box[] = {64, kKeys, kCopyBlocks, 1};
  std::copy(std::begin(size), std::end(size), tensor.size);
  std::copy(std::begin(stride), std::end(stride), tensor.stride_bytes);
  std::copy(std::begin(box), std::end(box), tensor.box);
  return EncodeTensorMap(tensor, map);
}

template <typename Shared>
cudaError_t LaunchClusters(void (*kernel)(Params), const Params& p, int cluster,
                           int count, cudaStream_t stream) {
  LaunchShape shape;
  shape.cluster = cluster;
  shape.grid = dim3(cluster, count);
  shape.threads = kThreads;
  shape.shared_bytes = kBytesFor<Shared>;
  return Launch(kernel, shape, stream, p);
}

// p.tiles tiles of 128 queries of each row, by clusters that stay.
template <int kPeers>
cudaError_t LaunchWhole(const Params& p, cudaStream_t stream) {
  const int items = CeilDiv(p.tiles, kPeers) * p.args.rows;
  const int clusters = std::min(items, kTargetProcessors / kPeers);
  return LaunchClusters<OwnShared>(OwnKernel<kPeers, false>, p, kPeers,
                                   clusters, stream);
}

// The queries behind those of plan.whole tiles.
cudaError_t LaunchParts(Params p, const Plan& plan, cudaStream_t stream) {
  p.first_query = plan.whole * OwnShared::kRows;
  p.tiles = plan.rest;
  const int count = p.tiles * p.args.rows;
  return plan.turns ? LaunchClusters<TurnsShared>(TurnsKernel, p, plan.parts,
                                                  count, stream)
                    : LaunchClusters<OwnShared>(OwnKernel<1, true>, p,
                                                plan.parts, count, stream);
}

cudaError_t LaunchAll(const AttentionArgs& args, cudaStream_t stream) {
  Params p;
  p.args = args;
  p.scale = kLog2E / std::sqrt(static_cast<float>(kDim));
  cudaError_t error = EncodeQueries(args, &p.q);
  if (error == cudaSuccess) error = EncodeCache(args, args.cache_k, &p.k);
  if (error == cudaSuccess) error = EncodeCache(args, args.cache_v, &p.v);
  if (error != cudaSuccess) return error;
  const Plan plan =
      PlanFor(args.tokens * args.heads, args.rows, args.cache_len);
  const bool two = plan.whole > 0 && plan.rest > 0;
  const bool overlap = two && args.begun != nullptr;
  p.tiles = plan.whole;
  p.turn = overlap ? Turn::kFirst : Turn::kOnly;
  if (plan.whole > 0) {
    error = PeersOf(plan.whole, args.rows) == 1
                ? LaunchWhole<1>(p, stream)
                : LaunchWhole<kPeersOfWhole>(p, stream);
  }
  if (error != cudaSuccess || plan.rest == 0) return error;
  p.turn = overlap ? Turn::kSecond : Turn::kOnly;
  return LaunchParts(p, plan, stream);
}

}  // namespace
}  // namespace warpgroup_attention

cudaError_t LaunchWarpgroupAttention(const AttentionArgs& args,
                                     cudaStream_t stream) {
  return WarpgroupAttentionSupports(args)
             ? warpgroup_attention::LaunchAll(args, stream)
             : cudaErrorInvalidValue;
}

}  // namespace piserve::kernels
