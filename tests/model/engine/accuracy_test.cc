// SPDX-License-Identifier: Apache-2.0
// The full-size engine against exact arithmetic: no less accurate than openpi's
// own BF16 mode, stage by stage (tests/golden/full/MANIFEST.md).
#include <ATen/cuda/CUDAContextLight.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/masked_select.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <c10/core/InferenceMode.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "model/checkpoint/synthetic_weights.h"
#include "model/engine/network.h"
#include "model/reference/masks.h"
#include "tests/model/engine/test_wave.h"
#include "tests/model/reference/golden_case.h"

namespace piserve::engine {
namespace {

using reference::Distance;
using reference::DistanceOf;
using reference::GoldenTensor;

constexpr int kSteps = 10;
constexpr int kSamples = 64;  // rows and columns that a golden stage keeps

template <typename T>
T OrThrow(absl::StatusOr<T> value) {
  if (!value.ok()) throw std::runtime_error(value.status().ToString());
  return *std::move(value);
}

void OrThrow(absl::Status status) {
  if (!status.ok()) throw std::runtime_error(status.ToString());
}

// A stage's values at the stored positions, on the CPU.
using Values = std::map<std::string, at::Tensor>;

struct Model {
  std::string name;
  Variant variant;
  std::uint64_t seed;
  // Mean distance of openpi's own actions, alone and in a batch
  // (tests/golden/full/MANIFEST.md).
  double spread;
};

std::vector<Model> Models() {
  return {{"pi0", Pi0Variant(), 3, 5.4e-3}, {"pi05", Pi05Variant(), 4, 6.5e-3}};
}

// One case of one full-size golden file.
class FullCase {
 public:
  FullCase(const test::GoldenTensors& file, std::string name)
      : file_(file), name_(std::move(name)) {
    pad_ = Golden("bfloat16", "prefix_pad_mask")[0];
  }

  at::Tensor Golden(const std::string& mode, const std::string& stage) const {
    return GoldenTensor(file_, absl::StrCat(name_, ".", mode, ".", stage));
  }

  reference::Batch Inputs() const {
    static const test::GoldenTensors images("images.safetensors");
    const at::Tensor mask = Golden("inputs", "image_masks");
    std::vector<at::Tensor> cameras;
    for (int i = 0; i < Variant::kCameras; ++i) {
      const at::Tensor image =
          GoldenTensor(images, absl::StrCat("image.", i + 1));
      cameras.push_back(mask[0][i].item<bool>()
                            ? image
                            : at::zeros(image.sizes(), at::kByte));
    }
    return {.pixels = at::stack(cameras).unsqueeze(0),
            .camera_mask = mask,
            .tokens = Golden("inputs", "tokens"),
            .token_mask = Golden("inputs", "token_mask"),
            .state = Golden("inputs", "state"),
            .noise = Golden("inputs", "noise")};
  }

  // The stages that are judged, as openpi's BF16 mode left them.
  Values OpenPi() const {
    Values values;
    for (int i = 0; i < cameras(); ++i) {
      const std::string stage = absl::StrCat("image_emb.", i);
      values[stage] = Golden("bfloat16", stage)[0];
    }
    for (const std::string& stage : CacheStages()) {
      values[stage] = Valid(Golden("bfloat16", stage)[0]);
    }
    values["expert_out"] = Golden("bfloat16", "expert_out")[0];
    values["v_t"] = Golden("bfloat16", "v_t")[0][0];
    values["actions"] = Golden("bfloat16", "x_t")[0][kSteps];
    return values;
  }

  int cameras() const {
    return Golden("inputs", "image_masks").sum().item<int>();
  }
  static std::vector<std::string> CacheStages() {
    std::vector<std::string> stages;
    for (const int layer : {0, 8, 17}) {
      stages.push_back(absl::StrCat("cache_k.", layer));
      stages.push_back(absl::StrCat("cache_v.", layer));
    }
    return stages;
  }

  // [tokens, C] of an image, at the stored positions.
  static at::Tensor SampleImage(const at::Tensor& got) {
    return got.index_select(0, Positions(got.size(0)))
        .index_select(1, Positions(got.size(1)));
  }
  // [valid, C] of the compacted prefix, at the stored positions that are valid.
  at::Tensor SamplePrefix(const at::Tensor& got) const {
    const at::Tensor compact = reference::Positions(pad_.unsqueeze(0))[0];
    return got.index_select(0, Valid(compact.index_select(0, Rows())))
        .index_select(1, Positions(got.size(1)));
  }

 private:
  static at::Tensor Positions(std::int64_t size) {
    return at::arange(kSamples).mul(size).floor_divide(kSamples);
  }
  at::Tensor Rows() const { return Positions(pad_.size(0)); }
  // The stored rows that are not padding.
  at::Tensor Valid(const at::Tensor& stored) const {
    const at::Tensor valid = pad_.index_select(0, Rows());
    return stored.index_select(0,
                               at::masked_select(at::arange(kSamples), valid));
  }

  const test::GoldenTensors& file_;
  const std::string name_;
  at::Tensor pad_;
};

at::Tensor OnCpu(const at::Tensor& t) { return t.to(at::kCPU, at::kFloat); }

// ---- exact arithmetic

reference::Batch OnDevice(const reference::Batch& b) {
  return {b.pixels.to(at::kCUDA), b.camera_mask.to(at::kCUDA),
          b.tokens.to(at::kCUDA), b.token_mask.to(at::kCUDA),
          b.state.to(at::kCUDA),  b.noise.to(at::kCUDA)};
}

Values OracleStages(const reference::Network& oracle, const FullCase& c) {
  const c10::InferenceMode inference;
  std::map<std::string, at::Tensor> first;  // of each stage
  const reference::Trace trace = [&](const std::string& stage,
                                     const at::Tensor& value) {
    if (stage.starts_with("image_emb") || stage.starts_with("cache_") ||
        stage == "expert_out" || stage == "v_t") {
      first.try_emplace(stage, OnCpu(value));
    }
  };
  const at::Tensor actions =
      oracle.SampleActions(OnDevice(c.Inputs()), kSteps, trace);
  Values values;
  for (int i = 0; i < c.cameras(); ++i) {
    const std::string stage = absl::StrCat("image_emb.", i);
    values[stage] = FullCase::SampleImage(first.at(stage)[0]);
  }
  for (const std::string& stage : FullCase::CacheStages()) {
    values[stage] = c.SamplePrefix(first.at(stage)[0][0]);
  }
  values["expert_out"] = first.at("expert_out")[0];
  values["v_t"] = first.at("v_t")[0];
  values["actions"] = OnCpu(actions)[0];
  return values;
}

// ---- the engine

// A wave of one row, or of several equal ones, whose kernels are others. First
// the one that a row alone is served by.
struct Form {
  const char* name;
  int rows;
  bool persistent;
};
constexpr Form kForms[] = {{"in one kernel", 1, true},
                           {"by step", 1, false},
                           {"of two in one kernel", 2, true},
                           {"of four", 4, false},
                           {"of eight", 8, false}};

// Those of the first row.
Values EngineStages(Network& network, const FullCase& c, const Form& form) {
  const Variant& v = network.variant();
  TestWave wave(v, form.rows);
  for (int i = 0; i < form.rows; ++i) wave.Set(i, c.Inputs());
  // One step leaves the first step's expert output behind, and noise less its
  // velocity.
  const auto run = [&](int steps) {
    const WaveShape shape = wave.Shape(steps);
    // Chooses algorithms, those of later steps too.
    OrThrow(network.Enqueue(wave.host(), wave.Shape(kSteps),
                            Network::Execution::kEager, [](Stage) {}));
    OrThrow(network.Capture(network.LayoutOf(shape)));
    OrThrow(network.Enqueue(wave.host(), shape, Network::Execution::kGraph,
                            [](Stage) {}));
    OrThrow(network.Synchronize());
  };
  run(1);
  const Buffers& b = network.buffers();
  Values values;
  for (int i = 0; i < c.cameras(); ++i) {
    const int tokens = v.vision.tokens();
    values[absl::StrCat("image_emb.", i)] = FullCase::SampleImage(
        OnCpu(b.image_tokens.narrow(0, i * tokens, tokens)));
  }
  const auto prefix_len = b.prefix_len[0].item<int>();
  for (const std::string& stage : FullCase::CacheStages()) {
    const auto& cache = stage[6] == 'k' ? b.keys : b.values;
    const int layer = std::stoi(stage.substr(8));
    values[stage] = c.SamplePrefix(
        OnCpu(cache[layer][0].narrow(0, 0, prefix_len).flatten(1)));
  }
  // One kernel keeps it to itself.
  if (!form.persistent) {
    values["expert_out"] = OnCpu(b.suffix_h.narrow(0, 0, v.suffix_len()));
  }
  values["v_t"] = c.Inputs().noise[0].sub(wave.Actions(0));
  run(kSteps);
  values["actions"] = wave.Actions(0);
  for (int i = 1; i < form.rows; ++i) {
    EXPECT_TRUE(at::equal(wave.Actions(i), values["actions"])) << "row " << i;
  }
  return values;
}

std::unique_ptr<reference::Network> Oracle(const checkpoint::Weights& weights,
                                           RopeTable rope) {
  return OrThrow(reference::Network::Create(
      weights, {.compute = reference::Precision::kFloat32,
                .rope = rope,
                .device = at::kCUDA}));
}

class AccuracyTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!at::cuda::is_available()) GTEST_SKIP() << "no CUDA device here";
  }
};

double MeanError(const at::Tensor& a, const at::Tensor& b) {
  return a.to(at::kDouble).sub(b.to(at::kDouble)).abs().mean().item<double>();
}

// What FP32 on a GPU may differ by: openpi's other attention backend is 3.5e-6
// away at most, 8.7e-7 in the mean.
void ExpectFp32Actions(const FullCase& c, const reference::Network& exact) {
  const at::Tensor actions =
      OnCpu(exact.SampleActions(OnDevice(c.Inputs()), kSteps, /*trace=*/{}));
  const Distance distance =
      DistanceOf(c.Golden("float32", "x_t")[0][kSteps], actions[0]);
  EXPECT_LE(distance.max, 1e-5);
  EXPECT_LE(distance.mean, 2e-6);
}

// Ratios of the engine's error to openpi's by form and stage.
using Ratios = std::map<std::string, std::vector<double>>;

void Compare(const std::string& which, const Form& form, const Values& got,
             const Values& openpi, const Values& exact, Ratios& ratios) {
  for (const auto& [stage, value] : got) {
    const double error = MeanError(value, exact.at(stage));
    const double ratio = error / MeanError(openpi.at(stage), exact.at(stage));
    std::printf("%-22s %-12s error %.3e, of openpi's %.3f\n", which.c_str(),
                stage.c_str(), error, ratio);
    ratios[absl::StrCat(form.name, " ",
                        stage.starts_with("image_emb") ? "image_emb" : stage)]
        .push_back(ratio);
    EXPECT_LE(ratio, 1.3) << which << " " << stage;
  }
  const Distance distance = DistanceOf(openpi.at("actions"), got.at("actions"));
  std::printf("%-22s actions from openpi's: max %.2e mean %.2e of rms\n",
              which.c_str(), distance.max, distance.mean);
  EXPECT_LE(distance.max, 5e-2) << which;
  EXPECT_LE(distance.mean, 1e-2) << which;
}

// A row across wave sizes, whose kernels are others: no farther than it may be
// from openpi's.
double MeanAcrossSizes(const at::Tensor& alone, const at::Tensor& actions,
                       const char* form) {
  const Distance distance = DistanceOf(alone, actions);
  std::printf("%-22s from one row's: max %.2e mean %.2e of rms\n", form,
              distance.max, distance.mean);
  EXPECT_LE(distance.max, 5e-2) << form;
  EXPECT_LE(distance.mean, 1e-2) << form;
  return distance.mean;
}

TEST_F(AccuracyTest, IsNoLessAccurateThanOpenPiStageByStage) {
  Ratios ratios;
  for (const Model& model : Models()) {
    const test::GoldenTensors file(
        absl::StrCat("full/full_", model.name, ".safetensors"));
    const auto weights =
        OrThrow(checkpoint::MakeSyntheticWeights(model.variant, model.seed));
    std::map<std::string, Values> want;
    {
      const c10::InferenceMode inference;
      const auto exact = Oracle(*weights, RopeTable::kExact);
      for (const std::string name : {"a", "b"}) {
        ExpectFp32Actions(FullCase(file, name), *exact);
      }
    }
    {
      const auto oracle = Oracle(*weights, RopeTable::kBf16);
      for (const std::string name : {"a", "b"}) {
        want[name] = OracleStages(*oracle, FullCase(file, name));
      }
    }
    std::map<std::string, at::Tensor> alone;  // a row's actions, by case
    std::vector<double> across;
    for (const Form& form : kForms) {
      c10::cuda::CUDACachingAllocator::emptyCache();
      const auto network = OrThrow(Network::Create(
          *weights,
          {.batch_sizes = {form.rows},
           .step_counts = {kSteps, 1},
           .optimisations = {.persistent_denoising = form.persistent}}));
      for (const std::string name : {"a", "b"}) {
        const FullCase c(file, name);
        const Values got = EngineStages(*network, c, form);
        Compare(absl::StrCat(model.name, " ", name, " ", form.name), form, got,
                c.OpenPi(), want[name], ratios);
        if (alone.try_emplace(name, got.at("actions")).second) continue;
        across.push_back(
            MeanAcrossSizes(alone.at(name), got.at("actions"), form.name));
      }
    }
    const double spread =
        std::accumulate(across.begin(), across.end(), 0.0) / across.size();
    std::printf("%s across sizes: mean %.2e of rms\n", model.name.c_str(),
                spread);
    EXPECT_LE(spread, model.spread) << model.name;
  }
  for (const auto& [stage, values] : ratios) {
    double log_sum = 0;
    for (const double ratio : values) log_sum += std::log(ratio);
    const double mean = std::exp(log_sum / values.size());
    std::printf("%-33s geometric mean %.3f\n", stage.c_str(), mean);
    EXPECT_LE(mean, 1.1) << stage;
  }
}

}  // namespace
}  // namespace piserve::engine
