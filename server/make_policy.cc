// SPDX-License-Identifier: Apache-2.0
#include "server/make_policy.h"

#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "model/reference/policy.h"
#ifdef PISERVE_CUDA
#include <cstdio>

#include "absl/time/clock.h"
#include "model/engine/policy.h"
#endif

namespace piserve::server {
namespace {

constexpr int kDefaultSteps = 10;

std::vector<int> StepCounts(const PolicyEntry& entry,
                            const checkpoint::Checkpoint& checkpoint) {
  if (!entry.step_counts.empty()) return entry.step_counts;
  return {checkpoint.num_inference_steps.value_or(kDefaultSteps)};
}

absl::StatusOr<MadePolicy> MakeReference(const PolicyEntry& entry,
                                         checkpoint::Checkpoint& checkpoint) {
  reference::ReferencePolicy::Options options;
  options.precision = entry.precision == Precision::kFloat32
                          ? reference::Precision::kFloat32
                          : reference::Precision::kBFloat16;
  options.threads = entry.threads;
  options.batch_sizes = entry.batch_sizes;
  options.step_counts = StepCounts(entry, checkpoint);
  auto policy = reference::ReferencePolicy::Create(
      std::move(checkpoint.weights), std::move(options));
  if (!policy.ok()) return policy.status();
  return MadePolicy{*std::move(policy), "cpu"};
}

#ifdef PISERVE_CUDA

// Of lines that count alike one every few seconds, all others at once.
class ProgressLine {
 public:
  explicit ProgressLine(std::string policy) : policy_(std::move(policy)) {}

  void operator()(const std::string& line) {
    const absl::Time now = absl::Now();
    const std::string kind = line.substr(0, line.find_first_of("0123456789"));
    if (kind == kind_ && now - last_ < absl::Seconds(2)) return;
    kind_ = kind;
    last_ = now;
    std::fprintf(stderr, "policy %s: %s\n", policy_.c_str(), line.c_str());
  }

 private:
  const std::string policy_;
  std::string kind_;  // of the last line
  absl::Time last_ = absl::InfinitePast();
};

absl::StatusOr<MadePolicy> MakeEngine(const PolicyEntry& entry,
                                      checkpoint::Checkpoint& checkpoint) {
  engine::EnginePolicy::Options options;
  options.rope = entry.rope_table;
  options.batch_sizes = entry.batch_sizes;
  options.step_counts = StepCounts(entry, checkpoint);
  options.plan_path = entry.plan;
  options.progress = [say = ProgressLine(entry.name)](
                         const std::string& line) mutable { say(line); };
  auto policy = engine::EnginePolicy::Create(std::move(checkpoint.weights),
                                             std::move(options));
  if (!policy.ok()) return policy.status();
  return MadePolicy{*std::move(policy), "cuda:0"};
}

#else

absl::StatusOr<MadePolicy> MakeEngine(const PolicyEntry&,
                                      checkpoint::Checkpoint&) {
  return absl::InvalidArgumentError(
      "backend: got ENGINE, want REFERENCE: this build has no CUDA engine");
}

#endif

}  // namespace

absl::StatusOr<MadePolicy> MakePolicy(const PolicyEntry& entry,
                                      checkpoint::Checkpoint& checkpoint) {
  return entry.backend == Backend::kEngine ? MakeEngine(entry, checkpoint)
                                           : MakeReference(entry, checkpoint);
}

}  // namespace piserve::server
