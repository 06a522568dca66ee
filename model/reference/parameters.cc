// SPDX-License-Identifier: Apache-2.0
#include "model/reference/parameters.h"

#include <ATen/ops/from_blob.h>

#include <memory>
#include <utility>

#include "absl/strings/match.h"

namespace piserve::reference {
namespace {

// Members of PaliGemmaWithExpertModel are cast; the outer projections are not.
bool IsCast(const std::string& name) {
  return absl::StartsWith(name, "paligemma_with_expert.");
}

// Cast to bf16 and back: bf16 values in an fp32 tensor.
bool IsKeptInFloat32(const std::string& name) {
  for (const char* selector :
       {"vision_tower.vision_model.embeddings.patch_embedding.weight",
        "vision_tower.vision_model.embeddings.patch_embedding.bias",
        "vision_tower.vision_model.embeddings.position_embedding.weight",
        "input_layernorm", "post_attention_layernorm", "model.norm"}) {
    if (absl::StrContains(name, selector)) return true;
  }
  return false;
}

// No copy: the tensor holds the owner of the memory.
at::Tensor Wrap(const checkpoint::Tensor& tensor) {
  const auto dtype =
      tensor.dtype == checkpoint::DType::kBFloat16 ? at::kBFloat16 : at::kFloat;
  // ATen has no const tensors; nothing here writes to a weight.
  void* data = const_cast<std::byte*>(tensor.data.data());
  return at::from_blob(
      data, tensor.shape, [owner = tensor.owner](void*) {}, dtype);
}

}  // namespace

at::Tensor Parameters::Find(const std::string& name) {
  if (!status_.ok()) return {};
  absl::StatusOr<checkpoint::Tensor> found = weights_.Find(name);
  if (!found.ok()) {
    status_ = found.status();
    return {};
  }
  return Wrap(*found);
}

bool Parameters::RoundsToBf16(const std::string& name) const {
  return IsCast(name) && options_.weights == WeightRounding::kBf16Mode;
}

at::Tensor Parameters::Get(const std::string& name) {
  at::Tensor tensor = Find(name);
  if (!tensor.defined()) return tensor;
  if (RoundsToBf16(name)) tensor = tensor.to(at::kBFloat16);
  const bool narrow = IsCast(name) && !IsKeptInFloat32(name);
  return tensor.to(options_.device, narrow ? options_.dtype() : at::kFloat);
}

at::Tensor Parameters::GetTable(const std::string& name) {
  const at::Tensor tensor = Find(name);
  if (!tensor.defined()) return tensor;
  const bool narrow =
      RoundsToBf16(name) || options_.compute == Precision::kBFloat16;
  return tensor.to(options_.device,
                   narrow ? at::kBFloat16 : tensor.scalar_type());
}

}  // namespace piserve::reference
