// SPDX-License-Identifier: Apache-2.0
#include "model/kernels/suffix_attention.h"

#include <algorithm>
#include <limits>

#include "model/kernels/attention.h"
#include "tests/model/kernels/device.h"
#include "tests/model/kernels/twins.h"

namespace piserve::kernels {
namespace {

const Bf16 kNan = __float2bfloat16_rn(std::numeric_limits<float>::quiet_NaN());

struct Shape {
  std::vector<int> start;  // one a row
  int tokens = 50;
  int key_extra = 50;
  int cache_len = 0;
  int head_dim = 256;
  FirstToken first_token = FirstToken::kSeesAll;
  int heads = 8;
  int row_base = 0;  // cache rows before the first

  int rows() const { return static_cast<int>(start.size()); }
  int width() const { return heads * head_dim; }
  int stride() const { return (heads + 2) * head_dim; }  // of merged qkv
  int Visible(int row, int token) const {
    const bool alone = first_token == FirstToken::kSeesItself && token == 0;
    return std::min(start[row] + (alone ? 1 : key_extra), cache_len);
  }
};

struct Inputs {
  std::vector<Bf16> q, k, v;
};

// Row r's values depend on its label alone, and keys that no token may see are
// NaN.
Inputs Draw(const Shape& s, const std::vector<int>& labels) {
  Inputs in;
  for (int r = 0; r < s.rows(); ++r) {
    const unsigned seed = 100 * labels[r];
    const auto q = NormalBf16(s.tokens * s.stride(), seed + 1, 1.5f);
    auto k = NormalBf16(s.cache_len * s.head_dim, seed + 2, 1.5f);
    auto v = NormalBf16(s.cache_len * s.head_dim, seed + 3);
    const int visible = s.Visible(r, s.tokens - 1) * s.head_dim;
    std::fill(k.begin() + visible, k.end(), kNan);
    std::fill(v.begin() + visible, v.end(), kNan);
    in.q.insert(in.q.end(), q.begin(), q.end());
    in.k.insert(in.k.end(), k.begin(), k.end());
    in.v.insert(in.v.end(), v.begin(), v.end());
  }
  return in;
}

using Kernel = cudaError_t (*)(const AttentionArgs&, cudaStream_t);

cudaError_t Chosen(const AttentionArgs& args, cudaStream_t stream) {
  return LaunchSuffixAttention(args, stream);
}

// What serves a shape, and all that could.
std::vector<Kernel> KernelsFor(const Shape& s) {
  if (s.head_dim != 256) return {Chosen};
  return {Chosen, LaunchTiledAttention, LaunchWarpgroupAttention};
}

std::vector<Bf16> Result(const Shape& s, const Inputs& in,
                         Kernel kernel = Chosen) {
  DeviceArray<Bf16> q(in.q);
  const auto cached = [&](const std::vector<Bf16>& rows) {
    std::vector<Bf16> all(
        static_cast<std::size_t>(s.row_base) * s.cache_len * s.head_dim, kNan);
    all.insert(all.end(), rows.begin(), rows.end());
    all.resize(all.size() + s.cache_len * s.head_dim, kNan);
    return all;
  };
  DeviceArray<Bf16> k(cached(in.k)), v(cached(in.v));
  DeviceArray<int> base(std::vector<int>{s.row_base});
  DeviceArray<Bf16> out(static_cast<std::size_t>(s.rows()) * s.tokens *
                        s.width());
  DeviceArray<int> start(s.start);
  AttentionArgs args;
  args.q = q.data();
  args.token_stride = s.stride();
  args.cache_k = k.data();
  args.cache_v = v.data();
  args.row_base = s.row_base == 0 ? nullptr : base.data();
  args.start = start.data();
  args.out = out.data();
  args.rows = s.rows();
  args.tokens = s.tokens;
  args.heads = s.heads;
  args.head_dim = s.head_dim;
  args.cache_len = s.cache_len;
  args.key_extra = s.key_extra;
  args.first_token = s.first_token;
  EXPECT_EQ(kernel(args, nullptr), cudaSuccess);
  return out.Get();
}

std::vector<Expected> Twin(const Shape& s, const Inputs& in) {
  std::vector<Expected> want(static_cast<std::size_t>(s.rows()) * s.tokens *
                             s.width());
  const std::size_t cache = static_cast<std::size_t>(s.cache_len) * s.head_dim;
  for (int r = 0; r < s.rows(); ++r) {
    const auto k = Widen(in.k.data() + r * cache, cache);
    const auto v = Widen(in.v.data() + r * cache, cache);
    ParallelFor(s.tokens * s.heads, [&](int i) {
      const int token = i / s.heads, head = i % s.heads;
      const std::size_t at = static_cast<std::size_t>(r) * s.tokens + token;
      const auto q =
          Widen(in.q.data() + at * s.stride() + head * s.head_dim, s.head_dim);
      Attend(q, k, v, s.Visible(r, token),
             want.data() + at * s.width() + head * s.head_dim);
    });
  }
  return want;
}

std::vector<int> Labels(int rows) {
  std::vector<int> labels(rows);
  for (int r = 0; r < rows; ++r) labels[r] = r + 1;
  return labels;
}

void ExpectTwin(const Shape& s, const std::string& what) {
  const Inputs in = Draw(s, Labels(s.rows()));
  const auto want = Twin(s, in);
  for (const Kernel kernel : KernelsFor(s)) {
    ExpectWithin(Result(s, in, kernel), want, what);
  }
}

using SuffixAttentionTest = KernelTest;

TEST_F(SuffixAttentionTest, EqualsItsTwinAtPi0sFirstStep) {
  Shape s;
  s.start = {816};
  s.tokens = s.key_extra = 51;
  s.cache_len = 867;
  s.first_token = FirstToken::kSeesItself;
  ExpectTwin(s, "816 + 51");
  s.start = {780};
  ExpectTwin(s, "780 + 51");
  s.start = {788};
  s.tokens = s.key_extra = 11;
  s.cache_len = 799;
  ExpectTwin(s, "788 + 11");
}

TEST_F(SuffixAttentionTest, EqualsItsTwinAtOneRow) {
  Shape s;
  s.start = {816};
  s.key_extra = 51;
  s.cache_len = 867;
  ExpectTwin(s, "pi0");
  s.start = {968};
  s.key_extra = 50;
  s.cache_len = 1018;
  ExpectTwin(s, "pi05");
  for (const int horizon : {10, 15, 16}) {
    s.tokens = s.key_extra = horizon;
    ExpectTwin(s, "pi05, horizon " + std::to_string(horizon));
  }
}

TEST_F(SuffixAttentionTest, EqualsItsTwinWhereClustersShrinkWithRows) {
  for (const int rows : {2, 3, 4, 5, 8, 16}) {
    Shape s;
    for (int r = 0; r < rows; ++r) s.start.push_back(816 - r * 53 % 700);
    s.tokens = s.key_extra = 51;
    s.cache_len = 867;
    s.first_token = FirstToken::kSeesItself;
    ExpectTwin(s, std::to_string(rows) + " rows");
  }
}

// Parts of tiles of 128 queries: six, four and eight of a row.
TEST_F(SuffixAttentionTest, EqualsItsTwinInManyParts) {
  for (const auto& [rows, cache_len] :
       {std::pair{5, 1018}, {6, 1018}, {1, 1500}}) {
    Shape s;
    for (int r = 0; r < rows; ++r) {
      s.start.push_back(cache_len - 50 - r * 83 % 900);
    }
    s.cache_len = cache_len;
    ExpectTwin(s, std::to_string(rows) + " rows of " +
                      std::to_string(cache_len) + " keys");
  }
}

// By turns, a CTA for all of a row's keys; and behind tiles of 128 queries.
TEST_F(SuffixAttentionTest, EqualsItsTwinByTurnsInOnePart) {
  for (const int rows : {18, 40}) {
    Shape s;
    for (int r = 0; r < rows; ++r) s.start.push_back(816 - r * 53 % 700);
    s.cache_len = 867;
    ExpectTwin(s, std::to_string(rows) + " rows");
  }
}

// Where the second consumer has a tile's first keys, or none.
TEST_F(SuffixAttentionTest, EqualsItsTwinWhereTurnsEnd) {
  for (const int start : {57, 58, 121, 122, 185, 186}) {
    Shape s;
    s.start = {start};
    s.tokens = s.key_extra = 7;
    s.cache_len = 200;
    ExpectTwin(s, std::to_string(start) + " prefix keys");
  }
}

TEST_F(SuffixAttentionTest, EqualsItsTwinAtSixtyFourRows) {
  Shape s;
  for (int r = 0; r < 64; ++r) s.start.push_back(r * 13 % 260);
  s.cache_len = 968;
  ExpectTwin(s, "64 rows");
}

TEST_F(SuffixAttentionTest, EqualsItsTwinWithHardlyAKey) {
  for (const int start : {0, 1, 15, 16, 17, 63, 64, 65}) {
    Shape s;
    s.start = {start};
    s.tokens = s.key_extra = 7;
    s.cache_len = 80;
    s.first_token = FirstToken::kSeesItself;
    ExpectTwin(s, std::to_string(start) + " prefix keys");
  }
}

TEST_F(SuffixAttentionTest, EqualsItsTwinAtTheTinyVariants) {
  Shape s;
  s.head_dim = 32;
  for (const int rows : {1, 2, 8, 64}) {
    s.start.clear();
    for (int r = 0; r < rows; ++r) s.start.push_back(816 - r * 67 % 800);
    s.tokens = s.key_extra = 11;
    s.cache_len = 827;
    s.first_token = FirstToken::kSeesItself;
    ExpectTwin(s, "tiny pi0, " + std::to_string(rows) + " rows");
    s.tokens = s.key_extra = 7;
    s.cache_len = 975;
    s.first_token = FirstToken::kSeesAll;
    ExpectTwin(s, "tiny pi05, " + std::to_string(rows) + " rows");
  }
}

TEST_F(SuffixAttentionTest, KeysPastTheCacheAreNotRead) {
  Shape s;
  s.start = {60, 5};
  s.cache_len = 64;  // row 0 claims 110 keys
  ExpectTwin(s, "clamped");
}

TEST_F(SuffixAttentionTest, AMicroWaveReadsItsOwnRowsOfTheCache) {
  Shape s;
  s.start = {200, 100};
  s.cache_len = 260;
  s.row_base = 3;
  ExpectTwin(s, "rows 3 and 4");
}

TEST_F(SuffixAttentionTest, EqualsItsTwinAtOddNumbersOfTiles) {
  for (const int tokens : {1, 4, 8, 17, 33, 40, 72}) {
    for (const int rows : {1, 3, 9}) {
      Shape s;
      for (int r = 0; r < rows; ++r) s.start.push_back(300 - r * 31);
      s.tokens = s.key_extra = tokens;
      s.cache_len = 300 + tokens;
      ExpectTwin(s, std::to_string(rows) + " rows of " +
                        std::to_string(tokens) + " tokens");
    }
  }
}

TEST_F(SuffixAttentionTest, EqualsItsTwinAtOtherNumbersOfHeads) {
  for (const int heads : {1, 2, 4, 16, 32, 64}) {
    Shape s;
    s.start = {100, 63, 64, 1};
    s.tokens = s.key_extra = 20;
    s.cache_len = 120;
    s.heads = heads;
    s.first_token = FirstToken::kSeesItself;
    ExpectTwin(s, std::to_string(heads) + " heads");
  }
}

TEST_F(SuffixAttentionTest, HeadsThatFillNoTileAreServedByTheTiledKernel) {
  Shape s;
  s.start = {100, 63, 64, 1};
  s.tokens = s.key_extra = 20;
  s.cache_len = 120;
  s.heads = 6;
  const Inputs in = Draw(s, Labels(s.rows()));
  ExpectWithin(Result(s, in), Twin(s, in), "6 heads");
  AttentionArgs args;
  args.head_dim = 256;
  args.heads = 6;
  EXPECT_EQ(LaunchWarpgroupAttention(args, nullptr), cudaErrorInvalidValue);
}

// What was summed moves to a new maximum again and again.
TEST_F(SuffixAttentionTest, EqualsItsTwinWhereTheMaximumKeepsRising) {
  Shape s;
  s.start = {600, 599, 598, 597};
  s.tokens = s.key_extra = 16;
  s.cache_len = 616;
  Inputs in = Draw(s, Labels(s.rows()));
  const std::size_t key = s.head_dim;
  for (std::size_t i = 0; i < in.k.size(); ++i) {
    const int at = static_cast<int>(i / key) % s.cache_len;
    in.k[i] = __float2bfloat16_rn(Value(in.k[i]) * 0.01f * at);
  }
  const auto want = Twin(s, in);
  for (const Kernel kernel : KernelsFor(s)) {
    ExpectWithin(Result(s, in, kernel), want, "rising");
  }
}

void ExpectIndependentRows(int rows, Kernel kernel) {
  Shape s;
  s.cache_len = 867;
  s.key_extra = 51;
  for (int r = 0; r < rows; ++r) s.start.push_back(816 - r * 101 % 700);
  const std::size_t row_size = static_cast<std::size_t>(s.tokens) * s.width();
  auto labels = Labels(rows);
  const auto before = Result(s, Draw(s, labels), kernel);
  // The first row becomes the last, among others of other lengths.
  Shape moved = s;
  std::reverse(labels.begin(), labels.end());
  for (int r = 0; r + 1 < rows; ++r) moved.start[r] = r * 59 % 800;
  moved.start.back() = s.start[0];
  const auto after = Result(moved, Draw(moved, labels), kernel);
  const std::vector<Bf16> first(before.begin(), before.begin() + row_size);
  const std::vector<Bf16> last(after.end() - row_size, after.end());
  EXPECT_TRUE(SameBits(first, last)) << rows << " rows";
}

TEST_F(SuffixAttentionTest, ARowsBitsDependOnItselfAlone) {
  for (const int rows : {2, 4, 8, 16, 40}) {
    for (const Kernel kernel : KernelsFor({})) {
      ExpectIndependentRows(rows, kernel);
    }
  }
}

TEST_F(SuffixAttentionTest, ReplayIsBitIdentical) {
  Shape s;
  s.start = {816, 700};
  s.cache_len = 866;
  const Inputs in = Draw(s, {1, 2});
  for (const Kernel kernel : KernelsFor(s)) {
    const auto once = Result(s, in, kernel);
    for (int i = 0; i < 20; ++i) {
      EXPECT_TRUE(SameBits(once, Result(s, in, kernel)));
    }
  }
}

TEST_F(SuffixAttentionTest, LargeScoresDoNotOverflow) {
  Shape s;
  s.start = {200};
  s.tokens = s.key_extra = 10;
  s.cache_len = 210;
  Inputs in = Draw(s, {1});
  for (Bf16& q : in.q) q = __float2bfloat16_rn(Value(q) * 40);
  for (const Kernel kernel : KernelsFor(s)) {
    for (const Bf16 v : Result(s, in, kernel)) {
      ASSERT_TRUE(std::isfinite(Value(v)));
    }
  }
}

TEST(SuffixAttentionSupportsTest, WhatItHasAKernelFor) {
  EXPECT_TRUE(SuffixAttentionSupports(256, 1));
  EXPECT_TRUE(SuffixAttentionSupports(32, 1));
  EXPECT_FALSE(SuffixAttentionSupports(128, 1));
  EXPECT_FALSE(SuffixAttentionSupports(256, 2));
  SuffixAttentionArgs args;
  args.head_dim = 24;
  EXPECT_EQ(LaunchSuffixAttention(args, nullptr), cudaErrorInvalidValue);
}

}  // namespace
}  // namespace piserve::kernels
