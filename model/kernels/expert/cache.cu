// SPDX-License-Identifier: Apache-2.0
#include "model/kernels/expert/cache.h"
#include "model/kernels/expert/layout.h"

namespace piserve::kernels::expert {
namespace {

constexpr int kArrangeThreads = 256;
constexpr int kTileJobs = kExpertDepth * kTiles * 2;  // keys, values
constexpr int kClearJobs = 256;

// A pair of RoPE partners, or two neighbouring value dimensions.
__device__ unsigned Pair(const __nv_bfloat16* row, int first, int second) {
  const auto bits = [&](int i) {
    return static_cast<unsigned>(__bfloat16_as_ushort(row[i]));
  };
  return bits(first) | bits(second) << 16;
}

__device__ uint4 KeyPacket(const __nv_bfloat16* row, int column8) {
  unsigned w[4];
  for (int i = 0; i < 4; ++i) {
    const int d = RopeDim(kFirstKeyGroup + column8, i);
    w[i] = Pair(row, d, d + 128);
  }
  return make_uint4(w[0], w[1], w[2], w[3]);
}

__device__ uint4 ValuePacket(const __nv_bfloat16* row, int column8) {
  unsigned w[4];
  for (int i = 0; i < 4; ++i) {
    w[i] = Pair(row, ValueDim(column8, 2 * i), ValueDim(column8, 2 * i + 1));
  }
  return make_uint4(w[0], w[1], w[2], w[3]);
}

// A tile's keys or values as the engine keeps them. A row more than 256
// elements apart, so that eight keys lie in different banks.
struct Rows {
  uint4 piece[kTileKeys][kHeadDim / 8 + 1];
};

// Zeros past the prefix.
__device__ void LoadRows(const __nv_bfloat16* from, int tile, int prefix,
                         Rows& rows) {
  for (int i = threadIdx.x; i < kTileKeys * kHeadDim / 8;
       i += kArrangeThreads) {
    const int key = i / (kHeadDim / 8), piece = i % (kHeadDim / 8);
    const long position = tile * kTileKeys + key;
    rows.piece[key][piece] =
        position < prefix
            ? reinterpret_cast<const uint4*>(from + position * kHeadDim)[piece]
            : make_uint4(0, 0, 0, 0);
  }
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
