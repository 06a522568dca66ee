// SPDX-License-Identifier: Apache-2.0
#include "tests/model/engine/test_wave.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

#include "tests/support/synthetic_inputs.h"

namespace piserve::engine {
namespace {

at::Tensor Pinned(at::ScalarType dtype, std::vector<std::int64_t> shape) {
  return at::zeros(shape, at::TensorOptions(dtype).pinned_memory(true));
}

template <typename T>
at::Tensor View(std::vector<T>& values, at::ScalarType dtype) {
  return at::from_blob(values.data(),
                       {static_cast<std::int64_t>(values.size())}, dtype);
}

}  // namespace

TestWave::TestWave(const Variant& v, int rows)
    : variant_(v),
      pixels_(Pinned(at::kByte, {rows, Variant::kCameras, v.vision.image,
                                 v.vision.image, 3})),
      mask_(Pinned(at::kByte, {rows, Variant::kCameras})),
      tokens_(Pinned(at::kInt, {rows, v.max_token_len})),
      counts_(Pinned(at::kInt, {rows})),
      state_(Pinned(at::kFloat, {rows, v.action_dim})),
      noise_(Pinned(at::kFloat, {rows, v.action_horizon, v.action_dim})),
      actions_(Pinned(at::kFloat, {rows, v.action_horizon, v.action_dim})) {}

void TestWave::Set(int row, const RowInput& input) {
  const int side = variant_.vision.image;
  for (int i = 0; i < Variant::kCameras; ++i) {
    mask_[row][i].fill_(input.cameras[i]);
    auto image = test::SyntheticImage(input.seed * 3 + i, side, side);
    pixels_[row][i].copy_(View(image, at::kByte).view({side, side, 3}));
  }
  auto tokens =
      test::SyntheticTokens(input.seed, input.prompt_tokens, variant_.vocab);
  tokens_[row].zero_();
  tokens_[row].narrow(0, 0, input.prompt_tokens).copy_(View(tokens, at::kInt));
  counts_[row].fill_(input.prompt_tokens);
  auto state = test::SyntheticState(input.seed, variant_.action_dim);
  state_[row].copy_(View(state, at::kDouble));
  auto noise = test::SyntheticNoise(
      input.seed, variant_.action_horizon * variant_.action_dim);
  noise_[row].copy_(View(noise, at::kFloat).view_as(noise_[row]));
}

void TestWave::Set(int row, const reference::Batch& batch) {
  pixels_[row].copy_(batch.pixels[0]);
  mask_[row].copy_(batch.camera_mask[0]);
  tokens_[row].copy_(batch.tokens[0]);
  counts_[row].copy_(batch.token_mask[0].sum());
  state_[row].copy_(batch.state[0]);
  noise_[row].copy_(batch.noise[0]);
}

HostWave TestWave::host() const {
  return {.pixels = Data<std::uint8_t>(pixels_),
          .camera_mask = Data<std::uint8_t>(mask_),
          .tokens = Data<std::int32_t>(tokens_),
          .token_counts = Data<std::int32_t>(counts_),
          .state = Data<float>(state_),
          .noise = Data<float>(noise_),
          .actions = Data<float>(actions_)};
}

WaveShape TestWave::Shape(int steps) const {
  return {.rows = static_cast<int>(counts_.size(0)),
          .cameras = mask_.to(at::kInt).sum(1).max().item<int>(),
          .prompt_tokens = counts_.max().item<int>(),
          .steps = steps};
}

at::Tensor TestWave::Actions(int row) const { return actions_[row].clone(); }

reference::Batch TestWave::Batch(int row) const {
  const at::Tensor position = at::arange(variant_.max_token_len);
  return {.pixels = pixels_.narrow(0, row, 1).clone(),
          .camera_mask = mask_.narrow(0, row, 1).to(at::kBool),
          .tokens = tokens_.narrow(0, row, 1).to(at::kLong),
          .token_mask = position.lt(counts_[row]).unsqueeze(0),
          .state = state_.narrow(0, row, 1).clone(),
          .noise = noise_.narrow(0, row, 1).clone()};
}

}  // namespace piserve::engine
