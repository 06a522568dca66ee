// SPDX-License-Identifier: Apache-2.0
#include "model/checkpoint/synthesize.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "model/checkpoint/safetensors_writer.h"
#include "model/checkpoint/synthetic_weights.h"
#include "model/checkpoint/tensor_spec.h"
#include "model/checkpoint/variant_json.h"

namespace piserve::checkpoint {
namespace {

std::vector<TensorSpec> FileSpecs(const Variant& variant) {
  std::vector<TensorSpec> specs = TensorSpecs(variant);
  specs.push_back(DeadExpertHead(variant));
  std::sort(specs.begin(), specs.end(),
            [](const auto& a, const auto& b) { return a.name < b.name; });
  return specs;
}

absl::Status WriteWeights(const Variant& variant, std::uint64_t seed,
                          DType dtype, const std::string& path) {
  const std::vector<TensorSpec> specs = FileSpecs(variant);
  std::vector<SafetensorsWriter::Header> headers;
  for (const TensorSpec& spec : specs) {
    headers.push_back({.name = spec.name,
                       .dtype = dtype == DType::kFloat32 ? StoredDType::kF32
                                                         : StoredDType::kBF16,
                       .shape = spec.shape});
  }
  absl::StatusOr<SafetensorsWriter> writer = SafetensorsWriter::Create(
      path, std::move(headers),
      {{std::string(kEmbedTokens), std::string(kTokenEmbedding)}});
  if (!writer.ok()) return writer.status();
  for (const TensorSpec& spec : specs) {
    const Tensor tensor = MakeSyntheticTensor(spec, seed, dtype);
    if (absl::Status s = writer->Append(tensor.data); !s.ok()) return s;
  }
  return writer->Finish();
}

absl::Status WriteText(const std::string& text, const std::string& path) {
  std::ofstream out(path, std::ios::trunc);
  out << text;
  out.close();
  if (out) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(path, ": cannot write"));
}

}  // namespace

absl::Status WriteSyntheticCheckpoint(const Variant& variant,
                                      std::uint64_t seed, DType dtype,
                                      const std::string& folder) {
  if (absl::Status s = CheckVariant(variant); !s.ok()) return s;
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) {
    return absl::FailedPreconditionError(
        absl::StrCat(folder, ": cannot make the folder: ", error.message()));
  }
  const std::string variant_path = absl::StrCat(folder, "/variant.json");
  absl::Status status =
      WriteText(ToJson({.variant = variant, .seed = seed}), variant_path);
  if (!status.ok()) return status;
  return WriteWeights(variant, seed, dtype,
                      absl::StrCat(folder, "/model.safetensors"));
}

}  // namespace piserve::checkpoint
