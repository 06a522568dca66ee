// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda.h>
#include <cudaTypedefs.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "model/kernels/mma.cuh"

// Copies of boxes of a bf16 tensor by the tensor memory accelerator, the
// barriers they complete on, and those barriers within a cluster.
namespace piserve::kernels {

// How a box's rows lie in shared memory: one after another, or, 64 elements
// long, with the 16-byte pieces of row r permuted by piece ^ (r % 8).
enum class Swizzle { kNone, k128Bytes };

// A tensor as a kernel's copies see it, dimension 0 contiguous. What a box has
// beyond the tensor reads as zeros.
struct BoxedTensor {
  static constexpr int kMaxRank = 5;

  const void* data = nullptr;  // 16-byte aligned
  int rank = 0;
  std::uint64_t size[kMaxRank] = {};
  std::uint64_t stride_bytes[kMaxRank - 1] = {};  // of dimensions 1 ..
  std::uint32_t box[kMaxRank] = {};
  Swizzle swizzle = Swizzle::k128Bytes;
};

// The map for boxes of which the rows lie in the order of the box's dimensions.
// Made on the host; part of a kernel's parameters.
inline cudaError_t EncodeTensorMap(const BoxedTensor& tensor,
                                   CUtensorMap* map) {
  void* entry = nullptr;
  cudaDriverEntryPointQueryResult found;
  const cudaError_t error = cudaGetDriverEntryPointByVersion(
      "cuTensorMapEncodeTiled", &entry, 12000, cudaEnableDefault, &found);
  if (error != cudaSuccess) return error;
  if (found != cudaDriverEntryPointSuccess) return cudaErrorNotSupported;
  constexpr std::uint32_t kElementStrides[] = {1, 1, 1, 1, 1};
  const CUresult result = reinterpret_cast<PFN_cuTensorMapEncodeTiled_v12000>(
      entry)(map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, tensor.rank,
             const_cast<void*>(tensor.data), tensor.size, tensor.stride_bytes,
             tensor.box, kElementStrides, CU_TENSOR_MAP_INTERLEAVE_NONE,
             tensor.swizzle == Swizzle::kNone ? CU_TENSOR_MAP_SWIZZLE_NONE
                                              : CU_TENSOR_MAP_SWIZZLE_128B,
             CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
             CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  return result == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue;
}

// The map for boxes of `box_rows` rows by 64 columns of data [rows, columns].
inline cudaError_t EncodeRowsMap(const __nv_bfloat16* data, int rows,
                                 int columns, int box_rows, CUtensorMap* map) {
  const auto width = static_cast<std::uint64_t>(columns);
  return EncodeTensorMap({.data = data,
                          .rank = 2,
                          .size = {width, static_cast<std::uint64_t>(rows)},
                          .stride_bytes = {2 * width},
                          .box = {64, static_cast<std::uint32_t>(box_rows)}},
                         map);
}

__device__ inline void PrefetchTensorMap(const CUtensorMap& map) {
  asm volatile("prefetch.tensormap [%0];\n" ::"l"(&map) : "memory");
}

// Copies made by this thread see what it may see of global memory.
__device__ inline void FenceGlobalForCopies() {
  asm volatile("fence.proxy.async.global;\n" ::: "memory");
}

// Barriers initialised by this thread may be used by the cluster and by copies
// once the CTAs have synchronised.
__device__ inline void FenceBarrierInit() {
  asm volatile("fence.mbarrier_init.release.cluster;\n" ::: "memory");
}

// Arrives and announces bytes that copies will bring.
__device__ inline void BarrierArriveExpecting(std::uint64_t* barrier,
                                              int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;\n" ::"r"(
                   SharedAddress(barrier)),
               "r"(bytes)
               : "memory");
}

// Where CTA `rank` of the cluster has what this one has here.
__device__ inline std::uint32_t PeerAddress(const void* here, int rank) {
  std::uint32_t there;
  asm("mapa.shared::cluster.u32 %0, %1, %2;\n"
      : "=r"(there)
      : "r"(SharedAddress(here)), "r"(rank));
  return there;
}

// Arrives on CTA `rank`'s barrier at this address, releasing at CTA scope, as
// CUTLASS's ClusterBarrier does: behind it lie no writes, only reads by wgmma
// that are complete. (A release at cluster scope would fence the whole device.)
__device__ inline void BarrierArriveAfterReads(std::uint64_t* barrier,
                                               int rank) {
  asm volatile("mbarrier.arrive.shared::cluster.b64 _, [%0];\n" ::"r"(
                   PeerAddress(barrier, rank))
               : "memory");
}

// The same, releasing writes too at the cluster's scope.
__device__ inline void BarrierArriveAfterWrites(std::uint64_t* barrier,
                                                int rank) {
  asm volatile(
      "mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%0];\n" ::"r"(
          PeerAddress(barrier, rank))
      : "memory");
}

// Writes to a CTA of the cluster.
__device__ inline void StoreToPeer(std::uint32_t address, const float4& v) {
  asm volatile(
      "st.shared::cluster.v4.f32 [%0], {%1, %2, %3, %4};\n" ::"r"(address),
      "f"(v.x), "f"(v.y), "f"(v.z), "f"(v.w)
      : "memory");
}

// Waits for arrivals from all of the cluster.
__device__ inline void BarrierWaitForCluster(std::uint64_t* barrier,
                                             int parity) {
  asm volatile(
      "{\n.reg .pred done;\n"
      "again%=:\n"
      "mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 done, [%0], "
      "%1;\n"
      "@!done bra again%=;\n}\n" ::"r"(SharedAddress(barrier)),
      "r"(parity)
      : "memory");
}

// The two halves of a barrier of the cluster. Relaxed, it orders nothing but
// what FenceBarrierInit fenced.
__device__ inline void ClusterArrive() {
  __syncwarp();
  asm volatile("barrier.cluster.arrive.release.aligned;\n" ::: "memory");
}
__device__ inline void ClusterArriveRelaxed() {
  __syncwarp();
  asm volatile("barrier.cluster.arrive.relaxed.aligned;\n" ::: "memory");
}
__device__ inline void ClusterWait() {
  __syncwarp();
  asm volatile("barrier.cluster.wait.acquire.aligned;\n" ::: "memory");
}

// The CTA's barriers are there for all of its threads, and behind ClusterWait
// its peers' are, too.
template <typename Barriers>
__device__ __forceinline__ void InitClusterBarriers(Barriers& barriers) {
  if (threadIdx.x == 0) barriers.InitBarriers();
  __syncthreads();
  ClusterArriveRelaxed();
}

// Copies the box at these coordinates; `full` counts its bytes.
__device__ inline void CopyBox(const CUtensorMap& map, void* to,
                               std::uint64_t* full, int c0, int c1) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::"
      "complete_tx::bytes [%0], [%1, {%3, %4}], [%2];\n" ::"r"(
          SharedAddress(to)),
      "l"(&map), "r"(SharedAddress(full)), "r"(c0), "r"(c1)
      : "memory");
}
__device__ inline void CopyBox(const CUtensorMap& map, void* to,
                               std::uint64_t* full, int c0, int c1, int c2,
                               int c3) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::"
      "complete_tx::bytes [%0], [%1, {%3, %4, %5, %6}], [%2];\n" ::"r"(
          SharedAddress(to)),
      "l"(&map), "r"(SharedAddress(full)), "r"(c0), "r"(c1), "r"(c2), "r"(c3)
      : "memory");
}
__device__ inline void CopyBox(const CUtensorMap& map, void* to,
                               std::uint64_t* full, int c0, int c1, int c2,
                               int c3, int c4) {
  asm volatile(
      "cp.async.bulk.tensor.5d.shared::cluster.global.tile.mbarrier::"
      "complete_tx::bytes [%0], [%1, {%3, %4, %5, %6, %7}], [%2];\n" ::"r"(
          SharedAddress(to)),
      "l"(&map), "r"(SharedAddress(full)), "r"(c0), "r"(c1), "r"(c2), "r"(c3),
      "r"(c4)
      : "memory");
}

// The same to this place, and with this barrier, in every CTA of `ctas`.
__device__ inline void CopyBoxTo(std::uint16_t ctas, const CUtensorMap& map,
                                 void* to, std::uint64_t* full, int c0,
                                 int c1) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::"
      "complete_tx::bytes.multicast::cluster [%0], [%1, {%3, %4}], [%2], "
      "%5;\n" ::"r"(SharedAddress(to)),
      "l"(&map), "r"(SharedAddress(full)), "r"(c0), "r"(c1), "h"(ctas)
      : "memory");
}
__device__ inline void CopyBoxTo(std::uint16_t ctas, const CUtensorMap& map,
                                 void* to, std::uint64_t* full, int c0, int c1,
                                 int c2, int c3) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::"
      "complete_tx::bytes.multicast::cluster [%0], [%1, {%3, %4, %5, %6}], "
      "[%2], %7;\n" ::"r"(SharedAddress(to)),
      "l"(&map), "r"(SharedAddress(full)), "r"(c0), "r"(c1), "r"(c2), "r"(c3),
      "h"(ctas)
      : "memory");
}

// Of kRows rows of 64 columns from (column, row) on, which lie at `tile`, this
// CTA's share, to all kPeers CTAs of the cluster. It may begin between two
// patterns of the swizzle: those go by the address.
template <int kPeers, int kRows>
__device__ __forceinline__ void CopyShareToAll(const CUtensorMap& map,
                                               char* tile, std::uint64_t* full,
                                               int column, int row) {
  constexpr int kShare = kRows / kPeers;
  static_assert(kRows % kPeers == 0);
  const int first = static_cast<int>(blockIdx.x) % kPeers * kShare;
  CopyBoxTo((1 << kPeers) - 1, map, tile + first * 128, full, column,
            row + first);
}

// Copies the box at these coordinates from shared memory to the tensor; a group
// of its own.
__device__ inline void CopyBoxBack(const CUtensorMap& map, const void* from,
                                   int c0, int c1) {
  asm volatile(
      "cp.async.bulk.tensor.2d.global.shared::cta.tile.bulk_group [%0, {%2, "
      "%3}], [%1];\n"
      "cp.async.bulk.commit_group;\n" ::"l"(&map),
      "r"(SharedAddress(from)), "r"(c0), "r"(c1)
      : "memory");
}
__device__ inline void CopyBoxBack(const CUtensorMap& map, const void* from,
                                   int c0, int c1, int c2) {
  asm volatile(
      "cp.async.bulk.tensor.3d.global.shared::cta.tile.bulk_group [%0, {%2, "
      "%3, %4}], [%1];\n"
      "cp.async.bulk.commit_group;\n" ::"l"(&map),
      "r"(SharedAddress(from)), "r"(c0), "r"(c1), "r"(c2)
      : "memory");
}

// Waits until all that this thread copies back has been read from shared
// memory. The kernel's end waits for the rest.
__device__ inline void WaitForCopiesRead() {
  asm volatile("cp.async.bulk.wait_group.read 0;\n" ::: "memory");
}

}  // namespace piserve::kernels
