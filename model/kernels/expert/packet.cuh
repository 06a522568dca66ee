// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

#include "model/kernels/vector.cuh"

// How blocks hand each other results. Every 16 bytes are one packet, written
// and read by single relaxed 128-bit accesses, so that the memory model makes
// each of them indivisible; its lowest bit is a tag that flips with every use
// of the slot. A reader repeats its load until the tag is the one it waits for:
// the data is its own flag, and no fence orders anything. A slot is written
// again only by a block that has, through other packets, results of every
// reader's next stage; so no reader can miss a value. And a reader asks for a
// value only once it knows, itself or by a barrier, that the one before has
// been sent; so it cannot take the one before that, which has the same tag, for
// it.
//
// The tag costs the first value of a packet its last bit: of 24 in FP32, of 8
// in bf16, where that value is rounded to nearest among those with that last
// bit.
namespace piserve::kernels::expert {

__device__ __forceinline__ uint4 LoadPacket(const void* p) {
  uint4 v;
  asm volatile(
      "{\n.reg .b128 t;\n.reg .b64 a, b;\n"
      "ld.relaxed.gpu.global.b128 t, [%4];\n"
      "mov.b128 {a, b}, t;\n"
      "mov.b64 {%0, %1}, a;\n"
      "mov.b64 {%2, %3}, b;\n}"
      : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
      : "l"(p)
      : "memory");
  return v;
}

__device__ __forceinline__ void StorePacket(void* p, uint4 v) {
  asm volatile(
      "{\n.reg .b128 t;\n.reg .b64 a, b;\n"
      "mov.b64 a, {%1, %2};\n"
      "mov.b64 b, {%3, %4};\n"
      "mov.b128 t, {a, b};\n"
      "st.relaxed.gpu.global.b128 [%0], t;\n}" ::"l"(p),
      "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w)
      : "memory");
}

// wrong | (word ^ tag) in one instruction, which the compiler does not find.
__device__ __forceinline__ unsigned Mismatch(unsigned wrong, unsigned word,
                                             unsigned tag) {
  asm("lop3.b32 %0, %0, %1, %2, 0xF6;" : "+r"(wrong) : "r"(word), "r"(tag));
  return wrong;
}

// About two seconds of waiting for another block.
inline constexpr int kSpinLimit = 1 << 22;

// Ends the kernel and, like any device fault, the context. Not by a trap: one
// anywhere in a kernel costs ptxas 13.0 the registers that setmaxnreg brings.
__device__ __forceinline__ void StopWithIllegalAddress() {
  asm volatile("st.global.u32 [%0], %1;" ::"l"(0ULL), "r"(0) : "memory");
}

template <int N, typename Address>
__device__ __forceinline__ void Request(uint4 (&v)[N], Address address) {
#pragma unroll
  for (int i = 0; i < N; ++i) v[i] = LoadPacket(address(i));
}

// Waits until all packets have arrived, loading them again as long as one has
// not. A lane with nothing to receive asks for what another one receives.
template <int N, typename Address>
__device__ __forceinline__ void Settle(uint4 (&v)[N], Address address,
                                       unsigned tag) {
  for (int spin = 0;; ++spin) {
    unsigned wrong = 0;
#pragma unroll
    for (int i = 0; i < N; ++i) wrong = Mismatch(wrong, v[i].x, tag);
    if ((wrong & 1) == 0) break;
    if (spin > kSpinLimit) StopWithIllegalAddress();
    Request(v, address);
  }
}

// Waits for one packet. What a warp will load is many times what it needs to
// see to know that the time has come: while everybody polls, that load would
// slow everything down. So each lane waits for another one of them first.
__device__ __forceinline__ void Await(const char* packet, unsigned tag) {
  uint4 v[1];
  const auto address = [&](int) { return packet; };
  Request(v, address);
  Settle(v, address, tag);
  __syncwarp();
}

template <int N, typename Address>
__device__ __forceinline__ void Receive(uint4 (&v)[N], Address address,
                                        unsigned tag) {
  Request(v, address);
  Settle(v, address, tag);
}

// Hides how an address was computed, so that loads at constant offsets from it
// need no arithmetic of their own.
__device__ __forceinline__ const char* Opaque(const char* p) {
  asm volatile("" : "+l"(p));
  return p;
}

// PackPair with `tag` as the last bit of a's bf16; NaN stays NaN.
__device__ __forceinline__ std::uint32_t PackTagged(float a, float b,
                                                    unsigned tag) {
  const std::uint32_t bits = __float_as_uint(a);
  const std::uint32_t even = (bits - (tag << 16) + 0x10000u) & ~0x1FFFFu;
  std::uint32_t first = (even >> 16) + tag;
  if ((bits & 0x7FFFFFFFu) > 0x7F800000u) first = 0x7FC0u | tag;
  return __byte_perm(first, PackPair(0, b), 0x7610);
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
