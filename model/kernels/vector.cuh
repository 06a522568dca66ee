// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_bf16.h>

namespace piserve::kernels {

// Eight bf16 that move as one 16-byte access. Words, because the compiler moves
// an array of __nv_bfloat162 four bytes at a time.
using Bf16x8 = uint4;

__device__ inline void Unpack(const Bf16x8& v, float (&out)[8]) {
  const unsigned words[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    out[2 * i] = __uint_as_float(words[i] << 16);
    out[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000u);
  }
}

// bf16 of two numbers in one word, rounded to nearest, ties to even.
__device__ inline unsigned PackPair(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const unsigned*>(&pair);
}

__device__ inline float2 UnpackPair(unsigned word) {
  return {__uint_as_float(word << 16), __uint_as_float(word & 0xffff0000u)};
}

__device__ inline Bf16x8 Pack(const float (&in)[8]) {
  return {PackPair(in[0], in[1]), PackPair(in[2], in[3]),
          PackPair(in[4], in[5]), PackPair(in[6], in[7])};
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

}  // namespace piserve::kernels
