// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_bf16.h>

namespace piserve::kernels {

// Eight bf16 that move as one 16-byte access.
struct alignas(16) Bf16x8 {
  __nv_bfloat162 pair[4];
};

__device__ inline void Unpack(const Bf16x8& v, float (&out)[8]) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float2 f = __bfloat1622float2(v.pair[i]);
    out[2 * i] = f.x;
    out[2 * i + 1] = f.y;
  }
}

__device__ inline Bf16x8 Pack(const float (&in)[8]) {
  Bf16x8 v;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    v.pair[i] = __floats2bfloat162_rn(in[2 * i], in[2 * i + 1]);
  }
  return v;
}

__device__ inline void Load8(const __nv_bfloat16* p, float (&out)[8]) {
  Unpack(*reinterpret_cast<const Bf16x8*>(p), out);
}

__device__ inline void Store8(__nv_bfloat16* p, const float (&in)[8]) {
  *reinterpret_cast<Bf16x8*>(p) = Pack(in);
}

__device__ inline void Load8(const float* p, float (&out)[8]) {
  const float4 a = *reinterpret_cast<const float4*>(p);
  const float4 b = *reinterpret_cast<const float4*>(p + 4);
  out[0] = a.x, out[1] = a.y, out[2] = a.z, out[3] = a.w;
  out[4] = b.x, out[5] = b.y, out[6] = b.z, out[7] = b.w;
}

// Sum over the block in a fixed order; every thread gets it. `scratch` holds
// one float a warp. Ends with all threads past a barrier, so it may be called
// again.
__device__ inline float BlockSum(float value, float* scratch) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) {
    value += __shfl_xor_sync(0xffffffffu, value, offset);
  }
  const int warps = blockDim.x / 32;
  if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = value;
  __syncthreads();
  float sum = 0;
  for (int w = 0; w < warps; ++w) sum += scratch[w];
  __syncthreads();
  return sum;
}

}  // namespace piserve::kernels
