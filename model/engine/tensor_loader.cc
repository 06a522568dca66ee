// SPDX-License-Identifier: Apache-2.0
#include "model/engine/tensor_loader.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAStream.h>

#include <exception>

#include "absl/strings/str_cat.h"
#include "model/checkpoint/tensor_spec.h"
#include "model/engine/cuda_status.h"
#include "model/kernels/synthetic.h"

namespace piserve::engine {
namespace {

std::vector<std::int64_t> ShapeOf(const Variant& variant,
                                  const std::string& name) {
  for (checkpoint::TensorSpec& spec : checkpoint::TensorSpecs(variant)) {
    if (spec.name == name) return std::move(spec.shape);
  }
  return {};
}

__nv_bfloat16* Bf16Data(const at::Tensor& tensor) {
  return static_cast<__nv_bfloat16*>(tensor.data_ptr());
}

}  // namespace

// Names the tensor that memory did not suffice for.
template <typename Make>
at::Tensor TensorLoader::Guard(const std::string& name, Make make) {
  last_ = name;
  if (!status_.ok()) return {};
  try {
    return make();
  } catch (const c10::OutOfMemoryError& e) {
    status_ = absl::FailedPreconditionError(
        absl::StrCat(name, ": does not fit into the device's memory: ",
                     e.what_without_backtrace()));
  } catch (const std::exception& e) {
    status_ = absl::InternalError(absl::StrCat(name, ": ", e.what()));
  }
  return {};
}

at::Tensor TensorLoader::Copied(const std::string& name) {
  absl::StatusOr<checkpoint::Tensor> found = weights_.Find(name);
  if (!found.ok()) {
    status_ = found.status();
    return {};
  }
  const auto dtype =
      found->dtype == checkpoint::DType::kBFloat16 ? at::kBFloat16 : at::kFloat;
  // ATen has no const tensors; the copy only reads.
  void* data = const_cast<std::byte*>(found->data.data());
  return at::from_blob(data, found->shape, dtype).to(at::kCUDA);
}

at::Tensor TensorLoader::Bf16(const std::string& name) {
  return Guard(name, [&]() -> at::Tensor {
    const auto rule = weights_.Rule(name);
    if (!rule.has_value()) {
      const at::Tensor copied = Copied(name);
      return copied.defined() ? copied.to(at::kBFloat16) : copied;
    }
    const at::Tensor made =
        at::empty(ShapeOf(weights_.variant(), name),
                  at::TensorOptions(at::kBFloat16).device(at::kCUDA));
    status_ = CudaStatus(
        kernels::LaunchSyntheticFill(
            rule->name_hash, rule->seed, rule->mean, rule->amp, Bf16Data(made),
            made.numel(), c10::cuda::getCurrentCUDAStream().stream()),
        name);
    return made;
  });
}

at::Tensor TensorLoader::Rounded(const std::string& name) {
  const at::Tensor tensor = Bf16(name);
  return Guard(name, [&] { return tensor.to(at::kFloat); });
}

at::Tensor TensorLoader::Outer(const std::string& name) {
  return Guard(name, [&] {
    const at::Tensor tensor = Copied(name);
    return tensor.defined() ? tensor.to(at::kFloat) : tensor;
  });
}

}  // namespace piserve::engine
