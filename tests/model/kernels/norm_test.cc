// SPDX-License-Identifier: Apache-2.0
#include "model/kernels/norm.h"

#include "tests/model/kernels/device.h"
#include "tests/model/kernels/twins.h"

namespace piserve::kernels {
namespace {

struct Size {
  int rows;
  int width;
};

// Every width and row count of the variants: expert, VLM, SigLIP, tiny ones;
// and one that needs several runs a thread.
std::vector<Size> Sizes() {
  return {{1, 1024},    {50, 1024},  {51, 1024},  {512, 1024}, {513, 2048},
          {3200, 1024}, {816, 2048}, {968, 2048}, {768, 1152}, {11, 64},
          {304, 128},   {768, 72},   {33, 8192},  {5, 4304}};
}

enum class Kind { kLayer, kRms, kAdaRms };

constexpr int kSteps = 3;

// The arrays of one call: modulation rows are [step][scale, shift, gate].
struct Inputs {
  Inputs(Size size, Kind kind)
      : x(NormalBf16(static_cast<std::size_t>(size.rows) * size.width, 1, 2)),
        y(NormalBf16(x.size(), 2)),
        table(Normal(3 * kSteps * size.width, 3, 0.3f)) {
    // LayerNorm's rows have a mean, gains are near one.
    if (kind == Kind::kLayer) {
      for (Bf16& v : x) v = __float2bfloat16_rn(Value(v) + 3);
    }
    if (kind == Kind::kAdaRms) return;
    for (float& v : table) v += 1;
  }
  std::vector<Bf16> x, y;
  std::vector<float> table;
};

StepTable Table(const float* base, const int* step, long stride) {
  StepTable table;
  table.base = base;
  table.step = step;
  table.stride = stride;
  return table;
}

std::vector<Expected> Twin(const std::vector<Bf16>& x, Size size, Kind kind,
                           const float* row) {
  std::vector<Expected> want(x.size());
  ParallelFor(size.rows, [&](int r) {
    const std::size_t at = static_cast<std::size_t>(r) * size.width;
    NormRow(x.data() + at, size.width, kind == Kind::kLayer, row,
            kind == Kind::kAdaRms ? 1 : 0,
            kind == Kind::kRms ? nullptr : row + size.width, want.data() + at);
  });
  return want;
}

class NormTest : public KernelTest,
                 public ::testing::WithParamInterface<Kind> {};

TEST_P(NormTest, EqualsItsTwin) {
  const Kind kind = GetParam();
  for (const Size size : Sizes()) {
    const Inputs in(size, kind);
    DeviceArray<Bf16> x(in.x), out(in.x.size());
    DeviceArray<float> table(in.table);
    const float* scale = table.data();
    const float* shift = scale + size.width;
    const auto launch = [&](Bf16* to) {
      switch (kind) {
        case Kind::kLayer:
          return LaunchLayerNorm(x.data(), scale, shift, to, size.rows,
                                 size.width, nullptr);
        case Kind::kRms:
          return LaunchRmsNorm(x.data(), scale, to, size.rows, size.width,
                               nullptr);
        default: {
          AddNormArgs args;
          args.x = x.data();
          args.h = to;
          args.scale = Table(scale, nullptr, 0);
          args.shift = Table(shift, nullptr, 0);
          args.rows = size.rows;
          args.width = size.width;
          return LaunchAddAdaRmsNorm(args, nullptr);
        }
      }
    };
    ASSERT_EQ(launch(out.data()), cudaSuccess);
    const auto want = Twin(in.x, size, kind, in.table.data());
    const std::string what =
        std::to_string(size.rows) + " x " + std::to_string(size.width);
    ExpectWithin(out.Get(), want, what);
    EXPECT_TRUE(SameBits(x.Get(), in.x)) << what;
    ASSERT_EQ(launch(x.data()), cudaSuccess);
    EXPECT_TRUE(SameBits(x.Get(), out.Get())) << what << " in place";
  }
}

class LayerMomentsTest : public KernelTest {};

TEST_F(LayerMomentsTest, EqualTheirTwins) {
  for (const Size size : Sizes()) {
    const Inputs in(size, Kind::kLayer);
    DeviceArray<Bf16> x(in.x);
    DeviceArray<float2> moments(size.rows);
    ASSERT_EQ(LaunchLayerMoments(x.data(), moments.data(), size.rows,
                                 size.width, nullptr),
              cudaSuccess);
    const auto got = moments.Get();
    for (int r = 0; r < size.rows; ++r) {
      const Bf16* row = &in.x[static_cast<std::size_t>(r) * size.width];
      double mean = 0, square = 0;
      for (int i = 0; i < size.width; ++i) mean += Value(row[i]) / size.width;
      for (int i = 0; i < size.width; ++i) {
        square += std::pow(Value(row[i]) - mean, 2) / size.width;
      }
      const double scale = 1 / std::sqrt(square + 1e-6);
      EXPECT_NEAR(got[r].x, scale, 1e-5 * scale) << size.width << " row " << r;
      EXPECT_NEAR(got[r].y, -mean * scale, 1e-5 * (scale + std::abs(mean)))
          << size.width << " row " << r;
    }
  }
  EXPECT_EQ(LaunchLayerMoments(nullptr, nullptr, 1, 12, nullptr),
            cudaErrorInvalidValue);
}

TEST_P(NormTest, EqualsItsTwinAfterTheResidualAtEveryStep) {
  const Kind kind = GetParam();
  for (const Size size : Sizes()) {
    const Inputs in(size, kind);
    DeviceArray<Bf16> y(in.y);
    DeviceArray<float> table(in.table);
    for (int step = 0; step < kSteps; ++step) {
      DeviceArray<Bf16> x(in.x), h(in.x.size());
      DeviceArray<int> index(std::vector<int>{step});
      const long stride = 3 * size.width;
      AddNormArgs args;
      args.x = x.data();
      args.y = y.data();
      args.h = h.data();
      args.scale = Table(table.data(), index.data(), stride);
      args.shift = Table(table.data() + size.width, index.data(), stride);
      if (kind == Kind::kAdaRms) {
        args.gate = Table(table.data() + 2 * size.width, index.data(), stride);
      }
      args.rows = size.rows;
      args.width = size.width;
      const cudaError_t error =
          kind == Kind::kLayer ? LaunchAddLayerNorm(args, nullptr)
          : kind == Kind::kRms ? LaunchAddRmsNorm(args, nullptr)
                               : LaunchAddAdaRmsNorm(args, nullptr);
      ASSERT_EQ(error, cudaSuccess);
      const float* row = in.table.data() + step * stride;
      std::vector<Expected> sum(in.x.size());
      for (std::size_t i = 0; i < sum.size(); ++i) {
        const double gate =
            kind == Kind::kAdaRms ? row[2 * size.width + i % size.width] : 1;
        const double add = Value(in.y[i]) * gate;
        const double value = Value(in.x[i]) + add;
        // One rounding to bf16 of an FP32 product and sum.
        sum[i] = {value,
                  kBf16Half * std::abs(value) +
                      0x1p-22 * (std::abs(Value(in.x[i])) + std::abs(add)) +
                      1e-30};
      }
      const std::string what = std::to_string(size.rows) + " x " +
                               std::to_string(size.width) + " step " +
                               std::to_string(step);
      const auto moved = x.Get();
      ExpectWithin(moved, sum, what + " x");
      // The norm is that of x as it was rounded.
      ExpectWithin(h.Get(), Twin(moved, size, kind, row), what + " h");
    }
  }
}

// Two parts of a sum are added to x as their sum would be.
TEST_P(NormTest, AddsPartsAsTheirSum) {
  const Kind kind = GetParam();
  const auto launch = kind == Kind::kLayer ? LaunchAddLayerNorm
                      : kind == Kind::kRms ? LaunchAddRmsNorm
                                           : LaunchAddAdaRmsNorm;
  for (const Size size : {Size{816, 2048}, Size{11, 64}, Size{33, 8192}}) {
    const Inputs in(size, kind);
    // Sums of eighths, which bf16 holds, so that y is exact.
    std::vector<Bf16> y(in.y.size());
    std::vector<float> parts(2 * y.size());
    for (std::size_t i = 0; i < y.size(); ++i) {
      parts[i] = static_cast<float>(i % 17) / 8;
      parts[y.size() + i] = -static_cast<float>(i % 13) / 4;
      y[i] = __float2bfloat16_rn(parts[i] + parts[y.size() + i]);
    }
    DeviceArray<float> table(in.table), device_parts(parts);
    DeviceArray<Bf16> device_y(y), h(y.size());
    AddNormArgs args;
    args.h = h.data();
    args.scale = Table(table.data(), nullptr, 0);
    args.shift = Table(table.data() + size.width, nullptr, 0);
    if (kind == Kind::kAdaRms) {
      args.gate = Table(table.data() + 2 * size.width, nullptr, 0);
    }
    args.rows = size.rows;
    args.width = size.width;
    DeviceArray<Bf16> x(in.x), other_x(in.x);
    args.x = x.data();
    args.y = device_y.data();
    ASSERT_EQ(launch(args, nullptr), cudaSuccess);
    const auto want = h.Get();
    args.x = other_x.data();
    args.y = nullptr;
    args.parts = device_parts.data();
    ASSERT_EQ(launch(args, nullptr), cudaSuccess);
    EXPECT_TRUE(SameBits(h.Get(), want)) << size.rows;
    EXPECT_TRUE(SameBits(other_x.Get(), x.Get())) << size.rows;
  }
}

// More rows than any device holds blocks of at once: a row gets the bits it
// gets alone, wherever it stands, and each row is taken once.
TEST_P(NormTest, ARowsBitsDoNotDependOnItsPlaceAmongManyRows) {
  constexpr int kBase = 37;
  const Kind kind = GetParam();
  const auto launch = kind == Kind::kLayer ? LaunchAddLayerNorm
                      : kind == Kind::kRms ? LaunchAddRmsNorm
                                           : LaunchAddAdaRmsNorm;
  for (const Size size : {Size{9001, 64}, Size{6143, 1152}, Size{4099, 1024},
                          Size{3001, 2048}, Size{1301, 4304}}) {
    const Inputs base({kBase, size.width}, kind);
    const std::size_t width = size.width, count = size.rows * width;
    std::vector<Bf16> many_x(count), many_y(count);
    for (std::size_t i = 0; i < count; ++i) {
      many_x[i] = base.x[i % (kBase * width)];
      many_y[i] = base.y[i % (kBase * width)];
    }
    DeviceArray<float> table(base.table);
    for (const bool adds : {false, true}) {
      DeviceArray<Bf16> x(many_x), y(many_y), h(count);
      DeviceArray<Bf16> alone_x(base.x), alone_y(base.y), alone_h(base.x);
      AddNormArgs args;
      args.scale = Table(table.data(), nullptr, 0);
      args.shift = Table(table.data() + width, nullptr, 0);
      args.width = size.width;
      args.rows = 1;
      for (int r = 0; r < kBase; ++r) {
        args.x = alone_x.data() + r * width;
        args.y = adds ? alone_y.data() + r * width : nullptr;
        args.h = alone_h.data() + r * width;
        ASSERT_EQ(launch(args, nullptr), cudaSuccess);
      }
      args.rows = size.rows;
      args.x = x.data();
      args.y = adds ? y.data() : nullptr;
      args.h = h.data();
      ASSERT_EQ(launch(args, nullptr), cudaSuccess);
      const auto want_h = alone_h.Get(), want_x = alone_x.Get();
      const auto got_h = h.Get(), got_x = x.Get();
      for (int r = 0; r < size.rows; ++r) {
        const std::size_t at = r * width, from = r % kBase * width;
        const std::size_t bytes = width * sizeof(Bf16);
        ASSERT_EQ(std::memcmp(&got_h[at], &want_h[from], bytes), 0) << r;
        ASSERT_EQ(std::memcmp(&got_x[at], &want_x[from], bytes), 0) << r;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, NormTest,
                         ::testing::Values(Kind::kLayer, Kind::kRms,
                                           Kind::kAdaRms));

TEST_F(KernelTest, NormRefusesWidthsItCannotHold) {
  AddNormArgs args;
  args.rows = 1;
  for (const int width : {0, 4, 12, 8200}) {
    args.width = width;
    EXPECT_EQ(LaunchAddRmsNorm(args, nullptr), cudaErrorInvalidValue);
  }
}

TEST_F(KernelTest, OnlyAdaRmsTakesAGate) {
  DeviceArray<Bf16> x(std::vector<Bf16>(8)), y(x.Get());
  DeviceArray<float> row(std::vector<float>(8, 1));
  AddNormArgs args;
  args.x = args.h = x.data();
  args.y = y.data();
  args.gate = args.scale = args.shift = Table(row.data(), nullptr, 0);
  args.rows = 1;
  args.width = 8;
  EXPECT_EQ(LaunchAddRmsNorm(args, nullptr), cudaErrorInvalidValue);
  EXPECT_EQ(LaunchAddLayerNorm(args, nullptr), cudaErrorInvalidValue);
  EXPECT_EQ(LaunchAddAdaRmsNorm(args, nullptr), cudaSuccess);
}

}  // namespace
}  // namespace piserve::kernels
