// SPDX-License-Identifier: Apache-2.0
// Runs the reference network once, offline: for the released sizes, which take
// half a minute a call on a few cores.
//   reference_run --variant pi0|pi05 --seed N       synthetic weights
//   reference_run --checkpoint FOLDER [--policy NAME]
// With --golden FILE (tests/golden/full/*.safetensors, and images.safetensors
// as --images) inputs come from there and each stage is compared with openpi's;
// without, the inputs are a grey picture, one token and no noise.
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/full.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/masked_select.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <c10/core/InferenceMode.h>

#include <cstdio>
#include <exception>
#include <iostream>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "model/checkpoint/load.h"
#include "model/checkpoint/safetensors.h"
#include "model/checkpoint/synthetic_weights.h"
#include "model/policy_config.h"
#include "model/reference/masks.h"
#include "model/reference/network.h"

ABSL_FLAG(std::string, variant, "pi0", "pi0 or pi05, with --seed");
ABSL_FLAG(uint64_t, seed, 3, "of the synthetic weights");
ABSL_FLAG(std::string, checkpoint, "", "folder; instead of --variant, --seed");
ABSL_FLAG(std::string, policy, "pi0_libero", "configuration of --checkpoint");
ABSL_FLAG(std::string, precision, "bfloat16", "bfloat16 or float32");
ABSL_FLAG(int, steps, 10, "Euler steps");
ABSL_FLAG(int, threads, 0, "of one operator; 0: the cores");
ABSL_FLAG(std::string, golden, "", "full-size goldens to compare with");
ABSL_FLAG(std::string, images, "tests/golden/images.safetensors", "of them");
ABSL_FLAG(std::string, golden_case, "a", "a or b");

namespace piserve::reference {
namespace {

using checkpoint::Safetensors;
using checkpoint::StoredDType;
using checkpoint::StoredTensor;

absl::StatusOr<std::unique_ptr<checkpoint::Weights>> MakeWeights() {
  const std::string folder = absl::GetFlag(FLAGS_checkpoint);
  if (folder.empty()) {
    const bool pi05 = absl::GetFlag(FLAGS_variant) == "pi05";
    return checkpoint::MakeSyntheticWeights(pi05 ? Pi05Variant() : Pi0Variant(),
                                            absl::GetFlag(FLAGS_seed));
  }
  checkpoint::CheckpointOptions options;
  options.folder = folder;
  const std::string name = absl::GetFlag(FLAGS_policy);
  const PolicyConfig* policy = FindPolicyConfig(name);
  if (policy == nullptr) {
    return absl::NotFoundError(absl::StrCat("policy: no such row: ", name));
  }
  options.policy = *policy;
  absl::StatusOr<checkpoint::Checkpoint> loaded = LoadCheckpoint(options);
  if (!loaded.ok()) return loaded.status();
  return std::move(loaded->weights);
}

at::ScalarType DTypeOf(StoredDType dtype) {
  switch (dtype) {
    case StoredDType::kBF16:
      return at::kBFloat16;
    case StoredDType::kF32:
      return at::kFloat;
    case StoredDType::kF64:
      return at::kDouble;
    case StoredDType::kI64:
      return at::kLong;
    case StoredDType::kU8:
      return at::kByte;
    case StoredDType::kBool:
      return at::kBool;
    default:
      TORCH_CHECK(false, "golden: unexpected dtype");
  }
}

// Throws if there is none. Borrows the file.
at::Tensor Stored(const Safetensors& file, const std::string& name) {
  const StoredTensor* stored = file.Find(name);
  TORCH_CHECK(stored != nullptr, "golden: no tensor ", name);
  return at::from_blob(const_cast<std::byte*>(stored->data.data()),
                       stored->shape, DTypeOf(stored->dtype));
}

Batch DefaultInputs(const Variant& variant) {
  const int side = variant.vision.image, dim = variant.action_dim;
  Batch batch{
      .pixels = at::full({1, Variant::kCameras, side, side, 3}, 128, at::kByte),
      .camera_mask = at::ones({1, Variant::kCameras}, at::kBool),
      .tokens = at::zeros({1, variant.max_token_len}, at::kLong),
      .token_mask = at::zeros({1, variant.max_token_len}, at::kBool),
      .state = at::zeros({1, dim}, at::kFloat),
      .noise = at::zeros({1, variant.action_horizon, dim}, at::kFloat)};
  batch.tokens[0][0] = 2;  // bos
  batch.token_mask[0][0] = true;
  return batch;
}

// Images 1, 2, 3 for the cameras; black where masked.
Batch GoldenInputs(const Safetensors& golden, const Safetensors& images,
                   const std::string& name) {
  const auto input = [&](const char* field) {
    return Stored(golden, absl::StrCat(name, ".inputs.", field));
  };
  const at::Tensor mask = input("image_masks");
  std::vector<at::Tensor> cameras;
  for (int i = 0; i < Variant::kCameras; ++i) {
    const at::Tensor image = Stored(images, absl::StrCat("image.", i + 1));
    cameras.push_back(
        mask[0][i].item<bool>() ? image : at::zeros(image.sizes(), at::kByte));
  }
  return {.pixels = at::stack(cameras).unsqueeze(0),
          .camera_mask = mask,
          .tokens = input("tokens"),
          .token_mask = input("token_mask"),
          .state = input("state"),
          .noise = input("noise")};
}

void Print(const std::string& stage, const at::Tensor& golden,
           const at::Tensor& got) {
  const at::Tensor want = golden.to(at::kDouble).reshape({-1});
  const at::Tensor error = want.sub(got.to(at::kDouble).reshape({-1})).abs();
  const double rms = want.square().mean().sqrt().item<double>();
  std::printf("%-14s max %.2e  mean %.2e\n", stage.c_str(),
              error.max().item<double>() / rms,
              error.mean().item<double>() / rms);
}

// Stages are stored as 64 rows and 64 columns of openpi's padded tensor. `got`
// [S, C] holds the valid ones of its rows (pad: bool [R]) only.
void PrintSampled(const std::string& stage, const at::Tensor& golden,
                  const at::Tensor& got, const at::Tensor& pad) {
  constexpr int kSamples = 64;
  const at::Tensor sample = at::arange(kSamples);
  const at::Tensor rows = sample.mul(pad.size(0)).floor_divide(kSamples);
  const at::Tensor columns = sample.mul(got.size(1)).floor_divide(kSamples);
  const at::Tensor valid = pad.index_select(0, rows);
  const at::Tensor compact = at::masked_select(
      Positions(pad.unsqueeze(0))[0].index_select(0, rows), valid);
  Print(stage, golden[0].index_select(0, at::masked_select(sample, valid)),
        got.index_select(0, compact).index_select(1, columns));
}

using Stages = std::map<std::string, std::vector<at::Tensor>>;

void Compare(const Safetensors& golden, const std::string& prefix,
             const Batch& batch, Stages& stages) {
  const auto stored = [&](const std::string& stage) {
    return Stored(golden, absl::StrCat(prefix, stage));
  };
  const at::Tensor pad = stored("prefix_pad_mask")[0];
  for (int i = 0; i < Variant::kCameras; ++i) {
    const std::string name = absl::StrCat("image_emb.", i);
    if (stages[name].empty()) continue;  // masked: never computed
    const at::Tensor image = stages[name][0][0];
    PrintSampled(name, stored(name), image,
                 at::ones({image.size(0)}, at::kBool));
  }
  PrintSampled("lang_emb", stored("lang_emb"), stages["lang_emb"][0][0],
               batch.token_mask[0]);
  for (int i = 0; !stages[absl::StrCat("cache_k.", i)].empty(); ++i) {
    for (const char* cache : {"cache_k.", "cache_v."}) {
      const std::string name = absl::StrCat(cache, i);
      PrintSampled(name, stored(name), stages[name][0][0][0], pad);
    }
  }
  for (const char* name : {"suffix_emb", "expert_out"}) {
    Print(name, stored(name), stages[name][0]);
  }
  Print("v_t", stored("v_t"), at::stack(stages["v_t"], 1));
  Print("x_t", stored("x_t"), at::stack(stages["x_t"], 1));
  Print("actions", stored("x_t").select(1, -1), stages["x_t"].back());
}

double SecondsSince(absl::Time start) {
  return absl::ToDoubleSeconds(absl::Now() - start);
}

absl::StatusOr<std::unique_ptr<Network>> MakeNetwork(Precision precision) {
  const absl::Time start = absl::Now();
  const auto weights = MakeWeights();
  if (!weights.ok()) return weights.status();
  auto network = Network::Create(**weights, Options::For(precision));
  if (!network.ok()) return network.status();
  std::cout << DebugString((*network)->variant()) << ", " << NameOf(precision)
            << "\nweights   " << SecondsSince(start) << " s" << std::endl;
  return network;
}

// One call, with the time at which each of its stages is done.
Stages Sample(const Network& network, const Batch& batch) {
  Stages stages;
  const absl::Time start = absl::Now();
  const auto trace = [&](const std::string& stage, const at::Tensor& value) {
    stages[stage].push_back(value);
    if (stage == "prefix_emb") {
      std::cout << "vision    " << SecondsSince(start) << " s" << std::endl;
    } else if (stage == "x_t" && stages[stage].size() == 1) {
      std::cout << "+ prefill " << SecondsSince(start) << " s" << std::endl;
    }
  };
  network.SampleActions(batch, absl::GetFlag(FLAGS_steps), trace);
  std::cout << "call      " << SecondsSince(start) << " s" << std::endl;
  return stages;
}

absl::Status CompareWithGolden(const Network& network) {
  const auto golden = Safetensors::Open(absl::GetFlag(FLAGS_golden));
  if (!golden.ok()) return golden.status();
  const auto images = Safetensors::Open(absl::GetFlag(FLAGS_images));
  if (!images.ok()) return images.status();
  const std::string name = absl::GetFlag(FLAGS_golden_case);
  const Batch batch = GoldenInputs(*golden, *images, name);
  Stages stages = Sample(network, batch);
  const char* mode = NameOf(network.options().compute);
  Compare(*golden, absl::StrCat(name, ".", mode, "."), batch, stages);
  return absl::OkStatus();
}

absl::Status Run() {
  const c10::InferenceMode no_autograd;
  if (const int threads = absl::GetFlag(FLAGS_threads); threads > 0) {
    at::set_num_threads(threads);
  }
  const auto network = MakeNetwork(absl::GetFlag(FLAGS_precision) == "float32"
                                       ? Precision::kFloat32
                                       : Precision::kBFloat16);
  if (!network.ok()) return network.status();
  if (!absl::GetFlag(FLAGS_golden).empty()) return CompareWithGolden(**network);
  Sample(**network, DefaultInputs((*network)->variant()));
  return absl::OkStatus();
}

}  // namespace
}  // namespace piserve::reference

int main(int argc, char** argv) {
  absl::SetProgramUsageMessage(
      "reference_run (--variant pi0|pi05 --seed N | --checkpoint FOLDER) "
      "[--golden FILE]");
  absl::ParseCommandLine(argc, argv);
  try {
    const absl::Status status = piserve::reference::Run();
    if (status.ok()) return 0;
    std::cerr << status << "\n";
  } catch (const std::exception& e) {
    std::cerr << e.what() << "\n";
  }
  return 1;
}
