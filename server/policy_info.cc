// SPDX-License-Identifier: Apache-2.0
#include "server/policy_info.h"

#include <span>
#include <string>

namespace piserve::server {
namespace {

std::string ToString(std::string_view text) { return std::string(text); }

v1::CameraUse UseOf(transform::CameraUse use) {
  switch (use) {
    case transform::CameraUse::kRequired:
      return v1::CAMERA_USE_REQUIRED;
    case transform::CameraUse::kOptional:
      return v1::CAMERA_USE_OPTIONAL;
    case transform::CameraUse::kIgnored:
      return v1::CAMERA_USE_IGNORED;
  }
  return v1::CAMERA_USE_UNSPECIFIED;
}

void AddCameras(const transform::Pipeline& pipeline, v1::PolicyInfo& info) {
  for (const transform::CameraSpec& spec : pipeline.cameras()) {
    v1::Camera& camera = *info.add_cameras();
    camera.set_name(ToString(spec.name));
    camera.set_use(UseOf(spec.use));
    if (spec.slot.has_value()) {
      camera.set_model_slot(ToString(transform::kCameraSlots[*spec.slot]));
    }
  }
}

void SetBlock(const transform::Block& block, v1::Block& out) {
  out.set_name(ToString(block.name));
  out.set_unit(ToString(block.unit));
  out.set_size(block.size);
}

void SetMetadata(const PolicyConfig& config, v1::PolicyInfo& info) {
  auto& fields = *info.mutable_metadata()->mutable_fields();
  if (config.reset_pose.empty()) return;
  auto& pose = *fields["reset_pose"].mutable_list_value();
  for (const double angle_rad : config.reset_pose) {
    pose.add_values()->set_number_value(angle_rad);
  }
}

}  // namespace

v1::PolicyInfo InfoOf(const HostedPolicy& host) {
  const transform::Pipeline& pipeline = *host.pipeline;
  const Capabilities& capabilities = host.policy->capabilities();
  v1::PolicyInfo info;
  info.set_name(host.name);
  info.set_model_digest(host.model_digest);
  info.set_policy_config(host.config.name);
  info.set_precision(capabilities.precision);
  AddCameras(pipeline, info);
  for (const auto& block : pipeline.state_blocks()) {
    SetBlock(block, *info.add_state());
  }
  for (const auto& block : pipeline.action_blocks()) {
    SetBlock(block, *info.add_action());
  }
  info.set_action_horizon(pipeline.action_horizon());
  info.add_noise_shape(capabilities.variant.action_horizon);
  info.add_noise_shape(capabilities.variant.action_dim);
  info.set_prompt_tokens_max(pipeline.max_prompt_tokens());
  if (pipeline.default_prompt().has_value()) {
    info.set_default_prompt(*pipeline.default_prompt());
  }
  for (const int steps : capabilities.step_counts) info.add_step_counts(steps);
  info.set_default_steps(capabilities.step_counts.front());
  for (const int size : capabilities.batch_sizes) info.add_batch_sizes(size);
  if (host.config.control_rate_hz.has_value()) {
    info.set_control_rate_hz(*host.config.control_rate_hz);
  }
  SetMetadata(host.config, info);
  info.set_preprocessing_checksum(pipeline.preprocessing_checksum());
  info.set_tokenizer_sha256(pipeline.tokenizer_sha256());
  info.set_supports_prefix(capabilities.supports_action_prefix);
  info.set_backend(capabilities.backend);
  return info;
}

}  // namespace piserve::server
