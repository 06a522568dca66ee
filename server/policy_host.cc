// SPDX-License-Identifier: Apache-2.0
#include "server/policy_host.h"

#include <algorithm>
#include <utility>

#include "server/policy_info.h"
#include "server/refusal.h"

namespace piserve::server {

PolicyHost::PolicyHost(std::vector<std::string> names)
    : names_(std::move(names)) {}

void PolicyHost::Add(HostedPolicy policy) {
  batching::MutexLock lock(mutex_);
  policies_.push_back(std::make_unique<const HostedPolicy>(std::move(policy)));
}

void PolicyHost::Open(const Dispatcher::Options& options) {
  std::vector<const HostedPolicy*> policies;
  {
    batching::MutexLock lock(mutex_);
    for (const auto& policy : policies_) policies.push_back(policy.get());
  }
  owned_ = std::make_unique<Dispatcher>(options, std::move(policies));
  dispatcher_ = owned_.get();
}

void PolicyHost::Drain(absl::Time until) {
  draining_ = true;
  if (Dispatcher* dispatcher = dispatcher_) dispatcher->Drain(until);
}

int PolicyHost::in_flight() const {
  const Dispatcher* dispatcher = dispatcher_;
  return dispatcher != nullptr ? dispatcher->in_flight() : 0;
}

bool PolicyHost::CheckFaults() {
  Dispatcher* dispatcher = dispatcher_;
  return dispatcher == nullptr || dispatcher->CheckFaults();
}

bool PolicyHost::lost_device() const {
  const Dispatcher* dispatcher = dispatcher_;
  return dispatcher != nullptr && dispatcher->lost_device();
}

Inference::Cancel PolicyHost::Start(InferenceRequest request, Done done) {
  if (Dispatcher* dispatcher = dispatcher_) {
    return dispatcher->Start(std::move(request), std::move(done));
  }
  done(NotOpen());
  return [] {};
}

absl::Status PolicyHost::Availability() const {
  const Dispatcher* dispatcher = dispatcher_;
  return dispatcher != nullptr ? dispatcher->Availability() : NotOpen();
}

absl::Status PolicyHost::NotOpen() const {
  return draining_ ? Draining() : WarmingUp();
}

const HostedPolicy* PolicyHost::Loaded(absl::string_view name) const {
  batching::MutexLock lock(mutex_);
  const auto found =
      std::find_if(policies_.begin(), policies_.end(),
                   [&](const auto& host) { return host->name == name; });
  return found == policies_.end() ? nullptr : found->get();
}

std::string PolicyHost::DefaultPolicy() const {
  return names_.size() == 1 ? names_.front() : "";
}

absl::StatusOr<v1::GetPolicyInfoResponse> PolicyHost::Describe(
    absl::string_view policy) const {
  v1::GetPolicyInfoResponse response;
  for (const std::string& name : names_) {
    if (!policy.empty() && policy != name) continue;
    const HostedPolicy* host = Loaded(name);
    if (host == nullptr) return WarmingUp();
    *response.add_policies() = InfoOf(*host);
  }
  if (policy.empty() || response.policies_size() > 0) return response;
  return UnknownPolicy(policy);
}

}  // namespace piserve::server
