// SPDX-License-Identifier: Apache-2.0
#include "model/kernels/weight_gemm/rope_gemm.h"

#include <algorithm>
#include <set>

#include "tests/model/kernels/device.h"
#include "tests/model/kernels/twins.h"

namespace piserve::kernels {
namespace {

constexpr int kHead = kRopePairHead, kHalf = kHead / 2;
// Tokens, and rows of the cache, behind those that belong to the kernel.
constexpr int kSpareTokens = 256, kSpareRows = 1;

// A projection's weights, head by head, and the same in order of RoPE's pairs.
struct Projection {
  Projection(int in, int heads) : in(in), heads(heads) {
    plain = NormalBf16(static_cast<std::size_t>(columns()) * in, 5,
                       1 / std::sqrt(static_cast<float>(in)));
    packed.resize(plain.size());
    for (int row = 0; row < columns(); ++row) {
      const int d = row % kHead, to = row - d + RopePairColumn(d);
      std::copy_n(plain.begin() + static_cast<long>(row) * in, in,
                  packed.begin() + static_cast<long>(to) * in);
    }
  }
  int columns() const { return (heads + 2) * kHead; }

  const int in, heads;
  std::vector<Bf16> plain, packed;
};

struct Shape {
  int rows = 1, seq = 1;
  std::vector<int> start = {};  // empty: none
  int start_offset = 0, row_base = 0;

  int tokens() const { return rows * seq; }
  int Position(int token) const {
    const int row = token / seq;
    return (start.empty() ? 0 : start[row]) + start_offset + token % seq;
  }
  int cache_len() const {
    int first = 0;
    for (const int s : start) first = std::max(first, s);
    return first + start_offset + seq;
  }
  long CacheAt(int token) const {
    return (static_cast<long>(row_base + token / seq) * cache_len() +
            Position(token)) *
           kHead;
  }
};

std::vector<float2> Table(int positions) {
  std::vector<float2> table(static_cast<std::size_t>(positions) * kHalf);
  for (std::size_t i = 0; i < table.size(); ++i) {
    const float angle =
        static_cast<float>(i / kHalf) / static_cast<float>(1 + i % kHalf * 7);
    table[i] = {std::cos(angle), std::sin(angle)};
  }
  return table;
}

struct Result {
  std::vector<Bf16> qkv, k, v;

  // Element d of one head of one token.
  Bf16 At(const Projection& p, const Shape& s, int token, int head,
          int d) const {
    if (head < p.heads) {
      return qkv[static_cast<long>(token) * p.columns() + head * kHead + d];
    }
    return (head == p.heads ? k : v)[s.CacheAt(token) + d];
  }
};

// A dot product and how far FP32 sums in any order may be from it.
Expected Dot(const Bf16* x, const Bf16* w, int size) {
  double value = 0, total = 0;
  for (int i = 0; i < size; ++i) {
    const double term = Value(x[i]) * Value(w[i]);
    value += term;
    total += std::abs(term);
  }
  return {value, size * kFp32Half * total};
}

// The sums' errors go through the rotation; 2 ^ -7 covers their rounding.
Expected Twin(const Bf16* x, const Projection& p, int head, int d, float2 cs) {
  const auto dot = [&](int column) {
    return Dot(x, &p.plain[(static_cast<long>(head) * kHead + column) * p.in],
               p.in);
  };
  const Expected own = dot(d);
  if (head > p.heads) {
    return {own.value,
            kBf16Half * std::abs(own.value) + (1 + 0x1p-7) * own.tolerance};
  }
  const Expected other = dot((d + kHalf) % kHead);
  const double sine = d < kHalf ? -cs.y : cs.y;
  Expected want = Rotate(own.value, cs.x, other.value, sine);
  want.tolerance += (1 + 0x1p-7) * (std::abs(cs.x) * own.tolerance +
                                    std::abs(sine) * other.tolerance);
  return want;
}

class RopeGemmTest : public KernelTest {
 protected:
  static Result Run(const std::vector<Bf16>& x, const Projection& p,
                    const Shape& s) {
    const std::size_t cache =
        static_cast<std::size_t>(s.row_base + s.rows + kSpareRows) *
        s.cache_len() * kHead;
    DeviceArray<Bf16> device_x(x), w(p.packed), k(cache), v(cache);
    DeviceArray<Bf16> qkv(static_cast<std::size_t>(s.tokens() + kSpareTokens) *
                          p.columns());
    DeviceArray<float2> table(Table(s.cache_len()));
    DeviceArray<int> start(s.start), base(std::vector<int>{s.row_base});
    RopeGemmArgs args;
    args.x = device_x.data();
    args.w = w.data();
    args.in = p.in;
    args.to.qkv = p.heads == 0 ? nullptr : qkv.data();
    args.to.table = table.data();
    args.to.start = s.start.empty() ? nullptr : start.data();
    args.to.row_base = s.row_base == 0 ? nullptr : base.data();
    args.to.cache_k = k.data();
    args.to.cache_v = v.data();
    args.to.rows = s.rows;
    args.to.seq = s.seq;
    args.to.heads = p.heads;
    args.to.kv_heads = 1;
    args.to.head_dim = kHead;
    args.to.cache_len = s.cache_len();
    args.to.start_offset = s.start_offset;
    EXPECT_EQ(LaunchRopeGemm(args, nullptr), cudaSuccess);
    return {qkv.Get(), k.Get(), v.Get()};
  }

  // Every `stride`-th output against its twin, and nothing else written.
  static void Check(const Projection& p, const Shape& s, int stride) {
    const std::string what = std::to_string(s.rows) + " rows of " +
                             std::to_string(s.seq) + " tokens";
    const auto x = NormalBf16(static_cast<std::size_t>(s.tokens()) * p.in, 7);
    const auto table = Table(s.cache_len());
    const Result y = Run(x, p, s);
    const long outputs = static_cast<long>(s.tokens()) * p.columns();
    const int count = static_cast<int>((outputs + stride - 1) / stride);
    std::vector<Bf16> got(count);
    std::vector<Expected> want(count);
    ParallelFor(count, [&](int i) {
      const long at = static_cast<long>(i) * stride;
      const int token = static_cast<int>(at / p.columns());
      const int head = static_cast<int>(at % p.columns() / kHead);
      const int d = static_cast<int>(at % kHead);
      const long turn =
          static_cast<long>(s.Position(token)) * kHalf + d % kHalf;
      got[i] = y.At(p, s, token, head, d);
      want[i] =
          Twin(&x[static_cast<long>(token) * p.in], p, head, d, table[turn]);
    });
    ExpectWithin(got, want, what);
    ExpectOnlyItsPlacesWritten(p, s, y, what);
  }

 private:
  static void ExpectOnlyItsPlacesWritten(const Projection& p, const Shape& s,
                                         const Result& y,
                                         const std::string& what) {
    std::vector<bool> in_cache(y.k.size(), false);
    for (int token = 0; token < s.tokens(); ++token) {
      std::fill_n(in_cache.begin() + s.CacheAt(token), kHead, true);
    }
    std::size_t wrong = 0;
    for (std::size_t i = 0; i < y.k.size(); ++i) {
      wrong += Written(y.k[i]) != in_cache[i];
      wrong += Written(y.v[i]) != in_cache[i];
    }
    EXPECT_EQ(wrong, 0u) << what << ", elements of the caches";
    for (std::size_t i = wrong = 0; i < y.qkv.size(); ++i) {
      const std::size_t token = i / p.columns(), column = i % p.columns();
      const bool query = token < s.tokens() && column < p.heads * kHead;
      wrong += Written(y.qkv[i]) != query;
    }
    EXPECT_EQ(wrong, 0u) << what << ", elements of qkv";
  }

  // Not as DeviceArray left it.
  static bool Written(Bf16 value) {
    std::uint16_t bits;
    std::memcpy(&bits, &value, sizeof(bits));
    return bits != 0xFFFF;
  }
};

// Rows that begin at different places.
Shape Suffix(int rows, int seq, int offset = 0) {
  Shape s{.rows = rows, .seq = seq, .start_offset = offset};
  for (int r = 0; r < rows; ++r) s.start.push_back(3 + r * 37 % 100);
  return s;
}

TEST(RopePairColumnTest, EveryColumnHoldsOneDimension) {
  std::set<int> columns;
  for (int d = 0; d < kHalf; ++d) {
    EXPECT_EQ(RopePairColumn(d + kHalf), RopePairColumn(d) + kRopePairOffset);
    columns.insert(RopePairColumn(d));
    columns.insert(RopePairColumn(d + kHalf));
  }
  EXPECT_EQ(columns.size(), std::size_t{kHead});
  EXPECT_EQ(*columns.begin(), 0);
  EXPECT_EQ(*columns.rbegin(), kHead - 1);
}

TEST_F(RopeGemmTest, EqualsItsTwinAtSmallSizes) {
  const Projection p(128, 2);
  Check(p, {.rows = 1, .seq = 1}, 1);
  Check(p, {.rows = 7, .seq = 1, .start = {9, 1, 0, 4, 4, 8, 2}}, 1);
  Check(p, {.rows = 1, .seq = 112}, 1);
  Check(p, {.rows = 1, .seq = 113, .start = {5}, .row_base = 2}, 1);
  Check(p, Suffix(3, 70), 1);
  Check(p, Suffix(4, 52, 1), 1);
  Check(p, Suffix(100, 10), 1);
}

TEST_F(RopeGemmTest, EqualsItsTwinAtEveryPrefixOfTheVariants) {
  const Projection p(2048, 8);
  for (const int seq : {304, 320, 456, 560, 576, 712, 816, 832, 968}) {
    for (const int rows : {1, 2, 8}) {
      const Shape s{.rows = rows, .seq = seq, .row_base = rows == 2 ? 3 : 0};
      Check(p, s, /*stride=*/s.tokens() + 1);
    }
  }
}

TEST_F(RopeGemmTest, EqualsItsTwinWithKeysAndValuesOnly) {
  const Projection p(2048, 0);
  for (const int rows : {1, 2, 8}) {
    const Shape s{.rows = rows, .seq = 816, .row_base = 1};
    Check(p, s, /*stride=*/s.tokens() / 4 + 1);
  }
}

TEST_F(RopeGemmTest, EqualsItsTwinAtEverySuffixOfTheVariants) {
  const Projection p(1024, 8);
  for (const int rows : {1, 2, 3, 4, 5, 8, 16, 32, 64}) {
    for (const int seq : {10, 50, 51}) {
      const Shape s = Suffix(rows, seq, /*offset=*/51 - seq);
      Check(p, s, /*stride=*/s.tokens() + 1);
    }
  }
}

TEST_F(RopeGemmTest, ARowsBitsDependNeitherOnItsPlaceNorOnOthers) {
  const Projection p(128, 8);
  Shape s = Suffix(17, 50);
  const long row = static_cast<long>(s.seq) * p.in;
  const auto x = NormalBf16(static_cast<std::size_t>(s.rows) * row, 9);
  const Result first = Run(x, p, s);
  std::vector<Bf16> moved(x.size(), __float2bfloat16_rn(NAN));
  for (int r = 1; r < s.rows; ++r) {
    std::copy_n(x.begin() + (s.rows - 1 - r) * row, row,
                moved.begin() + r * row);
  }
  Shape reversed = s;
  std::reverse(reversed.start.begin(), reversed.start.end());
  const Result second = Run(moved, p, reversed);
  std::vector<Bf16> got, want;
  for (int token = s.seq; token < s.tokens(); ++token) {
    const int from = (s.rows - 1 - token / s.seq) * s.seq + token % s.seq;
    for (int i = 0; i < p.columns(); ++i) {
      got.push_back(second.At(p, reversed, token, i / kHead, i % kHead));
      want.push_back(first.At(p, s, from, i / kHead, i % kHead));
    }
  }
  EXPECT_TRUE(SameBits(got, want));
}

TEST_F(RopeGemmTest, RefusesSizesItCannotTile) {
  EXPECT_TRUE(RopeGemmSupports(2048, 0, 1, 256));
  EXPECT_FALSE(RopeGemmSupports(96, 8, 1, 256));
  EXPECT_FALSE(RopeGemmSupports(1024, 8, 2, 256));
  EXPECT_FALSE(RopeGemmSupports(1024, 8, 1, 128));
  RopeGemmArgs args;
  args.in = 1024;
  args.to.rows = args.to.seq = 1;
  args.to.kv_heads = 2;
  args.to.head_dim = 256;
  EXPECT_EQ(LaunchRopeGemm(args, nullptr), cudaErrorInvalidValue);
}

}  // namespace
}  // namespace piserve::kernels
