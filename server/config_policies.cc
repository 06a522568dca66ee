// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <cstdint>
#include <numeric>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "model/flow.h"
#include "model/policy_config.h"
#include "server/config.h"
#include "server/config.pb.h"
#include "server/config_check.h"

namespace piserve::server {
namespace {

// Joints of one arm, in which a reset pose is given; those of ALOHA are alike.
int ArmJoints(Robot robot) { return robot == Robot::kAloha ? 6 : 7; }

// What the override says, else the named row; none if there is no such row.
std::optional<Robot> RobotOf(const PolicyEntry& entry) {
  if (entry.overrides.robot.has_value()) return entry.overrides.robot;
  const PolicyConfig* row = FindPolicyConfig(entry.policy_config);
  return row != nullptr ? std::optional(row->robot) : std::nullopt;
}

void CheckResetPose(const PolicyEntry& entry, int index, ConfigChecker& check) {
  const auto& pose = entry.overrides.reset_pose;
  if (!pose.has_value() || pose->empty()) return;  // empty: none
  const std::string field =
      ConfigField("policies", index, "overrides.reset_pose.rad");
  for (const double angle_rad : *pose) {
    if (!std::isfinite(angle_rad)) {
      check.Fail(field, absl::StrCat(angle_rad), "finite angles");
    }
  }
  const std::optional<Robot> robot = RobotOf(entry);
  if (robot.has_value() && pose->size() != ArmJoints(*robot)) {
    check.Fail(
        field, absl::StrCat(pose->size(), " angles"),
        absl::StrCat(ArmJoints(*robot), ", one for each joint of an arm"));
  }
}

PolicyOverrides ReadOverrides(const config::Overrides& in,
                              const std::string& at, ConfigChecker& check) {
  PolicyOverrides out;
  if (in.has_pi05()) out.pi05 = in.pi05();
  if (in.has_action_horizon()) {
    out.action_horizon = check.Range(absl::StrCat(at, ".action_horizon"),
                                     in.action_horizon(), 1u, 1024u);
  }
  if (in.has_max_token_len()) {
    out.max_token_len = check.Range(absl::StrCat(at, ".max_token_len"),
                                    in.max_token_len(), 1u, 4096u);
  }
  if (in.has_norm()) {
    out.norm = in.norm() == config::Overrides::QUANTILE ? NormMode::kQuantile
                                                        : NormMode::kMeanStd;
  }
  if (in.has_asset_id()) {
    out.asset_id = check.Text(absl::StrCat(at, ".asset_id"), in.asset_id());
  }
  if (in.has_robot()) {
    out.robot = in.robot() == config::Overrides::DROID   ? Robot::kDroid
                : in.robot() == config::Overrides::ALOHA ? Robot::kAloha
                                                         : Robot::kLibero;
  }
  if (in.has_adapt_to_pi()) out.adapt_to_pi = in.adapt_to_pi();
  if (in.has_absolute_actions()) {
    const auto& dims = in.absolute_actions().dims();
    for (const int n : dims) {
      check.Range(absl::StrCat(at, ".absolute_actions.dims"), n, -1024, 1024);
    }
    out.absolute_actions.emplace(dims.begin(), dims.end());
  }
  if (in.has_default_prompt()) out.default_prompt = in.default_prompt();
  if (in.has_discrete_state_input()) {
    out.discrete_state_input = in.discrete_state_input();
  }
  if (in.has_reset_pose()) {
    const auto& pose = in.reset_pose().rad();
    out.reset_pose.emplace(pose.begin(), pose.end());
  }
  if (in.has_control_rate_hz()) {
    out.control_rate_hz = check.Range(absl::StrCat(at, ".control_rate_hz"),
                                      in.control_rate_hz(), 1e-3, 1e5);
  }
  return out;
}

// A CPU gains little from sizes in between; a GPU has a graph for each.
std::vector<int> DefaultBatchSizes(Backend backend) {
  if (backend == Backend::kReference) return {1, 2, 4, 8, 16, 32, 64};
  std::vector<int> sizes(64);
  std::iota(sizes.begin(), sizes.end(), 1);
  return sizes;
}

void ReadSizes(const config::PolicyEntry& in, int index, PolicyEntry& out,
               ConfigChecker& check) {
  out.step_counts.assign(in.step_counts().begin(), in.step_counts().end());
  out.batch_sizes.assign(in.batch_sizes().begin(), in.batch_sizes().end());
  if (out.batch_sizes.empty()) {
    out.batch_sizes = DefaultBatchSizes(out.backend);
  }
  std::uint32_t previous = 0;
  for (const std::uint32_t size : in.batch_sizes()) {
    check.Range(ConfigField("policies", index, "batch_sizes"), size, 1u, 1024u);
    if (size <= previous) {
      check.Fail(ConfigField("policies", index, "batch_sizes"),
                 absl::StrCat(size, " after ", previous), "ascending sizes");
    }
    previous = size;
  }
  std::set<std::uint32_t> steps;
  for (const std::uint32_t count : in.step_counts()) {
    check.Range<std::uint32_t>(ConfigField("policies", index, "step_counts"),
                               count, 1, kMaxFlowSteps);
    if (!steps.insert(count).second) {
      check.Fail(ConfigField("policies", index, "step_counts"),
                 absl::StrCat(count, " twice"), "each count once");
    }
  }
}

void ReadWeights(const config::PolicyEntry& in, int index, PolicyEntry& out,
                 ConfigChecker& check) {
  switch (in.weights_case()) {
    case config::PolicyEntry::kCheckpoint:
      out.weights = CheckpointWeights{check.Path(check.Text(
          ConfigField("policies", index, "checkpoint"), in.checkpoint()))};
      break;
    case config::PolicyEntry::kSynthetic:
      out.weights = SyntheticWeights{in.synthetic().seed()};
      break;
    case config::PolicyEntry::WEIGHTS_NOT_SET:
      check.Fail(absl::StrCat("policies[", index, "]"), "no weights",
                 "checkpoint or synthetic");
  }
}

Precision ReadPrecision(const config::PolicyEntry& in, int index,
                        ConfigChecker& check) {
  if (in.precision() == config::PRECISION_UNSPECIFIED) {
    check.Fail(ConfigField("policies", index, "precision"), "nothing",
               "BFLOAT16 or FLOAT32");
  }
  return in.precision() == config::FLOAT32 ? Precision::kFloat32
                                           : Precision::kBFloat16;
}

// What only the engine has, and what it wants.
void ReadEngine(const config::PolicyEntry& in, int index, PolicyEntry& out,
                ConfigChecker& check) {
  out.plan = check.Path(in.plan());
  out.rope_table =
      in.rope_table() == config::EXACT ? RopeTable::kExact : RopeTable::kBf16;
  const auto fail = [&](const char* field, const char* got, const char* want) {
    check.Fail(ConfigField("policies", index, field), got, want);
  };
  if (out.backend == Backend::kEngine) {
    if (out.precision == Precision::kFloat32) {
      fail("precision", "FLOAT32",
           "BFLOAT16, which backend ENGINE computes in");
    }
    return;
  }
  if (!in.plan().empty()) fail("plan", "a file", "none without ENGINE");
  if (out.rope_table == RopeTable::kExact) {
    fail("rope_table", "EXACT", "BF16 without backend ENGINE");
  }
}

PolicyEntry ReadPolicy(const config::PolicyEntry& in, int index,
                       ConfigChecker& check) {
  PolicyEntry out;
  out.name = check.Name(ConfigField("policies", index, "name"), in.name());
  out.policy_config = check.Text(
      ConfigField("policies", index, "policy_config"), in.policy_config());
  ReadWeights(in, index, out, check);
  out.norm_stats = check.Path(in.norm_stats());
  out.variant_json = check.Path(in.variant_json());
  out.tokenizer = check.Path(
      check.Text(ConfigField("policies", index, "tokenizer"), in.tokenizer()));
  out.precision = ReadPrecision(in, index, check);
  out.overrides = ReadOverrides(
      in.overrides(), ConfigField("policies", index, "overrides"), check);
  CheckResetPose(out, index, check);
  out.backend =
      in.backend() == config::ENGINE ? Backend::kEngine : Backend::kReference;
  ReadSizes(in, index, out, check);
  out.threads = check.Range(ConfigField("policies", index, "threads"),
                            in.threads(), 0u, 1024u);
  out.prompt_overflow = in.prompt_overflow() == config::TRUNCATE
                            ? PromptOverflow::kTruncate
                            : PromptOverflow::kRefuse;
  ReadEngine(in, index, out, check);
  return out;
}

}  // namespace

std::vector<PolicyEntry> ReadPolicies(const config::ServerConfig& in,
                                      ConfigChecker& check) {
  if (in.policies().empty()) check.Fail("policies", "none", "at least one");
  std::vector<PolicyEntry> out;
  std::set<std::string> names;
  for (const config::PolicyEntry& policy : in.policies()) {
    out.push_back(ReadPolicy(policy, static_cast<int>(out.size()), check));
    if (!names.insert(policy.name()).second) {
      check.Fail(ConfigField("policies", out.size() - 1, "name"),
                 absl::StrCat(policy.name(), " twice"), "each name once");
    }
  }
  return out;
}

}  // namespace piserve::server
