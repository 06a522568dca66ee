// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "tests/model/kernels/device.h"

// What the tests of kernels for products have in common.
namespace piserve::kernels {

struct Projection {
  Projection(int in, int out)
      : in(in),
        out(out),
        w(NormalBf16(static_cast<std::size_t>(out) * in, 5,
                     1 / std::sqrt(static_cast<float>(in)))) {}

  const int in, out;
  const std::vector<Bf16> w;
};

struct BiasedProjection : Projection {
  BiasedProjection(int in, int out)
      : Projection(in, out), bias(NormalBf16(out, 6)) {}

  const std::vector<Bf16> bias;
};

// run(x, y) returns what y [tokens, out] becomes with x [tokens, in]. Tokens
// moved by `by` places, one of them NaN, are given the same bits.
template <typename Run>
void ExpectPlacesDoNotMatter(const Projection& p, int tokens, int by,
                             const Run& run) {
  auto x = NormalBf16(static_cast<std::size_t>(tokens) * p.in, 9);
  auto y = NormalBf16(static_cast<std::size_t>(tokens) * p.out, 10);
  const std::vector<Bf16> first = run(x, y);
  std::rotate(x.begin(), x.begin() + by * p.in, x.end());
  std::rotate(y.begin(), y.begin() + by * p.out, y.end());
  std::fill_n(x.begin(), p.in, __float2bfloat16_rn(NAN));
  ExpectRotated(run(x, y), first, by, p.out);
}

// Of `launches` calls of launch(i, a, b), on two arrays of `size`, each waits
// for the one before: b is the same where the host waits behind each.
template <typename Launch>
void ExpectLaunchesWait(int launches, int size, const Launch& launch) {
  const auto run = [&](bool wait) {
    DeviceArray<Bf16> a(NormalBf16(size, 7)), b(NormalBf16(size, 8));
    for (int i = 0; i < launches; ++i) {
      EXPECT_EQ(launch(i, a.data(), b.data()), cudaSuccess);
      if (wait) {
        EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
      }
    }
    return b.Get();
  };
  EXPECT_TRUE(SameBits(run(/*wait=*/false), run(/*wait=*/true)));
}

}  // namespace piserve::kernels
