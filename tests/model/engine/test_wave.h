// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "model/engine/network.h"
#include "model/reference/network.h"
#include "model/variant.h"

namespace piserve::engine {

// One row's inputs, made from a seed.
struct RowInput {
  std::array<bool, Variant::kCameras> cameras = {true, true, true};
  int prompt_tokens = 12;
  std::uint64_t seed = 11;
};

// Rows in pinned memory, and what comes back.
class TestWave {
 public:
  TestWave(const Variant& variant, int rows);

  void Set(int row, const RowInput& input);
  // A row of the reference's inputs.
  void Set(int row, const reference::Batch& batch);

  HostWave host() const;
  // The shape that the rows need.
  WaveShape Shape(int steps) const;
  // fp32 [H, action_dim] of a row, as last written.
  at::Tensor Actions(int row) const;
  // The inputs of a row for the reference, on the CPU.
  reference::Batch Batch(int row) const;

 private:
  const Variant variant_;
  at::Tensor pixels_, mask_, tokens_, counts_, state_, noise_, actions_;
};

}  // namespace piserve::engine
