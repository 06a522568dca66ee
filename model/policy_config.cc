// SPDX-License-Identifier: Apache-2.0
#include "model/policy_config.h"

namespace piserve {
namespace {

// What follows from the kind of model alone, as in openpi's Pi0Config.
PolicyConfig Base(std::string name, bool pi05) {
  PolicyConfig config;
  config.name = std::move(name);
  config.pi05 = pi05;
  config.max_token_len = pi05 ? 200 : 48;
  config.norm = pi05 ? NormMode::kQuantile : NormMode::kMeanStd;
  config.discrete_state_input = pi05;
  return config;
}

// Control rates are those of openpi's clients (examples/{aloha_real,droid}) and
// of LIBERO itself.
PolicyConfig Aloha(std::string name, bool pi05) {
  PolicyConfig config = Base(std::move(name), pi05);
  config.asset_id = "trossen";
  config.robot = Robot::kAloha;
  config.adapt_to_pi = true;
  config.absolute_actions = {6, -1, 6, -1};
  config.control_rate_hz = 50;
  return config;
}

PolicyConfig WithResetPose(PolicyConfig config) {
  config.reset_pose = {0, -1.5, 1.5, 0, 0, 0};
  return config;
}

PolicyConfig WithPrompt(PolicyConfig config, std::string prompt) {
  config.default_prompt = std::move(prompt);
  return config;
}

PolicyConfig AlohaSim() {
  PolicyConfig config = Aloha("pi0_aloha_sim", false);
  config.asset_id = "lerobot/aloha_sim_transfer_cube_human";
  config.absolute_actions = {};
  return WithPrompt(std::move(config), "Transfer cube");
}

PolicyConfig Droid(std::string name, bool pi05, int action_horizon) {
  PolicyConfig config = Base(std::move(name), pi05);
  config.action_horizon = action_horizon;
  config.asset_id = "droid";
  config.robot = Robot::kDroid;
  config.control_rate_hz = 15;
  return config;
}

// Joint positions instead of velocities, given relative to the state.
PolicyConfig WithJointPositions(PolicyConfig config) {
  config.absolute_actions = {7, -1};
  return config;
}

PolicyConfig Pi0Polaris(std::string name) {
  PolicyConfig config =
      WithJointPositions(Droid(std::move(name), /*pi05=*/false, 10));
  config.max_token_len = 100;
  return config;
}

PolicyConfig Libero(std::string name, bool pi05) {
  PolicyConfig config = Base(std::move(name), pi05);
  config.asset_id = "physical-intelligence/libero";
  config.robot = Robot::kLibero;
  config.control_rate_hz = 20;
  return config;
}

PolicyConfig Pi0Libero() {
  PolicyConfig config = Libero("pi0_libero", false);
  config.absolute_actions = {6, -1};
  return config;
}

// Trained with the pi0 prompt: the model never sees the state.
PolicyConfig Pi05Libero() {
  PolicyConfig config = Libero("pi05_libero", true);
  config.action_horizon = 10;
  config.discrete_state_input = false;
  return config;
}

std::vector<PolicyConfig> MakePolicyConfigs() {
  return {
      WithResetPose(Aloha("pi0_aloha", false)),
      WithResetPose(Aloha("pi05_aloha", true)),
      WithPrompt(WithResetPose(Aloha("pi0_aloha_towel", false)),
                 "fold the towel"),
      WithPrompt(WithResetPose(Aloha("pi0_aloha_tupperware", false)),
                 "open the tupperware and put the food on the plate"),
      WithPrompt(Aloha("pi0_aloha_pen_uncap", false), "uncap the pen"),
      WithPrompt(Aloha("pi05_aloha_pen_uncap", true), "uncap the pen"),
      AlohaSim(),
      Droid("pi0_droid", false, 10),
      Droid("pi05_droid", true, 15),
      Droid("pi05_droid_finetune", true, 16),
      WithJointPositions(Droid("pi05_full_droid_finetune", true, 16)),
      WithJointPositions(Droid("pi05_droid_jointpos_polaris", true, 15)),
      Pi0Polaris("pi0_droid_jointpos_polaris"),
      Pi0Polaris("pi0_droid_jointpos_100k_polaris"),
      Pi0Libero(),
      Pi05Libero(),
  };
}

}  // namespace

std::span<const PolicyConfig> PolicyConfigs() {
  static const auto* const configs =
      new std::vector<PolicyConfig>(MakePolicyConfigs());
  return *configs;
}

const PolicyConfig* FindPolicyConfig(std::string_view name) {
  for (const PolicyConfig& config : PolicyConfigs()) {
    if (config.name == name) return &config;
  }
  return nullptr;
}

}  // namespace piserve
