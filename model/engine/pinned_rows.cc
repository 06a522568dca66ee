// SPDX-License-Identifier: Apache-2.0
#include "model/engine/pinned_rows.h"

#include <ATen/ops/zeros.h>

#include <span>

#include "model/engine/buffers.h"

namespace piserve::engine {
namespace {

at::Tensor Pinned(at::ScalarType dtype, std::int64_t rows, std::int64_t each) {
  return at::zeros({rows, each}, at::TensorOptions(dtype).pinned_memory(true));
}

template <typename T>
std::span<T> Row(const at::Tensor& tensor, int index) {
  const auto each = static_cast<std::size_t>(tensor.size(1));
  return {Data<T>(tensor) + index * each, each};
}

}  // namespace

PinnedRows::PinnedRows(const Variant& v, int rows) {
  const std::int64_t image = std::int64_t{3} * v.vision.image * v.vision.image;
  const std::int64_t chunk = std::int64_t{v.action_horizon} * v.action_dim;
  pixels_ = Pinned(at::kByte, rows, Variant::kCameras * image);
  camera_mask_ = Pinned(at::kByte, rows, Variant::kCameras);
  tokens_ = Pinned(at::kInt, rows, v.max_token_len);
  token_counts_ = Pinned(at::kInt, rows, 1);
  state_ = Pinned(at::kFloat, rows, v.action_dim);
  noise_ = Pinned(at::kFloat, rows, chunk);
  actions_ = Pinned(at::kFloat, rows, chunk);
}

SlotRow PinnedRows::row(int index) {
  return {.pixels = Row<std::uint8_t>(pixels_, index),
          .camera_mask = Row<std::uint8_t>(camera_mask_, index),
          .tokens = Row<std::int32_t>(tokens_, index),
          .token_count = Row<std::int32_t>(token_counts_, index).data(),
          .state = Row<float>(state_, index),
          .noise = Row<float>(noise_, index),
          .actions = Row<float>(actions_, index)};
}

HostWave PinnedRows::wave() const {
  return {.pixels = Data<std::uint8_t>(pixels_),
          .camera_mask = Data<std::uint8_t>(camera_mask_),
          .tokens = Data<std::int32_t>(tokens_),
          .token_counts = Data<std::int32_t>(token_counts_),
          .state = Data<float>(state_),
          .noise = Data<float>(noise_),
          .actions = Data<float>(actions_)};
}

}  // namespace piserve::engine
