// SPDX-License-Identifier: Apache-2.0
#include "server/dispatcher.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "model/error.h"
#include "model/noise.h"
#include "server/refusal.h"

namespace piserve::server {
namespace {

batching::Limits LimitsOf(const LimitsConfig& limits) {
  return {.rows = limits.rows,
          .bytes = limits.bytes,
          .predicted = limits.predicted,
          .rows_per_client = limits.rows_per_client};
}

// Fairness goes by who is authenticated, else by robot, else by address.
std::uint64_t ClientKey(const InferenceRequest& request) {
  const std::string key = !request.identity.empty()   ? "i" + request.identity
                          : !request.robot_id.empty() ? "r" + request.robot_id
                                                      : "p" + request.peer;
  return std::hash<std::string>()(key);
}

// A client ends a call at its deadline by cancelling it, and does so a little
// before our deadline: gRPC rounds timeouts up, by 1 % at most, when it sends
// them. What was cancelled then did expire; nobody changed his mind.
batching::DropReason ReasonAt(absl::Time now, const ActiveRequest& task,
                              batching::DropReason reason) {
  if (reason != batching::DropReason::kCancelled) return reason;
  const absl::Duration given = task.deadline - task.request.received;
  const absl::Duration left = task.deadline - now;
  return left <= given / 50 + absl::Milliseconds(2)
             ? batching::DropReason::kExpired
             : reason;
}

std::uint64_t DrawSeed() {
  thread_local std::random_device device;
  return (std::uint64_t{device()} << 32) | device();
}

std::size_t NoiseSize(const Variant& variant) {
  return static_cast<std::size_t>(variant.action_horizon) * variant.action_dim;
}

void SetNoise(ActiveRequest& request) {
  if (auto* noise = std::get_if<std::vector<float>>(&request.request.start)) {
    request.noise = std::move(*noise);
    return;
  }
  const auto* seed = std::get_if<std::uint64_t>(&request.request.start);
  request.seed = seed != nullptr ? *seed : DrawSeed();
  request.noise.resize(NoiseSize(request.host->policy->capabilities().variant));
  FillNoise(*request.seed, request.noise);
}

// What a prepared request holds.
std::size_t BytesOf(const ActiveRequest& request) {
  const ModelInput& input = request.input;
  const std::size_t kept =
      request.request.storage_kept ? request.request.bytes : 0;
  return kept + input.pixels.size() +
         input.tokens.size() * sizeof(input.tokens[0]) +
         (input.state.size() + input.robot_state.size()) * sizeof(double) +
         request.noise.size() * sizeof(float);
}

}  // namespace

Dispatcher::Dispatcher(Options options,
                       std::vector<const HostedPolicy*> policies)
    : options_(options),
      policies_(std::move(policies)),
      context_{.clock = options.clock, .observer = options.observer},
      pool_(options.workers) {
  std::vector<std::unique_ptr<batching::Executor<Task>>> executors;
  struct Device {
    std::shared_ptr<DeviceWork> work = std::make_shared<DeviceWork>();
    WorkerPool* launcher = nullptr;
  };
  std::map<absl::string_view, Device> devices;
  for (const HostedPolicy* host : policies_) devices[host->device];
  for (auto& [name, device] : devices) {
    if (devices.size() == 1) break;
    launchers_.push_back(std::make_unique<WorkerPool>(1));
    device.launcher = launchers_.back().get();
  }
  for (const HostedPolicy* host : policies_) {
    const Device& device = devices[host->device];
    auto executor = std::make_unique<PolicyExecutor>(
        *host, PolicyExecutor::Options{
                   .index = static_cast<int>(executors.size()),
                   .hang = HangLimitOf(options_.watchdog,
                                       host->policy->capabilities().backend),
                   .work = device.work,
                   .clock = options_.clock,
                   .observer = options_.observer,
                   .pool = &pool_,
                   .launcher = device.launcher});
    executors_.push_back(executor.get());
    executors.push_back(std::move(executor));
  }
  batcher_ = std::make_unique<batching::Batcher<Task>>(
      batching::Batcher<Task>::Options{
          .limits = LimitsOf(options_.limits),
          .dispatch = {},
          .clock = options_.clock,
          .observer = options_.batching_observer,
          .dropped =
              [this](Task task, batching::DropReason reason) {
                task->Fail(
                    Dropped(ReasonAt(options_.clock->Now(), *task, reason)));
              }},
      std::move(executors));
}

Dispatcher::~Dispatcher() {
  draining_ = true;
  pool_.Quiesce();   // what was admitted is enqueued
  batcher_.reset();  // answers what waits, waits for what runs
}

Inference::Cancel Dispatcher::Start(InferenceRequest request, Done done) {
  auto task = std::make_unique<ActiveRequest>(std::move(request),
                                              std::move(done), context_);
  absl::Status status = Check(*task);
  if (!status.ok()) {
    task->Fail(status);
    return [] {};
  }
  auto admitted = batcher_->Admit(TraitsOf(*task));
  if (const auto* rejection = std::get_if<batching::Rejection>(&admitted)) {
    task->Fail(Rejected(*rejection, task->deadline - options_.clock->Now()));
    return [] {};
  }
  auto ticket = std::get<batching::Ticket>(std::move(admitted));
  const batching::TaskId id = ticket.id();
  pool_.Submit(
      WorkerPool::Lane::kPrepare,
      [this, task = std::move(task), ticket = std::move(ticket)]() mutable {
        Prepare(std::move(task), std::move(ticket));
      });
  return [this, id] { batcher_->Cancel(id); };
}

absl::Status Dispatcher::Check(ActiveRequest& request) const {
  if (absl::Status s = Availability(); !s.ok()) return s;
  if (absl::Status s = FindPolicy(request); !s.ok()) return s;
  const HostedPolicy& host = *request.host;
  const std::string& pin = request.request.model_digest;
  if (!pin.empty() && pin != host.model_digest) {
    return DigestMismatch(host.model_digest);
  }
  if (absl::Status s = host.pipeline->Validate(request.request.observation);
      !s.ok()) {
    return s;
  }
  if (absl::Status s = CheckNoise(request); !s.ok()) return s;
  if (absl::Status s = CheckSteps(request); !s.ok()) return s;
  SetDeadline(request);
  return absl::OkStatus();
}

absl::Status Dispatcher::FindPolicy(ActiveRequest& request) const {
  const std::string& name = request.request.policy;
  if (name.empty()) {
    if (policies_.size() > 1) {
      return PolicyRequired(static_cast<int>(policies_.size()));
    }
    request.host = policies_.front();
    return absl::OkStatus();
  }
  for (const HostedPolicy* host : policies_) {
    if (host->name == name) request.host = host;
  }
  return request.host != nullptr ? absl::OkStatus() : UnknownPolicy(name);
}

absl::Status Dispatcher::CheckSteps(ActiveRequest& request) {
  const std::vector<int>& offered =
      request.host->policy->capabilities().step_counts;
  if (!request.request.num_steps.has_value()) {
    request.steps = offered.front();
    return absl::OkStatus();
  }
  const std::uint32_t steps = *request.request.num_steps;
  for (const int count : offered) {
    if (static_cast<std::uint32_t>(count) == steps) request.steps = count;
  }
  return request.steps > 0
             ? absl::OkStatus()
             : StepsNotOffered(steps, absl::StrJoin(offered, ", "));
}

absl::Status Dispatcher::CheckNoise(ActiveRequest& request) {
  const auto* noise = std::get_if<std::vector<float>>(&request.request.start);
  if (noise == nullptr) return absl::OkStatus();
  const Variant& variant = request.host->policy->capabilities().variant;
  const std::vector<std::uint32_t> want = {
      static_cast<std::uint32_t>(variant.action_horizon),
      static_cast<std::uint32_t>(variant.action_dim)};
  if (request.request.noise_shape != want ||
      noise->size() != NoiseSize(variant)) {
    return InvalidField(
        "noise.shape", "WRONG_SHAPE",
        absl::StrCat("got [", absl::StrJoin(request.request.noise_shape, ", "),
                     "], want [", absl::StrJoin(want, ", "), "]"));
  }
  for (const float x : *noise) {
    if (!std::isfinite(x)) {
      return InvalidField("noise.data", "NOT_FINITE",
                          "got NaN or infinity, want finite numbers");
    }
  }
  return absl::OkStatus();
}

void Dispatcher::SetDeadline(ActiveRequest& request) const {
  const InferenceRequest& in = request.request;
  const LimitsConfig& limits = options_.limits;
  request.deadline =
      in.deadline == absl::InfiniteFuture()
          ? in.received + limits.default_deadline
          : std::min(in.deadline, in.received + limits.max_deadline);
}

batching::TaskTraits Dispatcher::TraitsOf(const ActiveRequest& request) const {
  const InferenceRequest& in = request.request;
  const transform::InputCost cost =
      request.host->pipeline->EstimateCost(in.observation);
  batching::TaskTraits traits;
  traits.arrival = in.received;
  traits.deadline = request.deadline;
  traits.stale_at = in.received + (in.max_age - in.age);
  traits.priority = in.priority;
  traits.client = ClientKey(in);
  traits.bytes = in.bytes + cost.bytes;
  const auto host = std::find(policies_.begin(), policies_.end(), request.host);
  traits.compatibility =
      Compatibility(static_cast<int>(host - policies_.begin()), request.steps);
  traits.steps = request.steps;
  traits.cameras = cost.cameras;
  traits.prompt_tokens = cost.prompt_tokens;
  if (!in.robot_id.empty()) {
    traits.identity = batching::SupersedeKey{
        std::hash<std::string>()(in.robot_id), in.sequence};
  }
  traits.supersede_older = in.supersede_older;
  return traits;
}

void Dispatcher::Prepare(Task task, batching::Ticket ticket) {
  if (options_.clock->Now() > task->deadline) {
    task->Fail(Dropped(batching::DropReason::kExpired));
    return;
  }
  absl::StatusOr<ModelInput> input =
      task->host->pipeline->Prepare(task->request.observation);
  if (!input.ok()) {
    task->Fail(input.status());
    return;
  }
  task->input = std::move(*input);
  SetNoise(*task);
  task->DropObservation();
  ticket.Resize(BytesOf(*task));
  ticket.SetCost(task->input.cameras(),
                 static_cast<int>(task->input.tokens.size()));
  task->EndStage("decode");
  batcher_->Enqueue(std::move(ticket), std::move(task));
}

void Dispatcher::Drain(absl::Time until) {
  draining_ = true;
  batcher_->Drain(until);
}

absl::Status Dispatcher::Availability() const {
  if (draining_) return Draining();
  for (const PolicyExecutor* executor : executors_) {
    if (executor->healthy()) return absl::OkStatus();
  }
  return DeviceFault();
}

bool Dispatcher::CheckFaults() {
  // A GPU that failed one policy answers none of the others that it has.
  std::set<absl::string_view> lost;
  for (std::size_t i = 0; i < executors_.size(); ++i) {
    const bool healthy = executors_[i]->CheckFaults();
    if (!healthy && policies_[i]->on_gpu()) lost.insert(policies_[i]->device);
  }
  std::size_t healthy = 0;
  for (std::size_t i = 0; i < executors_.size(); ++i) {
    PolicyExecutor& executor = *executors_[i];
    if (!executor.healthy()) continue;
    if (lost.contains(policies_[i]->device)) {
      executor.TakeOut();
    } else {
      ++healthy;
    }
  }
  if (healthy < executors_.size()) batcher_->CheckHealth();
  return healthy > 0;
}

bool Dispatcher::lost_device() const {
  return !std::all_of(executors_.begin(), executors_.end(),
                      [](const PolicyExecutor* e) { return e->healthy(); });
}

}  // namespace piserve::server
