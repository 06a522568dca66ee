// SPDX-License-Identifier: Apache-2.0
#include "model/checkpoint/file_weights.h"

#include <limits>
#include <map>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "model/checkpoint/digest.h"
#include "model/checkpoint/json.h"
#include "model/checkpoint/tensor_spec.h"

namespace piserve::checkpoint {
namespace {

constexpr std::string_view kPi05Mark = "time_mlp_in.weight";
constexpr std::string_view kPi0Mark = "state_proj.weight";
constexpr std::string_view kActionIn = "action_in_proj.weight";

absl::Status BadTensor(std::string_view name, absl::string_view message) {
  return absl::FailedPreconditionError(
      absl::StrCat("tensor ", Quoted(name), ": ", message));
}

// One dimension of a matrix that tells a size.
absl::StatusOr<int> ReadDim(const TensorIndex& index, std::string_view name,
                            std::size_t dim) {
  const auto it = index.find(name);
  if (it == index.end()) return BadTensor(name, "missing, want a matrix");
  const StoredTensor& tensor = *it->second;
  if (tensor.shape.size() != 2 ||
      tensor.shape[dim] > std::numeric_limits<int>::max()) {
    return BadTensor(tensor.name,
                     absl::StrCat("got ", Describe(tensor.dtype, tensor.shape),
                                  ", want a matrix"));
  }
  return static_cast<int>(tensor.shape[dim]);
}

std::optional<DType> ToDType(StoredDType dtype) {
  if (dtype == StoredDType::kBF16) return DType::kBFloat16;
  if (dtype == StoredDType::kF32) return DType::kFloat32;
  return std::nullopt;
}

absl::StatusOr<Tensor> MakeTensor(const TensorSpec& spec,
                                  const TensorIndex& index,
                                  const std::shared_ptr<const void>& owner) {
  const auto it = index.find(spec.name);
  if (it == index.end()) {
    return BadTensor(
        spec.name,
        absl::StrCat("missing, want ", Describe(StoredDType::kBF16, spec.shape),
                     " or F32"));
  }
  const StoredTensor& stored = *it->second;
  const std::optional<DType> dtype = ToDType(stored.dtype);
  if (stored.shape != spec.shape || !dtype.has_value()) {
    return BadTensor(
        stored.name,
        absl::StrCat("got ", Describe(stored.dtype, stored.shape), ", want ",
                     Describe(StoredDType::kBF16, spec.shape), " or F32"));
  }
  return Tensor{.name = spec.name,
                .dtype = *dtype,
                .shape = spec.shape,
                .data = stored.data,
                .owner = owner};
}

using TensorMap = std::map<std::string, Tensor, std::less<>>;

absl::StatusOr<TensorMap> MakeTensors(const Safetensors& file,
                                      const Variant& variant) {
  absl::StatusOr<TensorIndex> index = IndexTensors(file);
  if (!index.ok()) return index.status();
  TensorMap tensors;
  for (const TensorSpec& spec : TensorSpecs(variant)) {
    absl::StatusOr<Tensor> tensor = MakeTensor(spec, *index, file.owner());
    if (!tensor.ok()) return tensor.status();
    tensors.emplace(spec.name, *std::move(tensor));
  }
  for (const auto& [name, stored] : *index) {
    if (tensors.contains(name)) continue;
    return BadTensor(
        stored->name,
        absl::StrCat("got ", Describe(stored->dtype, stored->shape), ", but ",
                     variant.pi05 ? "pi05" : "pi0",
                     " of these sizes has no such tensor"));
  }
  return tensors;
}

class FileWeights : public Weights {
 public:
  FileWeights(const Variant& variant, TensorMap tensors, std::string digest)
      : variant_(variant),
        tensors_(std::move(tensors)),
        digest_(std::move(digest)) {}

  const Variant& variant() const override { return variant_; }

  absl::StatusOr<Tensor> Find(std::string_view name) const override {
    const auto it = tensors_.find(name);
    if (it != tensors_.end()) return it->second;
    return absl::NotFoundError(
        absl::StrCat("tensor ", Quoted(name), ": unknown to this variant"));
  }

  std::optional<SyntheticRule> Rule(std::string_view) const override {
    return std::nullopt;
  }

  const std::string& digest() const override { return digest_; }

 private:
  const Variant variant_;
  const TensorMap tensors_;
  const std::string digest_;
};

}  // namespace

absl::StatusOr<bool> IsPi05(const TensorIndex& index) {
  const auto pi05 = index.find(kPi05Mark);
  const auto pi0 = index.find(kPi0Mark);
  if (pi05 != index.end() && pi0 != index.end()) {
    return BadTensor(
        pi0->second->name,
        absl::StrCat("found beside ", Quoted(pi05->second->name),
                     ", want the first (pi0) or the second (pi05)"));
  }
  if (pi05 == index.end() && pi0 == index.end()) {
    return BadTensor(
        kPi0Mark, absl::StrCat("missing, and so is ", Quoted(kPi05Mark),
                               ", want the first (pi0) or the second (pi05)"));
  }
  return pi05 != index.end();
}

absl::StatusOr<Variant> DetectVariant(const TensorIndex& index) {
  absl::StatusOr<bool> pi05 = IsPi05(index);
  if (!pi05.ok()) return pi05.status();
  Variant variant = *pi05 ? Pi05Variant() : Pi0Variant();
  absl::StatusOr<int> vocab = ReadDim(index, kTokenEmbedding, 0);
  if (!vocab.ok()) return vocab.status();
  absl::StatusOr<int> action_dim = ReadDim(index, kActionIn, 1);
  if (!action_dim.ok()) return action_dim.status();
  variant.vocab = *vocab;
  variant.action_dim = *action_dim;
  return variant;
}

absl::StatusOr<std::unique_ptr<Weights>> MakeFileWeights(
    const Safetensors& file, const Variant& variant) {
  if (absl::Status s = CheckVariant(variant); !s.ok()) return s;
  absl::StatusOr<TensorMap> tensors = MakeTensors(file, variant);
  if (!tensors.ok()) return tensors.status();
  absl::StatusOr<std::string> digest = FileDigest(file.bytes());
  if (!digest.ok()) return digest.status();
  return std::make_unique<FileWeights>(variant, *std::move(tensors),
                                       *std::move(digest));
}

}  // namespace piserve::checkpoint
