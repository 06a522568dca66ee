// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

// How blocks hand each other results. Every 16 bytes are one packet, written
// and read by single relaxed 128-bit accesses, so that the memory model makes
// each of them indivisible; its lowest bit is a tag that flips with every use
// of the slot. A reader repeats its load until the tag is the one it waits for:
// the data is its own flag, and no fence orders anything. A slot is written
// again only by a block that has, through other packets, results of every
// reader's next stage; so no reader can miss a value.
//
// The tag costs the first value of a packet its last bit: of 24 in FP32, of 8
// in bf16, where that value is rounded to nearest among those with that last
// bit.
namespace piserve::kernels::expert {

__device__ __forceinline__ uint4 LoadPacket(const void* p) {
  std::uint64_t a, b;
  asm volatile(
      "{\n.reg .b128 t;\n"
      "ld.relaxed.gpu.global.b128 t, [%2];\n"
      "mov.b128 {%0, %1}, t;\n}"
      : "=l"(a), "=l"(b)
      : "l"(p)
      : "memory");
  return make_uint4(a, a >> 32, b, b >> 32);
}

__device__ __forceinline__ void StorePacket(void* p, uint4 v) {
  const std::uint64_t a = v.x | (static_cast<std::uint64_t>(v.y) << 32);
  const std::uint64_t b = v.z | (static_cast<std::uint64_t>(v.w) << 32);
  asm volatile(
      "{\n.reg .b128 t;\n"
      "mov.b128 t, {%1, %2};\n"
      "st.relaxed.gpu.global.b128 [%0], t;\n}" ::"l"(p),
      "l"(a), "l"(b)
      : "memory");
}

// About two seconds of waiting for another block.
inline constexpr int kSpinLimit = 1 << 22;

// Reloads what has not arrived: packets i with live(i) whose tag is not `tag`.
template <int N, typename Address, typename Live>
__device__ __forceinline__ void Settle(uint4 (&v)[N], Address address,
                                       Live live, unsigned tag) {
  for (int spin = 0;; ++spin) {
    bool settled = true;
#pragma unroll
    for (int i = 0; i < N; ++i) {
      if (live(i) && ((v[i].x ^ tag) & 1)) {
        v[i] = LoadPacket(address(i));
        settled = false;
      }
    }
    if (settled) break;
    if (spin > kSpinLimit) __trap();
  }
}

template <int N, typename Address, typename Live>
__device__ __forceinline__ void Request(uint4 (&v)[N], Address address,
                                        Live live) {
#pragma unroll
  for (int i = 0; i < N; ++i) {
    v[i] = live(i) ? LoadPacket(address(i)) : make_uint4(0, 0, 0, 0);
  }
}

template <int N, typename Address, typename Live>
__device__ __forceinline__ void Receive(uint4 (&v)[N], Address address,
                                        Live live, unsigned tag) {
  Request(v, address, live);
  Settle(v, address, live, tag);
}

__device__ __forceinline__ std::uint32_t PackBf16(float a, float b) {
  const __nv_bfloat162 v = __floats2bfloat162_rn(a, b);
  return *reinterpret_cast<const std::uint32_t*>(&v);
}

// The same with `tag` as the last bit of a's bf16; NaN stays NaN.
__device__ __forceinline__ std::uint32_t PackTagged(float a, float b,
                                                    unsigned tag) {
  const std::uint32_t bits = __float_as_uint(a);
  const std::uint32_t even = (bits - (tag << 16) + 0x10000u) & ~0x1FFFFu;
  std::uint32_t first = (even >> 16) + tag;
  if ((bits & 0x7FFFFFFFu) > 0x7F800000u) first = 0x7FC0u | tag;
  return __byte_perm(first, PackBf16(0, b), 0x7610);
}

__device__ __forceinline__ uint4 TagFloats(float4 v, unsigned tag) {
  return make_uint4((__float_as_uint(v.x) & ~1u) | tag, __float_as_uint(v.y),
                    __float_as_uint(v.z), __float_as_uint(v.w));
}

__device__ __forceinline__ float4 AsFloats(uint4 v) {
  return make_float4(__uint_as_float(v.x), __uint_as_float(v.y),
                     __uint_as_float(v.z), __uint_as_float(v.w));
}

__device__ __forceinline__ float2 UnpackBf16(std::uint32_t v) {
  return make_float2(__uint_as_float(v << 16),
                     __uint_as_float(v & 0xFFFF0000u));
}

}  // namespace piserve::kernels::expert
