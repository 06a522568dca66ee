// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cute/arch/mma_sm90_gmma.hpp>
#include <utility>

#include "model/kernels/gelu.cuh"
#include "model/kernels/norm_gemm/tile.cuh"
#include "model/kernels/ring_place.cuh"

// A consumer warpgroup: its tokens from shared memory to registers, there into
// the rows' statistics and, as wgmma's first operand, into the products.
namespace piserve::kernels::norm_gemm {

namespace gmma = cute::SM90::GMMA;

// wgmma of 64 tokens from registers by kOut outputs.
template <int kOut>
struct Instruction;
template <>
struct Instruction<112>
    : gmma::MMA_64x112x16_F32BF16BF16_RS<gmma::Major::K, gmma::Major::K> {};
template <>
struct Instruction<144>
    : gmma::MMA_64x144x16_F32BF16BF16_RS<gmma::Major::K, gmma::Major::K> {};
template <>
struct Instruction<160>
    : gmma::MMA_64x160x16_F32BF16BF16_RS<gmma::Major::K, gmma::Major::K> {};
template <>
struct Instruction<208>
    : gmma::MMA_64x208x16_F32BF16BF16_RS<gmma::Major::K, gmma::Major::K> {};

template <int kCount, std::size_t... kIndex>
__device__ __forceinline__ void Multiply(float (&c)[kCount],
                                         const std::uint32_t (&a)[4],
                                         std::uint64_t b, bool accumulate,
                                         std::index_sequence<kIndex...>) {
  Instruction<2 * kCount>::fma(
      a[0], a[1], a[2], a[3], b, c[kIndex]...,
      accumulate ? gmma::ScaleOut::One : gmma::ScaleOut::Zero);
}

// A thread's part of a stage's tokens, as wgmma wants them: of rows
// `lane / 4` (words 0, 2) and 8 further (1, 3) of its warp, 16 inputs a step.
struct Fragment {
  std::uint32_t step[kDepth / 16][4];

  __device__ __forceinline__ void Load(const char* x, int row, int lane) {
#pragma unroll
    for (int i = 0; i < kDepth / 16; ++i) {
      LoadMatrix4(x + SwizzledOffset(kTokens, row, 2 * i + lane / 16), step[i]);
    }
  }
  __device__ __forceinline__ void Hold() {
#pragma unroll
    for (int i = 0; i < kDepth / 16; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) asm volatile("" : "+r"(step[i][j])::"memory");
    }
  }
};

// Sums over a thread's part of its two rows.
struct Statistics {
  float sum[2] = {0, 0}, square[2] = {0, 0};

  __device__ __forceinline__ void Add(const Fragment& f) {
#pragma unroll
    for (int i = 0; i < kDepth / 16; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const float low = __uint_as_float(f.step[i][j] << 16);
        const float high = __uint_as_float(f.step[i][j] & 0xFFFF0000u);
        sum[j % 2] += low + high;
        square[j % 2] = fmaf(low, low, fmaf(high, high, square[j % 2]));
      }
    }
  }
};

// y of a row is scale * c + shift * (sum of w's row), and the bias.
struct RowNorm {
  float scale, shift;

  __device__ __forceinline__ RowNorm(float sum, float square, int in) {
#pragma unroll
    for (int lanes = 1; lanes < 4; lanes *= 2) {
      sum += __shfl_xor_sync(~0u, sum, lanes);
      square += __shfl_xor_sync(~0u, square, lanes);
    }
    const float mean = sum / in;
    scale = rsqrtf(fmaxf(square / in - mean * mean, 0.0f) + 1e-6f);
    shift = -mean * scale;
  }
};

// Outputs that a thread finishes: two neighbours of each eight.
template <int kOut>
struct OutputTerms {
  float2 sums[kOut / 8];
  __nv_bfloat162 bias[kOut / 8];

  __device__ __forceinline__ void Load(const NormGemmArgs& a, int first) {
#pragma unroll
    for (int g = 0; g < kOut / 8; ++g) {
      const int at = min(first + 8 * g, a.out - 2);
      sums[g] = __ldg(reinterpret_cast<const float2*>(a.sums + at));
      bias[g] = __ldg(reinterpret_cast<const __nv_bfloat162*>(a.bias + at));
    }
  }
};

// Four words of each of a quad's lanes: lane i gets everyone's word i.
__device__ __forceinline__ uint4 TransposeQuad(std::uint32_t (&w)[4],
                                               int lane) {
#pragma unroll
  for (int bit = 1; bit < 4; bit *= 2) {
    const bool upper = (lane & bit) != 0;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (i & bit) continue;
      const std::uint32_t received =
          __shfl_xor_sync(~0u, upper ? w[i] : w[i + bit], bit);
      if (upper) {
        w[i] = received;
      } else {
        w[i + bit] = received;
      }
    }
  }
  return make_uint4(w[0], w[1], w[2], w[3]);
}

template <int kOut>
class Consumer {
 public:
  __device__ Consumer(const Params& p, Shared<kOut>& shared)
      : p_(p),
        shared_(shared),
        group_(__shfl_sync(~0u, threadIdx.x / kGroup, 0) - 1),
        lane_(threadIdx.x % 32),
        warp_row_(threadIdx.x % kGroup / 32 * 16),
        awaited_(p.args.in / kDepth - kStages) {}

  __device__ __forceinline__ void Run() {
    const Tile tile(p_, kOut);
    Statistics statistics;
    const int steps = p_.args.in / kDepth;
    Fragment even, odd;
    for (int k = 0; k < steps; k += 2) {
      Take(even, odd, statistics, k == 0);
      Take(odd, even, statistics, false);
    }
    OutputTerms<kOut> terms;
    terms.Load(p_.args, tile.output + lane_ % 4 * 2);
    WgmmaWait();
    HoldRegisters(c_);
    Store(tile, statistics, terms);
  }

 private:
  static constexpr int kStages = Shared<kOut>::kStages;

  // Asks for the products of the next stage, and lets go of the one before it
  // once its own are done.
  __device__ __forceinline__ void Take(Fragment& now, Fragment& before,
                                       Statistics& statistics, bool first) {
    auto& stage = shared_.stages[place_.stage];
    BarrierWait(&shared_.full[place_.stage], place_.parity);
    now.Load(stage.x, group_ * kRows + warp_row_ + lane_ % 16, lane_);
    statistics.Add(now);
    const std::uint64_t w = RowsTile(SharedAddress(stage.w));
    HoldRegisters(c_);
    WgmmaFence();
#pragma unroll
    for (int i = 0; i < kDepth / 16; ++i) {
      Multiply(c_, now.step[i], AtColumn(w, kOut, 16 * i), !first || i > 0,
               std::make_index_sequence<kOut / 2>());
    }
    WgmmaCommit();
    if (!first) {
      WgmmaWaitAllButLast();
      before.Hold();
      Release();
    }
    place_.Next();
  }

  // The oldest stage not yet released, in all CTAs that fetch for it. None
  // where nobody waits for it: so none is on its way when a peer leaves.
  __device__ __forceinline__ void Release() {
    __syncwarp();
    if (awaited_-- > 0 && lane_ < kPeers) {
      BarrierArriveAfterReads(&shared_.empty[released_], lane_);
    }
    if (++released_ == kStages) released_ = 0;
  }

  // Of two rows and two eights of outputs, a lane ends with 16 bytes of one.
  __device__ __forceinline__ void Store(const Tile& tile,
                                        const Statistics& statistics,
                                        const OutputTerms<kOut>& terms) {
    const NormGemmArgs& a = p_.args;
    const RowNorm norm[2] = {
        RowNorm(statistics.sum[0], statistics.square[0], a.in),
        RowNorm(statistics.sum[1], statistics.square[1], a.in)};
    const int token =
        tile.token + group_ * kRows + warp_row_ + lane_ / 4 + lane_ % 4 / 2 * 8;
    const int column = tile.output + lane_ % 2 * 8;
    __nv_bfloat16* y = a.y + static_cast<long>(token) * a.out + column;
#pragma unroll
    for (int g = 0; g < kOut / 8; g += 2) {
      std::uint32_t words[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int at = g + i % 2;
        const float* c = &c_[4 * at + 2 * (i / 2)];
        const RowNorm& n = norm[i / 2];
        const float2 bias = __bfloat1622float2(terms.bias[at]);
        words[i] = PackPair(
            Activate(n.scale * c[0] + n.shift * terms.sums[at].x + bias.x),
            Activate(n.scale * c[1] + n.shift * terms.sums[at].y + bias.y));
      }
      const uint4 mine = TransposeQuad(words, lane_);
      if (column + 8 * g < a.out) *reinterpret_cast<uint4*>(y + 8 * g) = mine;
    }
  }

  __device__ __forceinline__ float Activate(float v) const {
    return p_.args.activation == NormGemmActivation::kNone ? v
                                                           : FastGeluTanh(v);
  }

  const Params& p_;
  Shared<kOut>& shared_;
  const int group_, lane_, warp_row_;
  RingPlace<kStages> place_;
  int released_ = 0;
  int awaited_;  // releases still to come that a producer waits for
  float c_[kOut / 2];
};

}  // namespace piserve::kernels::norm_gemm
