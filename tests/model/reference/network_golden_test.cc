// SPDX-License-Identifier: Apache-2.0
// Whole runs of the network against openpi's, stage by stage where every number
// is fp32, at the bounds of tests/golden/MANIFEST.md.
#include <ATen/Parallel.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/masked_select.h>
#include <ATen/ops/nonzero.h>
#include <ATen/ops/stack.h>
#include <gtest/gtest.h>

#include <tuple>

#include "absl/strings/str_cat.h"
#include "model/reference/network.h"
#include "tests/model/reference/golden_case.h"

namespace piserve::reference {
namespace {

// model, case, precision, layout
using Parameter = std::tuple<std::string, std::string, Precision, Layout>;

class NetworkGoldenTest : public testing::TestWithParam<Parameter> {
 protected:
  NetworkGoldenTest()
      : model_(std::get<0>(GetParam())),
        precision_(std::get<2>(GetParam())),
        layout_(std::get<3>(GetParam())),
        golden_(model_, std::get<1>(GetParam()), precision_) {
    at::set_num_threads(1);  // two would wait for each other on a busy machine
    Options options = Options::For(precision_);
    options.layout = layout_;
    network_ = GoldenNetwork(model_, options);
    actions_ = network_->SampleActions(golden_.batch, 10, stages_.trace());
    rows_ = golden_.batch.tokens.size(0);
  }

  void CheckActions();
  void CheckPositionsAndMasks();
  void CheckTime();

  bool compact() const { return layout_ == Layout::kCompact; }
  bool pi05() const { return network_->variant().pi05; }

  // A stage of the prefix, without the tokens that openpi masks: [R, D]. `rows`
  // are indices into openpi's padded prefix.
  at::Tensor ValidRows(const std::string& stage, const at::Tensor& rows) {
    std::vector<at::Tensor> parts;
    for (int b = 0; b < rows_; ++b) {
      const at::Tensor value =
          compact() ? stages_.seen[stage].at(b)[0] : stages_.seen[stage][0][b];
      const at::Tensor valid = Valid(b, rows);
      const at::Tensor index =
          compact()
              ? golden_.Get("prefix_position_ids")[b].index_select(0, valid)
              : valid;
      parts.push_back(
          value.reshape({-1, value.size(-1)}).index_select(0, index));
    }
    return at::cat(parts);
  }

  at::Tensor GoldenValidRows(const std::string& stage,
                             const at::Tensor& rows) const {
    const at::Tensor value = golden_.Get(stage);
    std::vector<at::Tensor> parts;
    for (int b = 0; b < rows_; ++b) {
      const at::Tensor pad =
          golden_.Get("prefix_pad_mask")[b].index_select(0, rows);
      parts.push_back(value[b].index_select(0, at::nonzero(pad).squeeze(-1)));
    }
    return at::cat(parts);
  }

  // A stage of the denoising loop: [B, n, ...].
  at::Tensor Steps(const std::string& stage) {
    const std::vector<at::Tensor>& seen = stages_.seen[stage];
    if (!compact()) return at::stack(seen, 1);
    const std::size_t n = seen.size() / rows_;
    std::vector<at::Tensor> rows;
    for (int b = 0; b < rows_; ++b) {
      const auto first = seen.begin() + b * n;
      rows.push_back(at::stack(std::vector<at::Tensor>(first, first + n), 1));
    }
    return at::cat(rows);
  }

  void ExpectNear(const std::string& stage, const at::Tensor& golden,
                  const at::Tensor& got, Distance bound) {
    const Distance distance = DistanceOf(golden, got);
    EXPECT_LE(distance.max, bound.max) << stage;
    EXPECT_LE(distance.mean, bound.mean) << stage;
  }

  Distance ActionBound() const {
    if (precision_ == Precision::kFloat32) {
      return pi05() ? Distance{5e-6, 1e-6} : Distance{8e-6, 1.5e-6};
    }
    return pi05() ? Distance{3e-2, 6e-3} : Distance{5e-2, 1e-2};
  }

  const std::string model_;
  const Precision precision_;
  const Layout layout_;
  const GoldenCase golden_;
  std::unique_ptr<Network> network_;
  Stages stages_;
  at::Tensor actions_;
  int rows_ = 0;

 private:
  // Those of `rows` that row b of the batch has valid.
  at::Tensor Valid(int b, const at::Tensor& rows) const {
    return at::masked_select(
        rows, golden_.Get("prefix_pad_mask")[b].index_select(0, rows));
  }
};

std::string NameOfCase(const testing::TestParamInfo<Parameter>& info) {
  const auto& [model, name, precision, layout] = info.param;
  return absl::StrCat(model, "_", name, "_",
                      precision == Precision::kFloat32 ? "fp32" : "bf16",
                      layout == Layout::kCompact ? "_compact" : "_padded");
}

INSTANTIATE_TEST_SUITE_P(
    AllCases, NetworkGoldenTest,
    testing::Combine(testing::Values("tiny_pi0", "tiny_pi05"),
                     testing::Values("a", "b", "c", "d"),
                     testing::Values(Precision::kFloat32, Precision::kBFloat16),
                     testing::Values(Layout::kCompact, Layout::kPadded)),
    NameOfCase);

// BF16 stages are compared one at a time, each fed with goldens: see
// stage_golden_test.
class Fp32StageTest : public NetworkGoldenTest {};

INSTANTIATE_TEST_SUITE_P(
    AllCases, Fp32StageTest,
    testing::Combine(testing::Values("tiny_pi0", "tiny_pi05"),
                     testing::Values("a", "b", "c", "d"),
                     testing::Values(Precision::kFloat32),
                     testing::Values(Layout::kCompact, Layout::kPadded)),
    NameOfCase);

// Case a holds the output of every layer.
class Fp32LayerTest : public NetworkGoldenTest {};

INSTANTIATE_TEST_SUITE_P(
    CaseA, Fp32LayerTest,
    testing::Combine(testing::Values("tiny_pi0", "tiny_pi05"),
                     testing::Values("a"), testing::Values(Precision::kFloat32),
                     testing::Values(Layout::kCompact, Layout::kPadded)),
    NameOfCase);

void NetworkGoldenTest::CheckActions() {
  ExpectNear("actions", golden_.Get("actions"), actions_, ActionBound());
  EXPECT_TRUE(at::equal(Steps("x_t").select(1, 10), actions_));
}

void NetworkGoldenTest::CheckPositionsAndMasks() {
  EXPECT_TRUE(at::equal(Steps("suffix_position_ids").select(1, 0),
                        golden_.Get("suffix_position_ids")));
  const at::Tensor pad = golden_.Get("prefix_pad_mask");
  const at::Tensor positions = golden_.Get("prefix_position_ids");
  if (!compact()) {
    EXPECT_TRUE(at::equal(stages_.seen["prefix_pad_mask"][0], pad));
    EXPECT_TRUE(at::equal(stages_.seen["prefix_position_ids"][0], positions));
    return;
  }
  for (int b = 0; b < rows_; ++b) {
    EXPECT_TRUE(at::equal(stages_.seen["prefix_position_ids"].at(b)[0],
                          at::masked_select(positions[b], pad[b])));
  }
}

// Time exactly, its embedding to one ulp.
void NetworkGoldenTest::CheckTime() {
  EXPECT_TRUE(at::equal(
      at::stack(std::vector<at::Tensor>(stages_.seen["time"].begin(),
                                        stages_.seen["time"].begin() + 10)),
      golden_.Get("time")));
  const at::Tensor golden = golden_.Get("time_emb");
  const at::Tensor got = Steps("time_emb")[0];
  // One ulp of a float is at most 2^-23 of its size; where a sine is nearly 0
  // the float64 argument itself is only good to 1e-13.
  const at::Tensor bound = golden.to(at::kDouble).abs().mul(0x1p-23).add(1e-12);
  const at::Tensor distance =
      golden.to(at::kDouble).sub(got.to(at::kDouble)).abs();
  EXPECT_TRUE(distance.le(bound).all().item<bool>());
}

// One test: each run of the network is dear.
TEST_P(NetworkGoldenTest, ActionsPositionsMasksAndTimeAreOpenpis) {
  CheckActions();
  CheckPositionsAndMasks();
  CheckTime();
}

TEST_P(Fp32StageTest, EveryStageIsOpenpis) {
  const Distance stage{4e-5, 5e-6};
  const Distance late = pi05() ? Distance{1.4e-5, 2e-6} : stage;
  const at::Tensor rows = golden_.Get("prefix_rows");
  for (int i = 0; i < network_->variant().vlm.depth; ++i) {
    for (const char* cache : {"cache_k.", "cache_v."}) {
      const std::string name = absl::StrCat(cache, i);
      ExpectNear(name, GoldenValidRows(name, rows), ValidRows(name, rows),
                 stage);
    }
  }
  if (golden_.expected.contains("prefix_emb")) {
    ExpectNear("prefix_emb", GoldenValidRows("prefix_emb", rows),
               ValidRows("prefix_emb", rows), stage);
  }
  const auto first = [this](const std::string& name) {
    return Steps(name).select(1, 0);
  };
  ExpectNear("suffix_emb", golden_.Get("suffix_emb"), first("suffix_emb"),
             stage);
  if (pi05()) {
    ExpectNear("adarms_cond", golden_.Get("adarms_cond"), first("adarms_cond"),
               stage);
  }
  ExpectNear("expert_out", golden_.Get("expert_out"), first("expert_out"),
             late);
  ExpectNear("v_t", golden_.Get("v_t"), Steps("v_t"), late);
  ExpectNear("x_t", golden_.Get("x_t"), Steps("x_t"), stage);
}

TEST_P(Fp32LayerTest, EveryLayerIsOpenpis) {
  const Distance stage{4e-5, 5e-6};
  const auto& variant = network_->variant();
  const at::Tensor sparse = at::arange(3, variant.prefix_len(), 16);
  const at::Tensor patches = at::arange(3, variant.vision.tokens(), 16);
  const auto base_camera = [&](const std::string& name) {
    return stages_.seen[name][0].narrow(0, 0, 1).index_select(1, patches);
  };
  ExpectNear("vision_embed", golden_.Get("vision_embed.0"),
             base_camera("vision_embed"), stage);
  for (int i = 0; i < variant.vision.depth; ++i) {
    const std::string name = absl::StrCat("vision_hidden.", i);
    ExpectNear(name, golden_.Get(name), base_camera(name), stage);
  }
  ExpectNear("vision_out", golden_.Get("vision_out.0"),
             base_camera("vision_out"), stage);
  for (int i = 0; i < Variant::kCameras; ++i) {
    const std::string name = absl::StrCat("image_emb.", i);
    ExpectNear(name, golden_.Get(name), stages_.seen[name][0], stage);
  }
  const at::Tensor pad =
      golden_.Get("prefix_pad_mask")[0].index_select(0, sparse);
  for (int i = 0; i + 1 < variant.vlm.depth; ++i) {  // the last is not computed
    const std::string name = absl::StrCat("prefix_hidden.", i);
    ExpectNear(
        name,
        golden_.Get(name)[0].index_select(0, at::nonzero(pad).squeeze(-1)),
        ValidRows(name, sparse), stage);
  }
  for (int i = 0; i < variant.expert.depth; ++i) {
    const std::string name = absl::StrCat("expert_hidden.", i);
    ExpectNear(name, golden_.Get(name), Steps(name).select(1, 0), stage);
    if (!pi05()) continue;
    for (const char* norm : {".input", ".post"}) {
      const std::string modulation =
          absl::StrCat("expert_modulation.", i, norm);
      ExpectNear(modulation, golden_.Get(modulation),
                 Steps(modulation).select(1, 0), stage);
    }
  }
}

// Case e: other step counts.
class StepCountTest
    : public testing::TestWithParam<std::tuple<std::string, Precision>> {};

INSTANTIATE_TEST_SUITE_P(
    Models, StepCountTest,
    testing::Combine(testing::Values("tiny_pi0", "tiny_pi05"),
                     testing::Values(Precision::kFloat32,
                                     Precision::kBFloat16)),
    [](const auto& info) {
      return absl::StrCat(std::get<0>(info.param), "_",
                          NameOf(std::get<1>(info.param)));
    });

TEST_P(StepCountTest, OneAndThreeStepsAreOpenpis) {
  const auto& [model, precision] = GetParam();
  const bool pi05 = model == "tiny_pi05";
  const Distance bound =
      precision == Precision::kFloat32
          ? (pi05 ? Distance{5e-6, 1e-6} : Distance{8e-6, 1.5e-6})
          : (pi05 ? Distance{3e-2, 6e-3} : Distance{5e-2, 1e-2});
  at::set_num_threads(1);
  const auto network = GoldenNetwork(model, Options::For(precision));
  const Batch batch = GoldenInputs(model, "a");
  const test::GoldenTensors golden(absl::StrCat(
      model, "/cases/e.", precision == Precision::kFloat32 ? "fp32" : "bf16",
      ".safetensors"));
  for (int steps : {1, 3}) {
    Stages stages;
    network->SampleActions(batch, steps, stages.trace());
    const Distance distance =
        DistanceOf(GoldenTensor(golden, absl::StrCat("x_t.", steps)),
                   at::stack(stages.seen["x_t"], 1));
    EXPECT_LE(distance.max, bound.max) << steps;
    EXPECT_LE(distance.mean, bound.mean) << steps;
    EXPECT_TRUE(at::equal(at::stack(stages.seen["time"]),
                          GoldenTensor(golden, absl::StrCat("time.", steps))));
  }
}

// Case f: a file of one dtype in the mode of the other.
TEST(CrossPrecisionTest, Float32FileInBf16ModeIsOpenpis) {
  const auto weights = GoldenWeights("tiny_pi0", "float32/model.safetensors");
  const auto network =
      Network::Create(*weights, Options::For(Precision::kBFloat16));
  ASSERT_TRUE(network.ok()) << network.status();
  Stages stages;
  (*network)->SampleActions(GoldenInputs("tiny_pi0", "a"), 10, stages.trace());
  const Distance distance = DistanceOf(
      GoldenTensor(test::GoldenTensors("tiny_pi0/cases/f.cross.safetensors"),
                   "bf16_mode_from_float32_file"),
      at::stack(stages.seen["x_t"], 1));
  EXPECT_LE(distance.max, 5e-2);
  EXPECT_LE(distance.mean, 1e-2);
}

TEST(CrossPrecisionTest, Bf16FileInFp32ModeIsOpenpis) {
  const auto weights = GoldenWeights("tiny_pi0", "model.safetensors");
  const auto network =
      Network::Create(*weights, Options::For(Precision::kFloat32));
  ASSERT_TRUE(network.ok()) << network.status();
  Stages stages;
  (*network)->SampleActions(GoldenInputs("tiny_pi0", "a"), 10, stages.trace());
  const Distance distance = DistanceOf(
      GoldenTensor(test::GoldenTensors("tiny_pi0/cases/f.cross.safetensors"),
                   "fp32_mode_from_bfloat16_file"),
      at::stack(stages.seen["x_t"], 1));
  EXPECT_LE(distance.max, 8e-6);
  EXPECT_LE(distance.mean, 1.5e-6);
}

}  // namespace
}  // namespace piserve::reference
