// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "model/kernels/expert/expert.h"

// Who holds what, and where: shared by packing, cache preparation and the
// denoising kernel.
namespace piserve::kernels::expert {

inline constexpr int kBlocks = kExpertProcessors;  // one each
inline constexpr int kRows = 64;  // token slots; one wgmma tile
inline constexpr int kHeads = 8;
inline constexpr int kHeadDim = 256;
inline constexpr int kTiles = 16;  // of 64 keys; the last holds the suffix
inline constexpr int kCachedTiles = kTiles - 1;
inline constexpr int kTileKeys = 64;
inline constexpr int kQkvGroups = 320;  // of 8 output columns
inline constexpr int kLayerShift = kQkvGroups * 8 + 2 * kExpertMlp;
inline constexpr int kShiftRow =
    kExpertDepth * kLayerShift + kExpertActionDim;  // floats a time step
inline constexpr int kModulationRow = kExpertNorms * 3 * kExpertWidth;

// Activations that a matrix multiplies travel as wgmma A fragments: packet
// (step, tile, lane) holds, of rows 16 tile + lane / 4 and the one 8 below,
// columns 16 step + 4 (lane % 4) .. + 3, in the order upper, lower (columns 0
// and 1), upper, lower (columns 2 and 3).
inline constexpr int kStepBytes = kRows * 16 * 2;  // 16 columns of all rows

__host__ __device__ constexpr int FragmentAt(int step, int tile, int lane) {
  return step * kStepBytes + (tile * 32 + lane) * 16;
}

// So the wgmma's k index p stands for this column of the activation.
__host__ __device__ constexpr int ColumnOf(int p) {
  return (p & ~15) + 4 * ((p & 7) >> 1) + 2 * ((p >> 3) & 1) + (p & 1);
}

// What one block makes of one row, Pi0's z, travels as packets of 8 columns,
// [columns / 32][row][4]; a fragment's words come from two packets.
__host__ __device__ constexpr int PacketAt(int column8, int row) {
  return (((column8 >> 2) * kRows + row) * 4 + (column8 & 3)) * 16;
}
__host__ __device__ constexpr int SuffixColumnOf(int p) {
  return (p & ~31) + 8 * ((p & 7) >> 1) + 4 * ((p >> 4) & 1) +
         2 * ((p >> 3) & 1) + (p & 1);
}

// QKV's output columns come in 320 groups of 8: 256 of queries, 32 of keys, 32
// of values. Every block takes a pair of query groups, one step of a head's
// fragments; blocks 0 to 63 also a group of keys or values.
inline constexpr int kFirstKeyGroup = 256;
inline constexpr int kFirstValueGroup = 288;

__host__ __device__ constexpr int GroupCount(int block) {
  return block < 64 ? 3 : 2;
}
__host__ __device__ constexpr int GroupOf(int block, int n) {
  return n < 2 ? 2 * block + n : kFirstKeyGroup + block;
}

// Queries and keys keep RoPE's partners d and d + 128 in adjacent columns; a
// group is eight consecutive k indices of Q K^T. This is the first partner in
// columns 2 * pair and 2 * pair + 1 of a group.
__host__ __device__ constexpr int RopeDim(int group, int pair) {
  return 4 * (group & 31) + pair;
}

// Value group g of 32: g / 16 is the half of the head's dimensions. After P V a
// lane then holds 32 consecutive dimensions.
__host__ __device__ constexpr int ValueDim(int group, int x) {
  return 128 * (group >> 4) + 32 * (x >> 1) + 2 * (group & 15) + (x & 1);
}

// Output column of position n (of 64) in the O and down projections: a lane
// holds 8 consecutive columns of either half of the positions.
__host__ __device__ constexpr int SumColumn(int n) {
  return 16 * ((n & 7) >> 1) + 2 * (n >> 3) + (n & 1);
}

// MLP column (of a block's 32) whose gate (n even) or up (n odd) is position n
// (of 64): either half of the positions makes a step of fragments.
__host__ __device__ constexpr int GateColumn(int n) {
  return 16 * (n >> 5) + 4 * ((n & 7) >> 1) + ((n >> 3) & 3);
}

// Packed weights: [layer][block] of QKV, O, gate-up and down, then
// [block] of the suffix MLP. Within a matrix, wgmma core matrices of 8 columns
// n by 8 k indices in the order [k / 8][n / 8].
inline constexpr long kGroupBytes = 8L * kExpertWidth * 2;
inline constexpr long kOutBytes = 64L * kHeadDim * 2;
inline constexpr long kGateUpBytes = 64L * kExpertWidth * 2;
inline constexpr long kDownBytes = 64L * 512 * 2;
inline constexpr long kBlockBytes =
    2 * kGroupBytes + kOutBytes + kGateUpBytes + kDownBytes;
inline constexpr long kLayerBytes = kBlocks * kBlockBytes + 64 * kGroupBytes;
inline constexpr long kPackedBytes =
    kExpertDepth * kLayerBytes + kBlocks * kGroupBytes;

__host__ __device__ constexpr long PackedAt(int layer, int block) {
  return layer * kLayerBytes + block * kBlockBytes +
         (block < 64 ? block : 64) * kGroupBytes;
}

// A tile of the arranged cache: keys, then the two halves of the values.
inline constexpr int kTileBytes = 65536;
inline constexpr int kTileValues = 32768;

// Offset of the 16 bytes (8 columns `column8`, key) in either.
__host__ __device__ constexpr int TileAt(int column8, int key) {
  return (column8 * 8 + (key >> 3)) * 128 + (key & 7) * 16;
}

// A sequence's workspace: the arranged cache, then what blocks send each other.
struct Workspace {
  static constexpr long kMail = long{kExpertDepth} * kTiles * kTileBytes;
  static constexpr long kMatrix = kRows * kExpertWidth * 2;
  static constexpr long kPartial = 8L * kRows * kExpertWidth * 4;
  static constexpr long kSums = kBlocks * kRows * 2L;

  static constexpr long kAttentionIn = kMail;  // x * gain, to QKV and the end
  static constexpr long kMlpIn = kAttentionIn + kMatrix;  // to gate-up
  static constexpr long kAttentionSums = kMlpIn + kMatrix;
  static constexpr long kMlpSums = kAttentionSums + kSums;
  static constexpr long kQuery = kMlpSums + kSums;
  static constexpr long kKey = kQuery + kHeads * kRows * kHeadDim * 2;
  static constexpr long kValue = kKey + kRows * kHeadDim * 2;
  static constexpr long kState = kValue + kRows * kHeadDim * 2;
  static constexpr long kSplit = kState + kExpertDepth * 64 * 16;
  static constexpr long kSplitStats = kSplit + 16L * 8 * kRows * 128 * 2;
  static constexpr long kAttended = kSplitStats + 16L * 8 * kRows * 16;
  static constexpr long kOutPartial = kAttended + kHeads * kRows * kHeadDim * 2;
  static constexpr long kGated = kOutPartial + kPartial;
  static constexpr long kDownPartial = kGated + kRows * kExpertMlp * 2L;
  static constexpr long kSuffix = kDownPartial + kPartial;  // z or x_t
  static constexpr long kBytes = kSuffix + kMatrix;
  static_assert(kBytes % 1024 == 0);
};

// Keys of the cache that do not fit the cached tiles and share the suffix's.
__host__ __device__ constexpr int Overflow(int prefix) {
  const int held = kCachedTiles * kTileKeys;
  return prefix > held ? prefix - held : 0;
}

__host__ __device__ constexpr bool TileIsLive(int tile, int prefix) {
  return tile == kTiles - 1 || tile * kTileKeys < prefix;
}

}  // namespace piserve::kernels::expert
