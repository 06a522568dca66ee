// SPDX-License-Identifier: Apache-2.0
#include "model/kernels/prefix.h"

#include "tests/model/kernels/device.h"
#include "tests/model/kernels/twins.h"

namespace piserve::kernels {
namespace {

using PrefixTest = KernelTest;

std::vector<int> Tokens(std::size_t count, int vocab) {
  std::mt19937 generator(5);
  std::vector<int> tokens(count);
  for (int& t : tokens) t = static_cast<int>(generator() % vocab);
  return tokens;
}

struct EmbedCase {
  int width, slots, patches, max_tokens, capacity, vocab;
  std::vector<int> images, prompt;  // of each row
  int base = 0;                     // rows of `tokens` before the first
};

// A copy and one FP32 product: no tolerance.
std::vector<Bf16> EmbedTwin(const EmbedCase& c, const std::vector<Bf16>& image,
                            const std::vector<Bf16>& embedding,
                            const std::vector<int>& tokens, float scale) {
  const int rows = static_cast<int>(c.images.size());
  const Bf16 zero = __float2bfloat16_rn(0);
  std::vector<Bf16> want(static_cast<std::size_t>(rows) * c.capacity * c.width,
                         zero);
  for (int r = 0; r < rows; ++r) {
    const int image_len = c.images[r] * c.patches;
    for (int p = 0; p < image_len + c.prompt[r]; ++p) {
      const long to = (static_cast<long>(r) * c.capacity + p) * c.width;
      if (p < image_len) {
        const long from =
            (static_cast<long>(r) * c.slots * c.patches + p) * c.width;
        std::copy_n(image.begin() + from, c.width, want.begin() + to);
        continue;
      }
      const int token = tokens[(c.base + r) * c.max_tokens + p - image_len];
      if (token < 0 || token >= c.vocab) continue;
      for (int i = 0; i < c.width; ++i) {
        const float e = __bfloat162float(embedding[token * c.width + i]);
        want[to + i] = __float2bfloat16_rn(e * scale);
      }
    }
  }
  return want;
}

void CheckEmbed(const EmbedCase& c) {
  const int rows = static_cast<int>(c.images.size());
  const float scale = std::sqrt(static_cast<float>(c.width));
  const auto image = NormalBf16(
      static_cast<std::size_t>(rows) * c.slots * c.patches * c.width, 1);
  const auto embedding =
      NormalBf16(static_cast<std::size_t>(c.vocab) * c.width, 2, 0.02f);
  auto tokens = Tokens((c.base + rows) * c.max_tokens, c.vocab);
  tokens[c.base * c.max_tokens] = -1;
  tokens[c.base * c.max_tokens + 1] = c.vocab;
  std::vector<int> image_len(rows), prefix_len(rows);
  for (int r = 0; r < rows; ++r) {
    image_len[r] = c.images[r] * c.patches;
    prefix_len[r] = image_len[r] + c.prompt[r];
  }
  DeviceArray<Bf16> image_d(image), embedding_d(embedding);
  DeviceArray<Bf16> out(static_cast<std::size_t>(rows) * c.capacity * c.width);
  DeviceArray<int> tokens_d(tokens), image_len_d(image_len);
  DeviceArray<int> prefix_len_d(prefix_len), base(std::vector<int>{c.base});
  EmbedPrefixArgs args;
  args.image_tokens = image_d.data();
  args.embedding = embedding_d.data();
  args.tokens = tokens_d.data();
  args.row_base = base.data();
  args.image_len = image_len_d.data();
  args.prefix_len = prefix_len_d.data();
  args.out = out.data();
  args.scale = scale;
  args.rows = rows;
  args.slot_tokens = c.slots * c.patches;
  args.max_tokens = c.max_tokens;
  args.capacity = c.capacity;
  args.width = c.width;
  args.vocab = c.vocab;
  ASSERT_EQ(LaunchEmbedPrefix(args, nullptr), cudaSuccess);
  EXPECT_TRUE(
      SameBits(out.Get(), EmbedTwin(c, image, embedding, tokens, scale)));
}

TEST_F(PrefixTest, EmbedPrefixLaysOutEachRowAndFillsTheRestWithZeros) {
  CheckEmbed({2048, 3, 256, 48, 816, 1000, {3}, {48}});
  CheckEmbed({2048, 3, 256, 200, 968, 1000, {3, 1, 0}, {7, 200, 3}, 2});
  CheckEmbed({128, 3, 256, 48, 816, 1024, {2, 3}, {48, 1}, 1});
}

struct RopeCase {
  int rows, seq, heads, kv_heads, head_dim, cache_len, start_offset, row_base;
  bool with_start;
  int parts = 0;  // of the squares of tokens not yet normalised
};

void CheckRope(const RopeCase& c) {
  const int half = c.head_dim / 2;
  const int all = c.heads + 2 * c.kv_heads;
  const auto qkv = NormalBf16(
      static_cast<std::size_t>(c.rows) * c.seq * all * c.head_dim, 1);
  std::vector<float2> table(static_cast<std::size_t>(c.cache_len) * half);
  for (std::size_t i = 0; i < table.size(); ++i) {
    const float angle =
        static_cast<float>(i / half) / static_cast<float>(1 + i % half * 7);
    table[i] = {std::cos(angle), std::sin(angle)};
  }
  std::vector<int> start(c.rows, 0);
  for (int r = 0; r < c.rows && c.with_start; ++r) start[r] = 5 + 3 * r;
  const std::size_t cache = static_cast<std::size_t>(c.row_base + c.rows) *
                            c.cache_len * c.kv_heads * c.head_dim;
  DeviceArray<Bf16> qkv_d(qkv), k(cache), v(cache);
  DeviceArray<float2> table_d(table);
  DeviceArray<int> start_d(start), base(std::vector<int>{c.row_base});
  const auto k_before = k.Get();
  RopeScatterArgs args;
  args.qkv = qkv_d.data();
  args.table = table_d.data();
  args.start = c.with_start ? start_d.data() : nullptr;
  args.row_base = base.data();
  args.cache_k = k.data();
  args.cache_v = v.data();
  args.rows = c.rows;
  args.seq = c.seq;
  args.heads = c.heads;
  args.kv_heads = c.kv_heads;
  args.head_dim = c.head_dim;
  args.cache_len = c.cache_len;
  args.start_offset = c.start_offset;
  constexpr int kNormWidth = 40;
  const int tokens = c.rows * c.seq;
  std::vector<float> squares = Normal(std::max(1, c.parts * tokens), 4);
  for (float& v : squares) v *= v;
  DeviceArray<float> squares_d(squares);
  if (c.parts > 0) args.squares = squares_d.data();
  args.parts = c.parts;
  args.width = kNormWidth;
  const auto factor = [&](int token) {
    if (c.parts == 0) return 1.0;
    double sum = 0;
    for (int i = 0; i < c.parts; ++i) sum += squares[i * tokens + token];
    return 1 / std::sqrt(sum / kNormWidth + 1e-6);
  };
  ASSERT_EQ(LaunchRopeScatter(args, nullptr), cudaSuccess);

  const auto got = qkv_d.Get(), got_k = k.Get(), got_v = v.Get();
  std::vector<Bf16> checked;
  std::vector<Expected> want;
  std::vector<bool> in_cache(cache, false);
  for (int r = 0; r < c.rows; ++r) {
    for (int t = 0; t < c.seq; ++t) {
      const int position = start[r] + c.start_offset + t;
      for (int h = 0; h < all; ++h) {
        const long at =
            ((static_cast<long>(r) * c.seq + t) * all + h) * c.head_dim;
        const int kv = (h - c.heads) % c.kv_heads;
        const long to =
            ((static_cast<long>(c.row_base + r) * c.cache_len + position) *
                 c.kv_heads +
             kv) *
            c.head_dim;
        for (int d = 0; d < half; ++d) {
          const float2 cs = table[static_cast<long>(position) * half + d];
          const double scale = factor(r * c.seq + t);
          const double x1 = scale * Value(qkv[at + d]);
          const double x2 = scale * Value(qkv[at + d + half]);
          const bool turned = h < c.heads + c.kv_heads;
          const bool exact = !turned && c.parts == 0;
          Expected first =
              turned ? Rotate(x1, cs.x, x2, -cs.y) : Rotate(x1, 1, x2, 0);
          Expected second =
              turned ? Rotate(x2, cs.x, x1, cs.y) : Rotate(x2, 1, x1, 0);
          const double factors_error =
              c.parts == 0 ? 0 : 0x1p-20 * (std::abs(x1) + std::abs(x2));
          for (Expected* e : {&first, &second}) {
            e->tolerance = exact ? 0 : e->tolerance + factors_error;
          }
          want.push_back(first);
          want.push_back(second);
          const auto& from = h < c.heads ? got : turned ? got_k : got_v;
          const long where = h < c.heads ? at : to;
          checked.push_back(from[where + d]);
          checked.push_back(from[where + d + half]);
          if (h >= c.heads) in_cache[to + d] = in_cache[to + d + half] = true;
        }
      }
    }
  }
  ExpectWithin(checked, want, "rope");
  // Nothing else in the caches was touched.
  for (std::size_t i = 0; i < cache; ++i) {
    if (in_cache[i]) continue;
    ASSERT_EQ(std::memcmp(&got_k[i], &k_before[i], 2), 0) << i;
    ASSERT_EQ(std::memcmp(&got_v[i], &k_before[i], 2), 0) << i;
  }
}

TEST_F(PrefixTest, RopeRotatesInPlaceAndScattersToTheCache) {
  CheckRope({1, 816, 8, 1, 256, 867, 0, 0, false});
  CheckRope({2, 51, 8, 1, 256, 900, 0, 1, true});
  CheckRope({3, 50, 8, 1, 256, 100, 1, 0, true});
  CheckRope({2, 816, 0, 1, 256, 867, 0, 0, false});  // the last VLM layer
  CheckRope({3, 300, 8, 1, 32, 330, 0, 2, false});
  CheckRope({2, 11, 8, 1, 32, 330, 0, 0, true});
  CheckRope({2, 9, 4, 2, 24, 40, 3, 1, true});  // no 16-byte runs
  // Enough for several heads a thread, which divide the heads or do not.
  CheckRope({64, 50, 8, 1, 256, 260, 1, 0, true});
  CheckRope({64, 50, 4, 2, 256, 260, 0, 1, true});
}

TEST_F(PrefixTest, RopeAppliesANormThatTheProjectionLeftOut) {
  CheckRope({2, 816, 8, 1, 256, 867, 0, 0, false, /*parts=*/8});
  CheckRope({2, 816, 0, 1, 256, 867, 0, 1, false, /*parts=*/8});
  CheckRope({3, 11, 8, 1, 32, 330, 0, 0, true, /*parts=*/1});
  CheckRope({2, 9, 4, 2, 24, 40, 3, 1, true, /*parts=*/3});
}

// Many rows take other threads than one row; the bits are the same.
TEST_F(PrefixTest, ARowsRopeBitsDoNotDependOnHowManyRowsThereAre) {
  constexpr int kRows = 64, kSeq = 50, kDim = 256, kCacheLen = 260;
  constexpr std::size_t kRow = kSeq * 10 * kDim;
  constexpr std::size_t kCacheRow = kCacheLen * kDim;
  const auto qkv = NormalBf16(kRows * kRow, 1);
  std::vector<float2> table(kCacheLen * kDim / 2);
  for (std::size_t i = 0; i < table.size(); ++i) {
    table[i] = {std::cos(0.37f * i), std::sin(0.37f * i)};
  }
  std::vector<int> start(kRows);
  for (int r = 0; r < kRows; ++r) start[r] = 3 * r;
  DeviceArray<Bf16> together(qkv), alone(qkv);
  DeviceArray<Bf16> k(kRows * kCacheRow), v(k.size());
  DeviceArray<Bf16> alone_k(k.size()), alone_v(k.size());
  DeviceArray<float2> table_d(table);
  DeviceArray<int> start_d(start);
  RopeScatterArgs args;
  args.qkv = together.data();
  args.table = table_d.data();
  args.start = start_d.data();
  args.cache_k = k.data();
  args.cache_v = v.data();
  args.rows = kRows;
  args.seq = kSeq;
  args.heads = 8;
  args.kv_heads = 1;
  args.head_dim = kDim;
  args.cache_len = kCacheLen;
  ASSERT_EQ(LaunchRopeScatter(args, nullptr), cudaSuccess);
  args.rows = 1;
  for (int r = 0; r < kRows; ++r) {
    args.qkv = alone.data() + r * kRow;
    args.start = start_d.data() + r;
    args.cache_k = alone_k.data() + r * kCacheRow;
    args.cache_v = alone_v.data() + r * kCacheRow;
    ASSERT_EQ(LaunchRopeScatter(args, nullptr), cudaSuccess);
  }
  EXPECT_TRUE(SameBits(together.Get(), alone.Get()));
  EXPECT_TRUE(SameBits(k.Get(), alone_k.Get()));
  EXPECT_TRUE(SameBits(v.Get(), alone_v.Get()));
}

TEST_F(PrefixTest, GegluEqualsItsTwin) {
  for (const auto& [rows, width] : std::vector<std::pair<int, int>>{
           {816, 16384}, {50, 4096}, {51, 4096}, {300, 320}, {11, 160}}) {
    const std::size_t size = static_cast<std::size_t>(rows) * width;
    auto gate_up = NormalBf16(2 * size, 3, 3);
    // Far tails, where a careless form gives NaN.
    const float tails[] = {-300, -40, -15, 0, 15, 40, 300};
    for (int i = 0; i < 7; ++i) gate_up[i] = __float2bfloat16_rn(tails[i]);
    DeviceArray<Bf16> in(gate_up), out(size);
    ASSERT_EQ(LaunchGeglu(in.data(), out.data(), rows, width, nullptr),
              cudaSuccess);
    std::vector<Expected> want(size);
    ParallelFor(rows, [&](int r) {
      for (int i = 0; i < width; ++i) {
        const double g = Value(gate_up[static_cast<long>(r) * 2 * width + i]);
        const double u =
            Value(gate_up[(static_cast<long>(r) * 2 + 1) * width + i]);
        want[static_cast<long>(r) * width + i] = Geglu(g, u);
      }
    });
    ExpectWithin(out.Get(), want, std::to_string(width));
  }
}

}  // namespace
}  // namespace piserve::kernels
