// SPDX-License-Identifier: Apache-2.0
// Times every kernel at the sizes of the full-size variants, checking a launch
// against its twin first. A name given as argument selects the lines that
// contain it.
#include <cstdio>
#include <map>
#include <memory>

#include "model/kernels/attention.h"
#include "model/kernels/image.h"
#include "model/kernels/norm.h"
#include "model/kernels/prefix.h"
#include "model/kernels/prefix_attention.h"
#include "model/kernels/suffix_attention.h"
#include "model/kernels/vision_attention.h"
#include "tests/model/kernels/benchmark.h"
#include "tests/model/kernels/cases.h"
#include "tests/model/kernels/device.h"
#include "tests/model/kernels/twins.h"

namespace piserve::kernels {

std::shared_ptr<DeviceArray<Bf16>> RandomBf16(std::size_t size,
                                              float deviation) {
  static std::map<float, std::vector<Bf16>> pools;
  auto& pool = pools[deviation];
  if (pool.empty()) pool = NormalBf16(1 << 20, 1, deviation);
  auto array = std::make_shared<DeviceArray<Bf16>>(size);
  for (std::size_t at = 0; at < size; at += pool.size()) {
    const std::size_t count = std::min(pool.size(), size - at);
    EXPECT_EQ(cudaMemcpy(array->data() + at, pool.data(), count * sizeof(Bf16),
                         cudaMemcpyHostToDevice),
              cudaSuccess);
  }
  return array;
}

std::shared_ptr<DeviceArray<float>> RandomFloat(std::size_t size, float mean,
                                                float deviation) {
  return std::make_shared<DeviceArray<float>>(Normal(size, 2, deviation, mean));
}

namespace {

constexpr int kHeads = 8, kDim = 256, kQkv = (kHeads + 2) * kDim;

using Attention = cudaError_t (*)(const AttentionArgs&, cudaStream_t);

cudaError_t Suffix(const AttentionArgs& args, cudaStream_t stream) {
  return LaunchSuffixAttention(args, stream);
}

KernelCase AttentionCase(const char* what, Attention kernel, int rows,
                         int tokens, int prefix, int extra) {
  const int len = prefix + extra;
  KernelCase c;
  c.name = std::string("attention ") + what + ", rows " + std::to_string(rows);
  const std::size_t cache = static_cast<std::size_t>(rows) * len * kDim;
  const std::size_t queries = static_cast<std::size_t>(rows) * tokens;
  c.bytes = 2.0 * (2 * cache + 2 * queries * kHeads * kDim);
  c.flops = 4.0 * queries * kHeads * len * kDim;
  c.sets = SetsFor(4.0 * cache);
  auto k = RandomBf16(cache * c.sets), v = RandomBf16(cache * c.sets);
  auto q = RandomBf16(queries * kQkv);
  auto out = std::make_shared<DeviceArray<Bf16>>(queries * kHeads * kDim);
  auto start =
      std::make_shared<DeviceArray<int>>(std::vector<int>(rows, prefix));
  auto begun = std::make_shared<DeviceArray<unsigned>>(
      std::vector<unsigned>(kPrefixAttentionWords, 0));
  c.launch = [=](int set, cudaStream_t stream) {
    AttentionArgs args;
    args.begun = begun->data();
    args.q = q->data();
    args.token_stride = kQkv;
    args.cache_k = k->data() + set * cache;
    args.cache_v = v->data() + set * cache;
    args.start = start->data();
    args.out = out->data();
    args.rows = rows;
    args.tokens = tokens;
    args.heads = kHeads;
    args.head_dim = kDim;
    args.cache_len = len;
    args.key_extra = extra;
    return kernel(args, stream);
  };
  c.check = [=, launch = c.launch] {
    ASSERT_EQ(launch(0, nullptr), cudaSuccess);
    const auto got = out->Get();
    const auto q_host = q->Get();
    std::vector<Bf16> k_host(cache), v_host(cache), sample;
    cudaMemcpy(k_host.data(), k->data(), cache * 2, cudaMemcpyDeviceToHost);
    cudaMemcpy(v_host.data(), v->data(), cache * 2, cudaMemcpyDeviceToHost);
    std::vector<Expected> want;
    for (std::size_t i = 0; i < 40; ++i) {  // queries all over the batch
      const std::size_t query = i * 7919 % (queries * kHeads);
      const std::size_t token = query / kHeads, head = query % kHeads;
      const std::size_t at = token / tokens * len * kDim;
      std::vector<Expected> row(kDim);
      Attend(Widen(q_host.data() + token * kQkv + head * kDim, kDim),
             Widen(k_host.data() + at, static_cast<std::size_t>(len) * kDim),
             Widen(v_host.data() + at, static_cast<std::size_t>(len) * kDim),
             len, row.data());
      want.insert(want.end(), row.begin(), row.end());
      sample.insert(sample.end(), got.begin() + query * kDim,
                    got.begin() + (query + 1) * kDim);
    }
    ExpectWithin(sample, want, "attention");
  };
  return c;
}

KernelCase VisionAttentionCase(int images) {
  constexpr int kTokens = 256, kVisionHeads = 16, kVisionDim = 72;
  constexpr int kInner = kVisionHeads * kVisionDim;
  KernelCase c;
  c.name = "attention vision, images " + std::to_string(images);
  const std::size_t size = static_cast<std::size_t>(images) * kTokens * kInner;
  c.bytes = 8.0 * size;
  c.flops = 4.0 * size * kTokens;
  c.sets = SetsFor(c.bytes);
  auto qkv = RandomBf16(3 * size * c.sets);
  auto out = std::make_shared<DeviceArray<Bf16>>(size);
  c.launch = [=](int set, cudaStream_t stream) {
    return LaunchVisionAttention({.qkv = qkv->data() + 3 * set * size,
                                  .out = out->data(),
                                  .images = images,
                                  .tokens = kTokens,
                                  .heads = kVisionHeads,
                                  .head_dim = kVisionDim},
                                 stream);
  };
  c.check = [=, launch = c.launch] {
    ASSERT_EQ(launch(0, nullptr), cudaSuccess);
    std::vector<Bf16> in(3 * size);
    cudaMemcpy(in.data(), qkv->data(), in.size() * 2, cudaMemcpyDeviceToHost);
    std::vector<double> k, v;  // of the last image's last head
    const std::size_t first = static_cast<std::size_t>(images - 1) * kTokens;
    const auto at = [&](std::size_t token, int part) {
      return Widen(
          in.data() + ((first + token) * 3 + part + 1) * kInner - kVisionDim,
          kVisionDim);
    };
    for (int t = 0; t < kTokens; ++t) {
      for (auto* to : {&k, &v}) {
        const auto row = at(t, to == &k ? 1 : 2);
        to->insert(to->end(), row.begin(), row.end());
      }
    }
    const auto got = out->Get();
    for (const int t : {0, 100, kTokens - 1}) {
      std::vector<Expected> want(kVisionDim);
      Attend(at(t, 0), k, v, kTokens, want.data());
      const auto row = got.begin() + (first + t + 1) * kInner - kVisionDim;
      ExpectWithin(std::vector<Bf16>(row, row + kVisionDim), want, "vision");
    }
  };
  return c;
}

enum class Adds { kNothing, kResidual };

KernelCase NormCase(const char* what,
                    cudaError_t (*function)(const AddNormArgs&, cudaStream_t),
                    int rows, int width, Adds adds = Adds::kResidual) {
  KernelCase c;
  c.name = std::string(what) + " " + std::to_string(rows) + " x " +
           std::to_string(width);
  const std::size_t size = static_cast<std::size_t>(rows) * width;
  c.bytes = (adds == Adds::kResidual ? 8.0 : 4.0) * size;
  c.sets = SetsFor(c.bytes);
  auto x = RandomBf16(size * c.sets), y = RandomBf16(size * c.sets);
  auto h = std::make_shared<DeviceArray<Bf16>>(size * c.sets);
  auto scale = RandomFloat(2 * width, 1, 0.1f);
  c.launch = [=](int set, cudaStream_t stream) {
    AddNormArgs args;
    args.x = x->data() + set * size;
    if (adds == Adds::kResidual) args.y = y->data() + set * size;
    args.h = h->data() + set * size;
    args.scale.base = scale->data();
    args.shift.base = scale->data() + width;
    args.rows = rows;
    args.width = width;
    return function(args, stream);
  };
  c.check = [=, launch = c.launch] {
    ASSERT_EQ(launch(1, nullptr), cudaSuccess);
    const auto got = h->Get(), moved = x->Get();
    const auto affine = scale->Get();
    std::vector<Expected> want(size);
    for (int r = 0; r < rows; ++r) {
      NormRow(moved.data() + size + static_cast<std::size_t>(r) * width, width,
              function == LaunchAddLayerNorm, affine.data(),
              function == LaunchAddAdaRmsNorm ? 1 : 0,
              function == LaunchAddRmsNorm ? nullptr : affine.data() + width,
              want.data() + static_cast<std::size_t>(r) * width);
    }
    ExpectWithin(std::vector<Bf16>(got.begin() + size, got.begin() + 2 * size),
                 want, "norm");
  };
  return c;
}

KernelCase GegluCase(int rows, int width) {
  KernelCase c;
  c.name = "GeGLU " + std::to_string(rows) + " x " + std::to_string(width);
  const std::size_t size = static_cast<std::size_t>(rows) * width;
  c.bytes = 6.0 * size;
  c.sets = SetsFor(c.bytes);
  auto in = RandomBf16(2 * size * c.sets);
  auto out = std::make_shared<DeviceArray<Bf16>>(size);
  c.launch = [=](int set, cudaStream_t stream) {
    return LaunchGeglu(in->data() + 2 * set * size, out->data(), rows, width,
                       stream);
  };
  c.check = [=, launch = c.launch] {
    ASSERT_EQ(launch(0, nullptr), cudaSuccess);
    std::vector<Bf16> from(2 * size);
    cudaMemcpy(from.data(), in->data(), size * 4, cudaMemcpyDeviceToHost);
    std::vector<Expected> want(size);
    for (std::size_t i = 0; i < size; ++i) {
      const std::size_t at = i / width * width + i;
      want[i] = Geglu(Value(from[at]), Value(from[at + width]));
    }
    ExpectWithin(out->Get(), want, "GeGLU");
  };
  return c;
}

KernelCase RopeCase(const char* what, int rows, int seq, int start) {
  KernelCase c;
  c.name = std::string("RoPE and scatter ") + what;
  const int len = start + seq;
  const std::size_t size = static_cast<std::size_t>(rows) * seq * kQkv;
  const std::size_t cache = static_cast<std::size_t>(rows) * len * kDim;
  c.bytes = 4.0 * size;
  c.sets = SetsFor(c.bytes);
  auto qkv = RandomBf16(size * c.sets);
  auto k = std::make_shared<DeviceArray<Bf16>>(cache);
  auto v = std::make_shared<DeviceArray<Bf16>>(cache);
  auto table = std::make_shared<DeviceArray<float2>>(std::vector<float2>(
      static_cast<std::size_t>(len) * kDim / 2, make_float2(0.6f, 0.8f)));
  auto starts =
      std::make_shared<DeviceArray<int>>(std::vector<int>(rows, start));
  c.launch = [=](int set, cudaStream_t stream) {
    RopeScatterArgs args;
    args.qkv = qkv->data() + set * size;
    args.table = table->data();
    args.start = starts->data();
    args.cache_k = k->data();
    args.cache_v = v->data();
    args.rows = rows;
    args.seq = seq;
    args.heads = kHeads;
    args.kv_heads = 1;
    args.head_dim = kDim;
    args.cache_len = len;
    return LaunchRopeScatter(args, stream);
  };
  c.check = [=, launch = c.launch] {
    std::vector<Bf16> before(size), after(size);
    cudaMemcpy(before.data(), qkv->data(), size * 2, cudaMemcpyDeviceToHost);
    ASSERT_EQ(launch(0, nullptr), cudaSuccess);
    cudaMemcpy(after.data(), qkv->data(), size * 2, cudaMemcpyDeviceToHost);
    const auto keys = k->Get();
    for (std::size_t i = 0; i < size; ++i) {
      const std::size_t token = i / kQkv, head = i % kQkv / kDim, d = i % kDim;
      if (d >= kDim / 2 || head > kHeads) continue;
      const Expected want =
          Rotate(Value(before[i]), 0.6f, Value(before[i + kDim / 2]), -0.8f);
      const std::size_t row = token / seq;
      const std::size_t at = (row * len + start + token % seq) * kDim + d;
      const double got = Value(head < kHeads ? after[i] : keys[at]);
      ASSERT_LE(std::abs(got - want.value), want.tolerance) << i;
    }
  };
  return c;
}

std::vector<CaseMaker> Cases() {
  std::vector<CaseMaker> cases = GemmCases();
  for (const auto& more : {NormGemmCases(), SuffixCases()}) {
    cases.insert(cases.end(), more.begin(), more.end());
  }
  const auto attention = [&](const char* what, Attention kernel, int rows,
                             int tokens, int prefix, int extra) {
    cases.push_back([=] {
      return AttentionCase(what, kernel, rows, tokens, prefix, extra);
    });
  };
  for (const int rows : {1, 2, 4, 8, 16, 32, 64}) {
    attention("suffix pi0", Suffix, rows, 50, 816, 51);
  }
  attention("suffix pi0 step 0", Suffix, 1, 51, 816, 51);
  attention("suffix pi05", Suffix, 1, 50, 968, 50);
  attention("suffix pi05", Suffix, 8, 50, 968, 50);
  attention("suffix, horizon 10", Suffix, 1, 10, 788, 10);
  for (const int rows : {1, 2, 4, 8}) {
    attention("tiled", LaunchTiledAttention, rows, 50, 816, 51);
    attention("warpgroup", LaunchWarpgroupAttention, rows, 50, 816, 51);
  }
  for (const int rows : {1, 2, 4, 8}) {
    attention("prefix pi0", LaunchWarpgroupAttention, rows, 816, 816, 0);
  }
  attention("prefix pi0, 2 cameras", LaunchWarpgroupAttention, 1, 560, 560, 0);
  attention("prefix pi05", LaunchWarpgroupAttention, 1, 968, 968, 0);
  for (const int images : {2, 3, 24}) {
    cases.push_back([=] { return VisionAttentionCase(images); });
  }
  for (const int rows : {50, 400, 3200}) {
    cases.push_back([=] {
      return NormCase("add + RMSNorm", LaunchAddRmsNorm, rows, 1024);
    });
  }
  cases.push_back(
      [] { return NormCase("add + adaRMS", LaunchAddAdaRmsNorm, 50, 1024); });
  for (const int rows : {816, 6528}) {
    cases.push_back([=] {
      return NormCase("add + RMSNorm", LaunchAddRmsNorm, rows, 2048);
    });
  }
  for (const int rows : {768, 6144}) {
    cases.push_back([=] {
      return NormCase("add + LayerNorm", LaunchAddLayerNorm, rows, 1152);
    });
  }
  for (const auto& [rows, width] : std::vector<std::pair<int, int>>{
           {50, 1024}, {400, 1024}, {3200, 1024}, {816, 2048}, {6528, 2048}}) {
    cases.push_back([rows = rows, width = width] {
      return NormCase("RMSNorm", LaunchAddRmsNorm, rows, width, Adds::kNothing);
    });
  }
  for (const int rows : {768, 6144}) {
    cases.push_back([=] {
      return NormCase("LayerNorm", LaunchAddLayerNorm, rows, 1152,
                      Adds::kNothing);
    });
  }
  cases.push_back([] { return GegluCase(50, 4096); });
  cases.push_back([] { return GegluCase(816, 16384); });
  cases.push_back([] { return RopeCase("suffix, rows 1", 1, 50, 816); });
  cases.push_back([] { return RopeCase("suffix, rows 8", 8, 50, 816); });
  cases.push_back([] { return RopeCase("suffix, rows 64", 64, 50, 816); });
  cases.push_back([] { return RopeCase("prefix, rows 1", 1, 816, 0); });
  cases.push_back([] { return RopeCase("prefix, rows 8", 8, 816, 0); });
  return cases;
}

}  // namespace
}  // namespace piserve::kernels

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    std::printf("no CUDA device: nothing to time\n");
    return 0;
  }
  cudaDeviceProp device;
  cudaGetDeviceProperties(&device, 0);
  std::printf("%s; roofs: 4.59 TB/s, 790 TFLOP/s bf16 (an H200's)\n",
              device.name);
  const std::string wanted = argc > 1 ? argv[1] : "";
  bool good = true;
  for (const auto& make : piserve::kernels::Cases()) {
    const auto kernel = make();
    if (kernel.name.find(wanted) == std::string::npos) continue;
    good = piserve::kernels::CheckAndTime(kernel) && good;
  }
  return good ? 0 : 1;
}
