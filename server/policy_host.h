// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "batching/mutex.h"
#include "server/dispatcher.h"
#include "server/hosted_policy.h"
#include "server/inference.h"
#include "server/rpc/policy_directory.h"

namespace piserve::server {

// The policies of a server, from before they are loaded: the listeners can
// answer while a policy takes minutes to load.
//
// Until Open, requests are refused with WARMING_UP; Describe does so until all
// that it is asked for are loaded. Thread-safe; Add and Open come from one
// thread.
class PolicyHost : public Inference, public rpc::PolicyDirectory {
 public:
  // The names that the configuration lists.
  explicit PolicyHost(std::vector<std::string> names);

  void Add(HostedPolicy policy);

  // Takes requests from now on. All names have been added.
  void Open(const Dispatcher::Options& options);

  // See Dispatcher. Before Open there is nothing in flight and nothing ill.
  void Drain(absl::Time until);
  int in_flight() const;
  bool CheckFaults();
  bool lost_device() const;

  Cancel Start(InferenceRequest request, Done done) override;

  absl::Status Availability() const override;
  std::string DefaultPolicy() const override;
  absl::StatusOr<v1::GetPolicyInfoResponse> Describe(
      absl::string_view policy) const override;

 private:
  // Or null.
  const HostedPolicy* Loaded(absl::string_view name) const;
  // What is said before Open.
  absl::Status NotOpen() const;

  const std::vector<std::string> names_;
  mutable batching::Mutex mutex_;
  std::vector<std::unique_ptr<const HostedPolicy>> policies_
      ABSL_GUARDED_BY(mutex_);
  std::atomic<bool> draining_ = false;
  std::unique_ptr<Dispatcher> owned_;  // uses policies_: goes first
  std::atomic<Dispatcher*> dispatcher_ = nullptr;
};

}  // namespace piserve::server
