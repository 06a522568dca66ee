// SPDX-License-Identifier: Apache-2.0
// An item is 128 query rows (token-major, head-minor) of one batch row and a
// run of its keys. Two consumer warpgroups take 64 query rows each; a thread of
// a third keeps a ring of four tiles of 64 keys' k or v full by bulk copies.
// Where queries are many, two CTAs with neighbouring queries form a cluster,
// fetch half of each tile for both and go on from item to item, the copies
// ahead; where they are few, the CTAs of a cluster have runs of the keys of the
// same queries and merge at the end through distributed shared memory. Bound by
// tensor cores and shared memory: 64 keys cost 2048 cycles of the former and
// 1888 of the latter's bandwidth (operands 1376, arriving tiles 512).
#include <algorithm>
#include <cmath>
#include <cstdint>

#include "model/kernels/attention.h"
#include "model/kernels/launch.cuh"
#include "model/kernels/processors.h"
#include "model/kernels/tma.cuh"
#include "model/kernels/warpgroup_attention/begin.cuh"
#include "model/kernels/warpgroup_attention/consume.cuh"
#include "model/kernels/warpgroup_attention/finish.cuh"
#include "model/kernels/warpgroup_attention/produce.cuh"
#include "model/kernels/warpgroup_attention/ring.cuh"
#include "model/kernels/warpgroup_attention/work.cuh"

namespace piserve::kernels {
namespace warpgroup_attention {
namespace {

// CTAs that fetch k and v for each other where keys are not split; 1 or 2.
constexpr int kPeersOfWhole = 2;

template <int kPeers>
__device__ void InitBarriers(Shared& shared) {
  constexpr int kGroupWarps = kGroup / 32;
  for (int slot = 0; slot < kSlots; ++slot) {
    BarrierInit(&shared.full[slot], 1);
    BarrierInit(&shared.empty[slot], kPeers * kTakers);
  }
  for (int group = 0; group < kConsumers; ++group) {
    BarrierInit(&shared.full_q[group], 1);
    BarrierInit(&shared.empty_q[group], kGroupWarps);
  }
  BarrierInit(&shared.clean_last, 1 + kConsumers * kGroupWarps);
  FenceBarrierInit();
}

// kPeers CTAs of a cluster fetch for each other; or, with kParts, each has a
// part of the keys.
template <int kPeers, bool kParts>
__device__ void RunProducer(const Params& p, Shared& shared) {
  GiveRegisters<kProducerRegisters>();
  if (threadIdx.x == 0) Produce<kPeers>(p, shared);
  if (threadIdx.x >= 32) CleanLastValues<kPeers>(p, shared);
  if (kParts || kPeers > 1) ClusterSync();
  if (kParts) ClusterLeave();  // behind the merge
}

// The one item whose keys this cluster's CTAs have parts of.
__device__ void ConsumePart(const Params& p, Shared& shared) {
  const Work w = WorkOf<1>(p, static_cast<int>(blockIdx.y));
  if (w.Matters()) {
    Consumer c;
    Consume<1>(p, w, shared, c);
    // Both warpgroups are past the last tile before its place is taken.
    asm volatile("bar.sync 3, %0;" ::"n"(kConsumers * kGroup) : "memory");
    StorePartial(shared, c);
    ClusterSync();
    Merge(p, w, shared);
  } else {
    if (blockIdx.x == 0) StoreZeros(p, w);
    ClusterSync();
  }
  ClusterLeave();
}

template <int kPeers>
__device__ void ConsumeItems(const Params& p, Shared& shared) {
  Consumer c;
  ForEachItem<kPeers>(p, [&](const Work& w) {
    if (w.Matters()) Consume<kPeers>(p, w, shared, c);
    // All copies to this CTA have landed, and what it released has arrived
    // before a peer leaves. Here, before this item's stores are on their way.
    if (kPeers > 1 && w.last) ClusterArrive();
    if (w.Matters()) {
      StoreResult(p, w, shared, c);
    } else {
      StoreZeros(p, w);
    }
  });
  if (kPeers > 1) ClusterWait();
}

template <int kPeers, bool kParts>
__global__ void __launch_bounds__(kThreads, 1)
    WarpgroupAttentionKernel(const __grid_constant__ Params p) {
  extern __shared__ char raw[];
  auto& shared = AlignShared<Shared>(raw);
  if (p.turn != Turn::kFirst) LetNextStart();
  if (threadIdx.x == 0) {
    PrefetchTensorMap(p.q);
    PrefetchTensorMap(p.k);
    PrefetchTensorMap(p.v);
    InitBarriers<kPeers>(shared);
  }
  AwaitFirst(p);
  __syncthreads();
  if (kPeers > 1) ClusterArriveRelaxed();
  Begin(p);
  if (kPeers > 1) ClusterWait();  // all peers' barriers are there
  if (threadIdx.x < kGroup) {
    RunProducer<kPeers, kParts>(p, shared);
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

// Which of a row's tiles of queries see their keys in one CTA, the first
// `whole`, and into how many parts the others' keys are split.
struct Plan {
  int whole = 0;
  int splits = 1;
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

// The shortest makespan, counted in tiles of keys: waves of CTAs times a CTA's
// tiles and what it costs besides. The rows' tiles are alike, so that a row's
// bits do not depend on its place.
Plan PlanFor(int tiles, int rows, int keys) {
  constexpr int kWholeExtra = 1, kSplitExtra = 3, kSecondLaunch = 1;
  const int whole_cost = CeilDiv(keys, kKeys) + kWholeExtra;
  Plan best;
  int best_cost = 1 << 30;
  // Peers share a batch row, so an odd tile is left over only at its end.
  for (int whole = tiles; whole >= 0; whole = (whole - 1) / 2 * 2) {
    const int first = Waves(whole * rows, kTargetProcessors) * whole_cost;
    for (const int splits : {1, 2, 3, 4, 6, 8}) {
      if ((whole == tiles) != (splits == 1)) continue;
      const int part = CeilDiv(keys, splits * kKeys);
      const int second = Waves((tiles - whole) * rows * splits,
                               splits == 2 ? kTargetProcessors : 120) *
                         (part + kSplitExtra);
      const int boundary = whole > 0 && whole < tiles ? kSecondLaunch : 0;
      const int cost = first + second + boundary;
      if (cost < best_cost) best = {whole, splits}, best_cost = cost;
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

template <int kPeers, bool kParts>
cudaError_t LaunchClusters(const Params& p, int cluster, int count,
                           cudaStream_t stream) {
  LaunchShape shape;
  shape.cluster = cluster;
  shape.grid = dim3(cluster, count);
  shape.threads = kThreads;
  shape.shared_bytes = kBytesFor<Shared>;
  return Launch(WarpgroupAttentionKernel<kPeers, kParts>, shape, stream, p);
}

// p.tiles tiles of queries of each row, by clusters that stay.
template <int kPeers>
cudaError_t LaunchWhole(const Params& p, cudaStream_t stream) {
  const int items = CeilDiv(p.tiles, kPeers) * p.args.rows;
  const int clusters = std::min(items, kTargetProcessors / kPeers);
  return LaunchClusters<kPeers, false>(p, kPeers, clusters, stream);
}

cudaError_t LaunchAll(const AttentionArgs& args, cudaStream_t stream) {
  Params p;
  p.args = args;
  p.scale = kLog2E / std::sqrt(static_cast<float>(kDim));
  cudaError_t error = EncodeQueries(args, &p.q);
  if (error == cudaSuccess) error = EncodeCache(args, args.cache_k, &p.k);
  if (error == cudaSuccess) error = EncodeCache(args, args.cache_v, &p.v);
  if (error != cudaSuccess) return error;
  const int tiles = CeilDiv(args.tokens * args.heads, kRows);
  const Plan plan = PlanFor(tiles, args.rows, args.cache_len);
  const bool two = plan.whole > 0 && plan.whole < tiles;
  const bool overlap = two && args.begun != nullptr;
  p.tiles = plan.whole;
  p.turn = overlap ? Turn::kFirst : Turn::kOnly;
  if (plan.whole > 0) {
    error = PeersOf(plan.whole, args.rows) == 1
                ? LaunchWhole<1>(p, stream)
                : LaunchWhole<kPeersOfWhole>(p, stream);
  }
  if (error != cudaSuccess || plan.whole == tiles) return error;
  p.first_tile = plan.whole;
  p.tiles = tiles - plan.whole;
  p.turn = overlap ? Turn::kSecond : Turn::kOnly;
  return LaunchClusters<1, true>(p, plan.splits, p.tiles * args.rows, stream);
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
