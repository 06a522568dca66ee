// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace piserve {

// Whose observations a policy takes: how cameras, state and actions map to the
// model's. Source: openpi policies/{libero,droid,aloha}_policy.py.
enum class Robot { kLibero, kDroid, kAloha };

// How state and actions are normalised: z = (x - mean) / std, or by the 1st and
// 99th percentile to [-1, 1].
enum class NormMode { kMeanStd, kQuantile };

// What the weights of a policy cannot tell: one row of openpi's table of named
// training configurations (training/config.py, _CONFIGS; docs/pi0.md 1.4).
struct PolicyConfig {
  std::string name;
  bool pi05 = false;
  int action_horizon = 50;
  int max_token_len = 48;
  NormMode norm = NormMode::kMeanStd;
  std::string asset_id;  // norm_stats.json lies in assets/<asset_id>/
  Robot robot = Robot::kLibero;
  // ALOHA only: joint flips and gripper conversion to the pi convention.
  bool adapt_to_pi = false;
  // openpi's make_bool_mask notation: n > 0 is n dims that the model gives
  // relative to the state, n < 0 is -n absolute dims. Empty: nothing to add.
  std::vector<int> absolute_actions;
  std::optional<std::string> default_prompt;
  // Pi0.5 only: the digitised state is part of the prompt.
  bool discrete_state_input = false;
  // ALOHA's metadata; empty where openpi has none. rad.
  std::vector<double> reset_pose;
  std::optional<double> control_rate_hz;
};

// All non-debug rows.
std::span<const PolicyConfig> PolicyConfigs();

// nullptr if there is no such row.
const PolicyConfig* FindPolicyConfig(std::string_view name);

}  // namespace piserve
