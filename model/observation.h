// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "model/variant.h"

namespace piserve {

enum class ImageEncoding { kRgb8, kJpeg, kPng };

// A view of one camera's image; `data` borrows the request's bytes.
struct ImageView {
  std::string_view name;  // the robot's name for the camera
  ImageEncoding encoding = ImageEncoding::kRgb8;
  int width = 0;   // px; 0 for JPEG and PNG: as the header says
  int height = 0;  // px
  std::string_view data;
};

// What a robot sent, in robot units. Borrows the request, which must outlive
// it.
struct Observation {
  std::optional<std::string_view> prompt;
  std::vector<double> state;
  std::vector<ImageView> images;
};

// One row as the model takes it, made by transform::Pipeline.
struct ModelInput {
  // uint8 RGB [3, image, image, 3]: base, left wrist, right wrist. Zero where
  // masked.
  std::vector<std::uint8_t> pixels;
  std::array<bool, Variant::kCameras> camera_mask = {};
  std::vector<std::int32_t> tokens;  // valid ones only, at most L
  // Normalised, zero-padded to action_dim. float64 as in openpi; the model
  // narrows it.
  std::vector<double> state;
  // In robot units, as absolute actions need it: the state before
  // normalisation, after the robot's input transform.
  std::vector<double> robot_state;

  int cameras() const {
    int n = 0;
    for (bool live : camera_mask) n += live;
    return n;
  }
};

}  // namespace piserve
