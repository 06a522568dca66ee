// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "model/observation.h"
#include "model/policy_config.h"
#include "model/transform/pipeline.h"
#include "model/variant.h"
#include "tests/support/golden.h"

namespace piserve::test {

// An observation with the bytes that its view borrows.
struct GoldenObservation {
  struct Image {
    std::string name;
    int width = 0;
    int height = 0;
    std::vector<std::uint8_t> pixels;  // RGB8
  };

  std::vector<Image> images;
  std::vector<double> state;
  std::optional<std::string> prompt;

  Observation view() const;
};

// One of tests/golden/policy: what openpi made of three observations.
class GoldenPolicy {
 public:
  // "pi0_libero", "pi05_libero", "pi0_aloha_towel", "pi05_droid".
  explicit GoldenPolicy(const std::string& name);

  PolicyConfig config() const;
  // The tiny checkpoint's sizes with this policy's horizon and prompt length.
  Variant variant() const;
  NormStats stats() const;
  // Cuts long prompts, as openpi did.
  absl::StatusOr<std::unique_ptr<transform::Pipeline>> MakePipeline() const;

  int size() const;
  GoldenObservation observation(int i) const;
  bool camera_mask(int i, const std::string& slot) const;
  std::string model_image_fnv1a64(int i, const std::string& slot) const;
  std::vector<std::int32_t> tokens(int i) const;  // valid ones
  std::vector<double> model_state(int i) const;
  // `precision` is "fp32" or "bf16".
  std::vector<float> model_actions(int i, std::string_view precision) const;
  std::vector<double> actions(int i, std::string_view precision) const;

 private:
  const nlohmann::json& Entry(int i) const;
  std::string Key(int i, std::string_view tensor) const;

  nlohmann::json json_;
  GoldenTensors tensors_;
};

}  // namespace piserve::test
