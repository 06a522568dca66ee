// SPDX-License-Identifier: Apache-2.0
#include "model/engine/policy.h"

#include <ATen/cuda/CUDAContextLight.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAFunctions.h>

#include <algorithm>
#include <functional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "model/engine/cuda_status.h"
#include "model/engine/energy_meter.h"
#include "model/engine/memory_need.h"
#include "model/engine/network.h"
#include "model/engine/plan.h"
#include "model/engine/slots.h"
#include "model/engine/warm_up.h"
#include "model/engine/wave_runner.h"

namespace piserve::engine {
namespace {

absl::Status CheckOptions(const EnginePolicy::Options& options) {
  const auto positive = [](const std::vector<int>& values) {
    return !values.empty() && std::all_of(values.begin(), values.end(),
                                          [](int value) { return value >= 1; });
  };
  if (!positive(options.batch_sizes) ||
      !std::is_sorted(options.batch_sizes.begin(), options.batch_sizes.end(),
                      std::less_equal<>())) {
    return absl::InvalidArgumentError(
        "batch sizes: want one or more, each at least 1, ascending");
  }
  if (!positive(options.step_counts) || options.slots_in_flight < 1 ||
      options.micro_rows < 1) {
    return absl::InvalidArgumentError(
        "step counts, slots, micro rows: want one or more, each at least 1");
  }
  if (!options.plan_path.empty() && options.optimisations != Optimisations{}) {
    return absl::InvalidArgumentError(
        "plan: got a path and an optimisation off, want all of them on");
  }
  if (!at::cuda::is_available()) {
    return absl::FailedPreconditionError(
        "backend ENGINE: got no CUDA device, want one");
  }
  return absl::OkStatus();
}

// A network and what is known about its graphs.
struct Ready {
  std::unique_ptr<Network> network;
  Plan plan;
};

absl::StatusOr<std::unique_ptr<Network>> MakeNetwork(
    const checkpoint::Weights& weights, const EnginePolicy::Options& options) {
  return Network::Create(weights, {.rope = options.rope,
                                   .batch_sizes = options.batch_sizes,
                                   .step_counts = options.step_counts,
                                   .micro_rows = options.micro_rows,
                                   .optimisations = options.optimisations});
}

// The saved plan's network; none if there is no plan that fits.
absl::StatusOr<Ready> Recall(const checkpoint::Weights& weights,
                             const EnginePolicy::Options& options) {
  if (options.plan_path.empty()) return absl::NotFoundError("no plan path");
  auto plan = ReadPlan(options.plan_path);
  if (!plan.ok()) return plan.status();
  auto network = MakeNetwork(weights, options);
  if (!network.ok()) return network.status();
  if (plan->key != PlanKey(**network, weights.digest())) {
    return absl::NotFoundError("the plan is another one's");
  }
  if (absl::Status s = UsePlan(**network, *plan, options.progress); !s.ok()) {
    return s;
  }
  return Ready{*std::move(network), *std::move(plan)};
}

absl::StatusOr<Ready> Find(const checkpoint::Weights& weights,
                           const EnginePolicy::Options& options) {
  auto network = MakeNetwork(weights, options);
  if (!network.ok()) return network.status();
  auto plan = MakePlan(**network, PlanKey(**network, weights.digest()),
                       options.progress);
  if (!plan.ok()) return plan.status();
  if (!options.plan_path.empty()) {
    // Next time it will take as long again; no reason not to serve.
    if (absl::Status s = WritePlan(options.plan_path, *plan); !s.ok()) {
      options.progress(std::string(s.message()));
    }
  }
  return Ready{*std::move(network), *std::move(plan)};
}

absl::StatusOr<Ready> Start(const checkpoint::Weights& weights,
                            const EnginePolicy::Options& options) {
  auto recalled = Recall(weights, options);
  if (recalled.ok()) return recalled;
  options.progress(
      absl::StrCat("making a new plan: ", recalled.status().message()));
  c10::cuda::CUDACachingAllocator::emptyCache();
  return Find(weights, options);
}

// NVML is first asked when the source is: with many devices it may take a
// while to begin.
DeviceFacts::Energy EnergyOf(int device) {
  return [bus_id = PciBusId(device),
          meter = std::shared_ptr<EnergyMeter>()]() mutable {
    if (meter == nullptr) meter = std::make_shared<EnergyMeter>(bus_id);
    return meter->Joules();
  };
}

// `bytes` are of all tensors that the start has made.
absl::StatusOr<DeviceFacts> FactsOf(const Network& network, double bytes,
                                    int device) {
  std::size_t free = 0, total = 0;
  absl::Status status =
      CudaStatus(cudaMemGetInfo(&free, &total), "the device's memory");
  if (!status.ok()) return status;
  return DeviceFacts{.memory = {.weights = network.weight_bytes(),
                                .buffers = bytes - network.weight_bytes(),
                                .free = static_cast<double>(free),
                                .total = static_cast<double>(total)},
                     .graphs = network.Graphs(),
                     .energy = EnergyOf(device)};
}

}  // namespace

class EnginePolicy::Impl {
 public:
  Impl(Ready ready, DeviceFacts facts, const Options& options)
      : facts_(std::move(facts)),
        network_(std::move(ready.network)),
        costs_(std::move(ready.plan.costs)),
        capabilities_{.variant = network_->variant(),
                      .backend = "engine",
                      .precision = "bfloat16",
                      .batch_sizes = options.batch_sizes,
                      .step_counts = options.step_counts,
                      .slots_in_flight = options.slots_in_flight,
                      .supports_action_prefix = false},
        slots_(std::make_shared<Slots>(network_->variant(),
                                       options.slots_in_flight,
                                       capabilities_.max_rows())),
        runner_(*network_) {}

  const Capabilities& capabilities() const { return capabilities_; }
  const DeviceFacts& facts() const { return facts_; }
  absl::Duration Predict(const WaveShape& shape) const {
    return costs_.Predict(network_->LayoutOf(shape), shape.steps);
  }
  Slots& slots() { return *slots_; }
  WaveRunner& runner() { return runner_; }
  const WaveRunner& runner() const { return runner_; }

 private:
  const DeviceFacts facts_;
  const std::unique_ptr<Network> network_;
  const CostTable costs_;
  const Capabilities capabilities_;
  const std::shared_ptr<Slots> slots_;
  WaveRunner runner_;
};

EnginePolicy::EnginePolicy(std::unique_ptr<Impl> impl)
    : impl_(std::move(impl)) {}

EnginePolicy::~EnginePolicy() = default;

absl::StatusOr<std::unique_ptr<EnginePolicy>> EnginePolicy::Create(
    std::shared_ptr<const checkpoint::Weights> weights, Options options) {
  if (absl::Status s = CheckOptions(options); !s.ok()) return s;
  if (options.progress == nullptr) options.progress = [](const std::string&) {};
  try {
    c10::cuda::set_device(static_cast<c10::DeviceIndex>(options.device));
    const double before = TensorBytes();
    auto ready = Start(*weights, options);
    if (!ready.ok()) return ready.status();
    auto facts =
        FactsOf(*ready->network, TensorBytes() - before, options.device);
    if (!facts.ok()) return facts.status();
    return std::unique_ptr<EnginePolicy>(new EnginePolicy(
        std::make_unique<Impl>(*std::move(ready), *std::move(facts), options)));
  } catch (const c10::OutOfMemoryError& e) {
    return absl::FailedPreconditionError(
        absl::StrCat("the engine does not fit into the device's memory: ",
                     e.what_without_backtrace()));
  } catch (const std::exception& e) {
    return absl::InternalError(absl::StrCat("starting the engine: ", e.what()));
  }
}

const Capabilities& EnginePolicy::capabilities() const {
  return impl_->capabilities();
}

absl::Duration EnginePolicy::PredictDuration(const WaveShape& shape) const {
  return impl_->Predict(shape);
}

absl::StatusOr<std::unique_ptr<Slot>> EnginePolicy::AcquireSlot(int rows) {
  return impl_->slots().Acquire(rows);
}

void EnginePolicy::Submit(Wave wave, Completion completion) {
  impl_->runner().Submit(std::move(wave), std::move(completion));
}

bool EnginePolicy::healthy() const { return impl_->runner().healthy(); }

std::optional<DeviceFacts> EnginePolicy::device_facts() const {
  return impl_->facts();
}

}  // namespace piserve::engine
