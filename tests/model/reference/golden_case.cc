// SPDX-License-Identifier: Apache-2.0
#include "tests/model/reference/golden_case.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>

#include <cstring>
#include <stdexcept>

#include "absl/strings/str_cat.h"
#include "model/checkpoint/file_weights.h"
#include "model/checkpoint/safetensors.h"
#include "model/checkpoint/variant_json.h"

namespace piserve::reference {
namespace {

at::ScalarType DTypeOf(const std::string& name) {
  static const std::map<std::string, at::ScalarType> kTypes = {
      {"BF16", at::kBFloat16}, {"F32", at::kFloat}, {"F64", at::kDouble},
      {"I64", at::kLong},      {"U8", at::kByte},   {"BOOL", at::kBool}};
  return kTypes.at(name);
}

template <typename T>
T OrThrow(absl::StatusOr<T> value) {
  if (!value.ok()) throw std::runtime_error(value.status().ToString());
  return *std::move(value);
}

template <typename T>
void CopyTo(at::Tensor& to, const std::vector<T>& values) {
  std::memcpy(to.data_ptr(), values.data(), values.size() * sizeof(T));
}

// uint8 [3, 224, 224, 3]; a seed of -1 is a black image.
at::Tensor Pixels(const at::Tensor& seeds) {
  static const test::GoldenTensors images("images.safetensors");
  std::vector<at::Tensor> cameras;
  for (int i = 0; i < seeds.size(0); ++i) {
    const auto seed = seeds[i].item<std::int64_t>();
    cameras.push_back(seed < 0
                          ? at::zeros({224, 224, 3}, at::kByte)
                          : GoldenTensor(images, absl::StrCat("image.", seed)));
  }
  return at::stack(cameras);
}

std::string FileSuffix(Precision precision) {
  return precision == Precision::kBFloat16 ? ".bf16" : ".fp32";
}

}  // namespace

std::shared_ptr<const checkpoint::Weights> GoldenWeights(
    const std::string& model, const std::string& file) {
  const auto variant = OrThrow(checkpoint::ReadVariantJson(
      test::GoldenPath(absl::StrCat(model, "/variant.json"))));
  const auto tensors = OrThrow(checkpoint::Safetensors::Open(
      test::GoldenPath(absl::StrCat(model, "/", file))));
  return OrThrow(checkpoint::MakeFileWeights(tensors, variant.variant));
}

std::shared_ptr<const checkpoint::Weights> GoldenWeights(
    const std::string& model, Precision precision) {
  const bool wide = model == "tiny_pi0" && precision == Precision::kFloat32;
  return GoldenWeights(
      model, wide ? "float32/model.safetensors" : "model.safetensors");
}

std::unique_ptr<Network> GoldenNetwork(const std::string& model,
                                       const Options& options) {
  return OrThrow(
      Network::Create(*GoldenWeights(model, options.compute), options));
}

at::Tensor GoldenTensor(const test::GoldenTensors& file,
                        const std::string& name) {
  at::Tensor tensor = at::empty(file.shape(name), DTypeOf(file.dtype(name)));
  switch (tensor.element_size()) {
    case 1:
      CopyTo(tensor, file.Get<std::uint8_t>(name));
      break;
    case 2:
      CopyTo(tensor, file.Get<std::uint16_t>(name));
      break;
    case 4:
      CopyTo(tensor, file.Get<float>(name));
      break;
    default:
      CopyTo(tensor, file.Get<std::int64_t>(name));
  }
  return tensor;
}

Batch GoldenInputs(const std::string& model, const std::string& name) {
  const test::GoldenTensors file(
      absl::StrCat(model, "/cases/", name, ".inputs.safetensors"));
  const at::Tensor seeds = GoldenTensor(file, "image_seed");
  std::vector<at::Tensor> pixels;
  for (int i = 0; i < seeds.size(0); ++i) pixels.push_back(Pixels(seeds[i]));
  return {.pixels = at::stack(pixels),
          .camera_mask = GoldenTensor(file, "image_masks"),
          .tokens = GoldenTensor(file, "tokens"),
          .token_mask = GoldenTensor(file, "token_mask"),
          .state = GoldenTensor(file, "state"),
          .noise = GoldenTensor(file, "noise")};
}

GoldenCase::GoldenCase(const std::string& model, const std::string& name,
                       Precision precision)
    : batch(GoldenInputs(model, name)),
      expected(absl::StrCat(model, "/cases/", name, FileSuffix(precision),
                            ".safetensors")) {}

Distance DistanceOf(const at::Tensor& golden, const at::Tensor& b) {
  if (golden.sizes() != b.sizes()) {
    throw std::runtime_error("tensors of different shapes");
  }
  const at::Tensor wide = golden.to(at::kDouble);
  const at::Tensor difference = wide.sub(b.to(at::kDouble)).abs();
  const double rms = wide.square().mean().sqrt().item<double>();
  return {difference.max().item<double>() / rms,
          difference.mean().item<double>() / rms};
}

}  // namespace piserve::reference
