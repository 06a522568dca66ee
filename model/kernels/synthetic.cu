// SPDX-License-Identifier: Apache-2.0
#include "model/kernels/processors.h"
#include "model/kernels/synthetic.h"

namespace piserve::kernels {
namespace {

constexpr int kThreads = 256;

__device__ std::uint64_t Mix(std::uint64_t z) {
  z ^= z >> 30;
  z *= 0xBF58476D1CE4E5B9ull;
  z ^= z >> 27;
  z *= 0x94D049BB133111EBull;
  return z ^ (z >> 31);
}

__global__ void __launch_bounds__(kThreads)
    SyntheticFillKernel(std::uint64_t base, float mean, float amp,
                        __nv_bfloat16* out, long count) {
  const long stride = static_cast<long>(gridDim.x) * kThreads;
  for (long i = static_cast<long>(blockIdx.x) * kThreads + threadIdx.x;
       i < count; i += stride) {
    const std::uint64_t z =
        Mix(base + static_cast<std::uint64_t>(i) * 0xD1342543DE82EF95ull);
    const float u =
        static_cast<float>(static_cast<std::uint32_t>(z >> 40)) * 0x1p-24f -
        0.5f;
    // Rounded apart: no fused multiply-add.
    out[i] = __float2bfloat16_rn(__fadd_rn(mean, __fmul_rn(u, amp)));
  }
}

}  // namespace

cudaError_t LaunchSyntheticFill(std::uint64_t name_hash, std::uint64_t seed,
                                float mean, float amp, __nv_bfloat16* out,
                                long count, cudaStream_t stream) {
  constexpr int kBlocks = kTargetProcessors * 8;
  SyntheticFillKernel<<<kBlocks, kThreads, 0, stream>>>(
      name_hash + seed * 0x9E3779B97F4A7C15ull, mean, amp, out, count);
  return cudaGetLastError();
}

}  // namespace piserve::kernels
