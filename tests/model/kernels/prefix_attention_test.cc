// SPDX-License-Identifier: Apache-2.0
#include "model/kernels/prefix_attention.h"

#include <algorithm>
#include <limits>

#include "model/kernels/norm.h"
#include "tests/model/kernels/device.h"
#include "tests/model/kernels/twins.h"

namespace piserve::kernels {
namespace {

using PrefixAttentionTest = KernelTest;

constexpr int kHeads = 8;

struct Shape {
  std::vector<int> length;  // one a row
  int tokens;
  int cache_len;
  int head_dim = 256;
  int row_base = 0;  // cache rows before the first

  int rows() const { return static_cast<int>(length.size()); }
  std::size_t stride() const { return (kHeads + 2) * head_dim; }
  std::size_t cache() const {
    return static_cast<std::size_t>(cache_len) * head_dim;
  }
};

struct Inputs {
  explicit Inputs(const Shape& s)
      : q(NormalBf16(s.rows() * s.tokens * s.stride(), 1, 1.5f)),
        k(NormalBf16(s.rows() * s.cache(), 2, 1.5f)),
        v(NormalBf16(s.rows() * s.cache(), 3)) {
    // Keys that nobody may see.
    const Bf16 nan =
        __float2bfloat16_rn(std::numeric_limits<float>::quiet_NaN());
    for (int r = 0; r < s.rows(); ++r) {
      for (auto* cache : {&k, &v}) {
        std::fill(cache->begin() + r * s.cache() + s.length[r] * s.head_dim,
                  cache->begin() + (r + 1) * s.cache(), nan);
      }
    }
  }
  std::vector<Bf16> q, k, v;
};

// The rows of a cache, with rows of NaN before and behind.
std::vector<Bf16> Cached(const Shape& s, const std::vector<Bf16>& rows) {
  const Bf16 nan = __float2bfloat16_rn(std::numeric_limits<float>::quiet_NaN());
  std::vector<Bf16> all(s.row_base * s.cache(), nan);
  all.insert(all.end(), rows.begin(), rows.end());
  all.insert(all.end(), s.cache(), nan);
  return all;
}

std::vector<Bf16> Result(const Shape& s, const Inputs& in) {
  DeviceArray<Bf16> q(in.q), k(Cached(s, in.k)), v(Cached(s, in.v));
  DeviceArray<int> base(std::vector<int>{s.row_base});
  DeviceArray<Bf16> out(static_cast<std::size_t>(s.rows()) * s.tokens * kHeads *
                        s.head_dim);
  DeviceArray<int> length(s.length);
  PrefixAttentionArgs args;
  args.q = q.data();
  args.token_stride = static_cast<long>(s.stride());
  args.cache_k = k.data();
  args.cache_v = v.data();
  args.row_base = s.row_base == 0 ? nullptr : base.data();
  args.prefix_len = length.data();
  args.out = out.data();
  DeviceArray<unsigned> begun(std::vector<unsigned>(kPrefixAttentionWords, 0));
  args.begun = begun.data();
  args.rows = s.rows();
  args.tokens = s.tokens;
  args.heads = kHeads;
  args.head_dim = s.head_dim;
  args.cache_len = s.cache_len;
  EXPECT_EQ(LaunchPrefixAttention(args, nullptr), cudaSuccess);
  EXPECT_EQ(begun.Get(), std::vector<unsigned>(kPrefixAttentionWords, 0));
  return out.Get();
}

void ExpectTwin(const Shape& s, const Inputs& in) {
  const auto got = Result(s, in);
  const std::size_t row_size =
      static_cast<std::size_t>(s.tokens) * kHeads * s.head_dim;
  for (int r = 0; r < s.rows(); ++r) {
    const auto k = Widen(in.k.data() + r * s.cache(), s.cache());
    const auto v = Widen(in.v.data() + r * s.cache(), s.cache());
    const int queries = s.length[r] * kHeads;
    std::vector<Expected> want(static_cast<std::size_t>(queries) * s.head_dim);
    ParallelFor(queries, [&](int i) {
      const std::size_t token =
          static_cast<std::size_t>(r) * s.tokens + i / kHeads;
      Attend(Widen(in.q.data() + token * s.stride() + i % kHeads * s.head_dim,
                   s.head_dim),
             k, v, s.length[r], want.data() + i * s.head_dim);
    });
    const auto begin = got.begin() + r * row_size;
    ExpectWithin(std::vector<Bf16>(begin, begin + want.size()), want,
                 "row " + std::to_string(r));
    for (auto it = begin + want.size(); it != begin + row_size; ++it) {
      ASSERT_TRUE(std::isfinite(Value(*it))) << "padding of row " << r;
    }
  }
}

void ExpectTwin(const Shape& s) { ExpectTwin(s, Inputs(s)); }

TEST_F(PrefixAttentionTest, EqualsItsTwinAtOneRow) {
  ExpectTwin({{816}, 816, 867});
  ExpectTwin({{788}, 816, 867});
  ExpectTwin({{968}, 968, 1018});
  ExpectTwin({{560}, 560, 611});
}

TEST_F(PrefixAttentionTest, EqualsItsTwinInAMixedWave) {
  ExpectTwin({{816, 519, 1, 268}, 816, 867});
  ExpectTwin({{300, 64, 65, 129, 128, 127, 17, 5}, 304, 360});
}

TEST_F(PrefixAttentionTest, EqualsItsTwinAtAnyNumberOfRows) {
  // 13 tiles of 128 queries, an odd number, of which the last is half full.
  std::vector<int> lengths;
  for (const int length : {200, 199, 129, 130, 16, 1, 193, 64, 200}) {
    lengths.push_back(length);
    ExpectTwin({lengths, 200, 203});
  }
}

TEST_F(PrefixAttentionTest, EqualsItsTwinInAFullWave) {
  ExpectTwin({{816, 788, 768, 816, 300, 640, 801, 816}, 816, 867});
  ExpectTwin({{560, 560, 1, 560}, 560, 560});
  // What is left over: in three parts of 128 queries, and by turns in one.
  ExpectTwin({{288, 100, 288, 1, 287, 288, 64, 200, 288}, 288, 339});
  ExpectTwin({{344, 344, 1, 128, 343, 344, 200, 344}, 344, 395});
}

TEST_F(PrefixAttentionTest, EqualsItsTwinWhereClustersGoOnFromRowToRow) {
  // Several items a cluster, some of one tile of keys, some that do not matter:
  // of five tiles of queries by two peers, of one by a CTA alone.
  for (const int tokens : {72, 16}) {
    std::vector<int> lengths;
    for (int i = 0; i < 150; ++i) lengths.push_back(1 + i * 31 % tokens);
    ExpectTwin({lengths, tokens, tokens + 50});
  }
}

// Calls of two kernels, each between one that writes its queries and one that
// reads its results, every other one of other queries: who began too early
// would find those of the call before.
void ExpectPlaceInAStream(const Shape& s) {
  constexpr int kCalls = 16;
  const Inputs in(s);
  const int tokens = s.rows() * s.tokens, out_width = kHeads * s.head_dim;
  const int width = static_cast<int>(s.stride());
  std::vector<Bf16> turned = in.q;
  std::rotate(turned.begin(), turned.begin() + 5 * width, turned.end());
  DeviceArray<Bf16> sources[] = {DeviceArray<Bf16>(in.q),
                                 DeviceArray<Bf16>(turned)};
  DeviceArray<float> gain(std::vector<float>(width, 1));
  DeviceArray<Bf16> q(in.q.size()), k(Cached(s, in.k)), v(Cached(s, in.v));
  DeviceArray<Bf16> out(static_cast<std::size_t>(tokens) * out_width);
  DeviceArray<int> length(s.length);
  DeviceArray<unsigned> begun(std::vector<unsigned>(kPrefixAttentionWords, 0));
  const auto call = [&](int i, unsigned* words, DeviceArray<Bf16>& to) {
    EXPECT_EQ(LaunchRmsNorm(sources[i % 2].data(), gain.data(), q.data(),
                            tokens, width, nullptr),
              cudaSuccess);
    EXPECT_EQ(LaunchPrefixAttention({.q = q.data(),
                                     .token_stride = width,
                                     .cache_k = k.data(),
                                     .cache_v = v.data(),
                                     .prefix_len = length.data(),
                                     .out = out.data(),
                                     .begun = words,
                                     .rows = s.rows(),
                                     .tokens = s.tokens,
                                     .heads = kHeads,
                                     .head_dim = s.head_dim,
                                     .cache_len = s.cache_len},
                                    nullptr),
              cudaSuccess);
    EXPECT_EQ(LaunchRmsNorm(out.data(), gain.data(), to.data(), tokens,
                            out_width, nullptr),
              cudaSuccess);
  };
  DeviceArray<Bf16> result(out.size());
  std::vector<Bf16> want[2];
  for (int i = 0; i < 2; ++i) {
    call(i, /*words=*/nullptr, result);
    want[i] = result.Get();
  }
  ASSERT_FALSE(SameBits(want[0], want[1]));
  DeviceArray<Bf16> results[] = {DeviceArray<Bf16>(out.size()),
                                 DeviceArray<Bf16>(out.size()),
                                 DeviceArray<Bf16>(out.size())};
  for (int i = 0; i < kCalls; ++i) call(i, begun.data(), results[i % 3]);
  for (int i = kCalls - 3; i < kCalls; ++i) {
    EXPECT_TRUE(SameBits(results[i % 3].Get(), want[i % 2])) << i;
  }
  EXPECT_EQ(begun.Get(), std::vector<unsigned>(kPrefixAttentionWords, 0));
}

TEST_F(PrefixAttentionTest, KernelsTogetherKeepTheirPlaceInAStream) {
  // The second one by turns in two parts and in one, and in three of 128
  // queries.
  ExpectPlaceInAStream({{816, 788, 768, 816, 300, 640, 801, 816}, 816, 867});
  ExpectPlaceInAStream({{344, 344, 1, 128, 343, 344, 200, 344}, 344, 395});
  ExpectPlaceInAStream({{288, 100, 288, 1, 287, 288, 64, 200, 288}, 288, 339});
}

TEST_F(PrefixAttentionTest, PartsMergeAtAnyScaleOfValues) {
  for (const float scale : {0x1p-90f, 0x1p-16f, 0x1p16f, 0x1p110f}) {
    const Shape shape{{300}, 300, 351};
    Inputs in(shape);
    for (Bf16& v : in.v) v = __float2bfloat16_rn(Value(v) * scale);
    ExpectTwin(shape, in);
  }
}

TEST_F(PrefixAttentionTest, EqualsItsTwinAtShortCaches) {
  for (const int tokens : {1, 15, 16, 17, 31, 63, 64, 65, 127, 128, 129}) {
    ExpectTwin({{tokens, (tokens + 1) / 2}, tokens, tokens});
  }
}

TEST_F(PrefixAttentionTest, AMicroWaveReadsItsOwnRowsOfTheCache) {
  ExpectTwin({{200, 100, 77}, 200, 251, 256, 2});
  ExpectTwin({{390}, 400, 440, 256, 5});
}

TEST_F(PrefixAttentionTest, EqualsItsTwinAtTheTinyVariants) {
  ExpectTwin({{816, 300}, 816, 827, 32});
  ExpectTwin({{968}, 968, 975, 32});
}

TEST_F(PrefixAttentionTest, ARowsBitsDependOnItselfAlone) {
  const Shape s{{400, 300, 408, 7}, 408, 460};
  const Inputs in(s);
  const auto before = Result(s, in);
  // The first and the last row change places, the others shrink.
  Shape moved{{7, 11, 12, 400}, 408, 460};
  Inputs swapped = in;
  const auto swap = [&](std::vector<Bf16>& values) {
    const std::size_t row = values.size() / 4;
    std::swap_ranges(values.begin(), values.begin() + row, values.end() - row);
  };
  swap(swapped.q);
  swap(swapped.k);
  swap(swapped.v);
  const auto after = Result(moved, swapped);
  const std::size_t used = 400 * kHeads * 256;
  const std::size_t row = before.size() / 4;
  EXPECT_EQ(
      std::memcmp(before.data(), after.data() + 3 * row, used * sizeof(Bf16)),
      0);
  EXPECT_TRUE(SameBits(before, Result(s, in)));
}

}  // namespace
}  // namespace piserve::kernels
