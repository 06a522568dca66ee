// SPDX-License-Identifier: Apache-2.0
#include "model/kernels/expert/cache.h"
#include "model/kernels/expert/layout.h"
#include "model/kernels/mma.cuh"

namespace piserve::kernels::expert {
namespace {

constexpr int kArrangeThreads = 256;
constexpr int kTileJobs = kExpertDepth * kTiles * 2;  // keys, values
constexpr int kClearJobs = 256;

// Pairs of RoPE partners: four neighbouring dimensions and those 128 further.
__device__ uint4 KeyPacket(const __nv_bfloat16* row, int column8) {
  static_assert(RopeDim(0, 3) == RopeDim(0, 0) + 3);
  const int d = RopeDim(kFirstKeyGroup + column8, 0);
  const uint2 first = *reinterpret_cast<const uint2*>(row + d);
  const uint2 second = *reinterpret_cast<const uint2*>(row + d + 128);
  constexpr unsigned kLow = 0x5410, kHigh = 0x7632;
  return make_uint4(__byte_perm(first.x, second.x, kLow),
                    __byte_perm(first.x, second.x, kHigh),
                    __byte_perm(first.y, second.y, kLow),
                    __byte_perm(first.y, second.y, kHigh));
}

// Two neighbouring value dimensions a word.
__device__ uint4 ValuePacket(const __nv_bfloat16* row, int column8) {
  static_assert(ValueDim(0, 1) == ValueDim(0, 0) + 1);
  const auto pair = [&](int i) {
    return *reinterpret_cast<const unsigned*>(row + ValueDim(column8, 2 * i));
  };
  return make_uint4(pair(0), pair(1), pair(2), pair(3));
}

// A tile's keys or values as the engine keeps them. A row more than 256
// elements apart, so that eight keys lie in different banks.
struct Rows {
  uint4 piece[kTileKeys][kHeadDim / 8 + 1];
};

// Zeros past the prefix. All of a thread's pieces are on their way at once.
__device__ void LoadRows(const __nv_bfloat16* from, int tile, int prefix,
                         Rows& rows) {
  constexpr int kPieces = kHeadDim / 8;  // a key's, of 16 bytes
#pragma unroll
  for (int i = threadIdx.x; i < kTileKeys * kPieces; i += kArrangeThreads) {
    const int key = i / kPieces, piece = i % kPieces;
    const long position = tile * kTileKeys + key;
    CopyAsync16(&rows.piece[key][piece], from + position * kHeadDim + piece * 8,
                position < prefix);
  }
  CopyAsyncCommit();
  CopyAsyncWait<0>();
}

// Eight keys by four packets a warp: whole sectors.
__device__ void ArrangeTile(const ExpertArgs& a, int row, int layer, int tile,
                            bool values, char* workspace) {
  __shared__ Rows rows;
  const int prefix = a.call[row].prefix;
  if (!TileIsLive(tile, prefix)) return;
  LoadRows((values ? a.cache_v : a.cache_k) + layer * a.cache_stride +
               row * a.row_stride,
           tile, prefix, rows);
  __syncthreads();
  char* to = workspace +
             (layer * kTiles + tile) * static_cast<long>(kTileBytes) +
             (values ? kTileValues : 0);
  for (int i = threadIdx.x; i < 32 * kTileKeys; i += kArrangeThreads) {
    const int key = (i & 7) + 8 * ((i >> 5) & 7);
    const int column8 = ((i >> 3) & 3) + 4 * (i >> 8);
    const auto* row = reinterpret_cast<const __nv_bfloat16*>(rows.piece[key]);
    *reinterpret_cast<uint4*>(to + TileAt(column8, key)) =
        values ? ValuePacket(row, column8) : KeyPacket(row, column8);
  }
}

// A tag no first use waits for.
__device__ void ClearMail(char* workspace, int job) {
  constexpr long kPackets = (Workspace::kBytes - Workspace::kMail) / 16;
  uint4* mail = reinterpret_cast<uint4*>(workspace + Workspace::kMail);
  for (long i = job * kArrangeThreads + threadIdx.x; i < kPackets;
       i += kClearJobs * kArrangeThreads) {
    mail[i] = make_uint4(~0u, ~0u, ~0u, ~0u);
  }
}

__global__ void __launch_bounds__(kArrangeThreads)
    ArrangeCacheKernel(const __grid_constant__ ExpertArgs args) {
  const int job = blockIdx.x, row = blockIdx.y;
  char* workspace =
      static_cast<char*>(args.workspace) + row * Workspace::kBytes;
  if (job >= kTileJobs) {
    ClearMail(workspace, job - kTileJobs);
    return;
  }
  ArrangeTile(args, row, job / (2 * kTiles), (job / 2) % kTiles, job % 2 == 1,
              workspace);
}

}  // namespace

cudaError_t LaunchArrangeCache(const ExpertArgs& args, cudaStream_t stream) {
  ArrangeCacheKernel<<<dim3(kTileJobs + kClearJobs, args.rows), kArrangeThreads,
                       0, stream>>>(args);
  return cudaGetLastError();
}

}  // namespace piserve::kernels::expert
