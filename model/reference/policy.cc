// SPDX-License-Identifier: Apache-2.0
#include "model/reference/policy.h"

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/lt.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <chrono>
#include <future>
#include <span>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "model/reference/cost_model.h"
#include "model/reference/live_cost.h"
#include "model/reference/network.h"
#include "model/reference/slot_pool.h"
#include "model/reference/wave_worker.h"

namespace piserve::reference {
namespace {

absl::Status CheckOptions(const ReferencePolicy::Options& options) {
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
  if (!positive(options.step_counts)) {
    return absl::InvalidArgumentError(
        "step counts: want one or more, each at least 1");
  }
  if (options.slots_in_flight < 1 || options.threads < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("got ", options.slots_in_flight, " slots and ",
                     options.threads, " threads, want 1 or more, 0 or more"));
  }
  return absl::OkStatus();
}

// See Options::threads.
int ThreadsFor(const Variant& variant, int asked) {
  constexpr int kWide = 1024;  // full size is 2048, the small ones below 200
  if (asked > 0) return asked;
  return variant.vlm.width < kWide ? 1 : at::get_num_threads();
}

// Of a clock that nobody sets.
absl::Time Now() {
  return absl::UnixEpoch() +
         absl::FromChrono(std::chrono::steady_clock::now().time_since_epoch());
}

// A slot's row as tensors that borrow it.
Batch Borrow(const SlotRow& row, const Variant& variant) {
  const int side = variant.vision.image, dim = variant.action_dim;
  const auto tokens =
      at::from_blob(row.tokens.data(), {1, variant.max_token_len}, at::kInt);
  return {
      .pixels = at::from_blob(row.pixels.data(),
                              {1, Variant::kCameras, side, side, 3}, at::kByte),
      .camera_mask = at::from_blob(row.camera_mask.data(),
                                   {1, Variant::kCameras}, at::kByte)
                         .to(at::kBool),
      .tokens = tokens.to(at::kLong),
      .token_mask = at::lt(at::arange(variant.max_token_len), *row.token_count)
                        .unsqueeze(0),
      .state = at::from_blob(row.state.data(), {1, dim}, at::kFloat),
      .noise = at::from_blob(row.noise.data(), {1, variant.action_horizon, dim},
                             at::kFloat)};
}

// Runs one row of the network, stage by stage, on the worker's thread.
RowTimes RunRow(const Network& network, const SlotRow& row, int steps,
                std::span<float> actions) {
  const c10::InferenceMode no_autograd;
  const Batch batch = Borrow(row, network.variant());
  const absl::Time start = Now();
  const Prefix prefix = network.EmbedPrefix(batch, {});
  const absl::Time embedded = Now();
  const PrefixCache cache = network.Prefill(prefix, {});
  const absl::Time prefilled = Now();
  const at::Tensor chunk =
      network.Denoise(cache, batch.state, batch.noise, steps, {}).contiguous();
  std::copy_n(chunk.const_data_ptr<float>(), actions.size(), actions.begin());
  return {embedded - start, prefilled - embedded, Now() - prefilled};
}

}  // namespace

class ReferencePolicy::Impl {
 public:
  Impl(std::unique_ptr<Network> network, const Options& options)
      : network_(std::move(network)),
        capabilities_{.variant = network_->variant(),
                      .backend = "reference",
                      .precision = NameOf(options.precision),
                      .batch_sizes = options.batch_sizes,
                      .step_counts = options.step_counts,
                      .slots_in_flight = options.slots_in_flight,
                      .supports_action_prefix = false},
        slots_(std::make_shared<SlotPool>(network_->variant(),
                                          options.slots_in_flight,
                                          capabilities_.max_rows())),
        threads_(ThreadsFor(network_->variant(), options.threads)),
        worker_(network_->variant(), [this](const SlotRow& row, int steps,
                                            std::span<float> actions) {
          return RunTimedRow(row, steps, actions);
        }) {}

  // Times a short and a full row. Called before anything is submitted.
  absl::Status Measure();

  const Capabilities& capabilities() const { return capabilities_; }
  absl::Duration Predict(const WaveShape& shape) const {
    return cost_.Predict(
        shape, slots_->idle() ? LiveCost::Load::kIdle : LiveCost::Load::kBusy,
        Now());
  }
  SlotPool& slots() { return *slots_; }
  WaveWorker& worker() { return worker_; }

 private:
  absl::StatusOr<RowTimes> Time(const WaveShape& shape);
  RowTimes RunTimedRow(const SlotRow& row, int steps, std::span<float> actions);

  std::unique_ptr<Network> network_;
  Capabilities capabilities_;
  LiveCost cost_;
  std::shared_ptr<SlotPool> slots_;
  const int threads_;  // of one operator
  WaveWorker worker_;
};

RowTimes ReferencePolicy::Impl::RunTimedRow(const SlotRow& row, int steps,
                                            std::span<float> actions) {
  at::set_num_threads(threads_);  // OpenMP keeps the count per thread
  const RowTimes times = RunRow(*network_, row, steps, actions);
  const auto cameras =
      std::count_if(row.camera_mask.begin(), row.camera_mask.end(),
                    [](std::uint8_t live) { return live != 0; });
  cost_.Observe({.rows = 1,
                 .cameras = static_cast<int>(cameras),
                 .prompt_tokens = *row.token_count,
                 .steps = steps},
                times.vision + times.prefill + times.denoise, Now());
  return times;
}

absl::StatusOr<RowTimes> ReferencePolicy::Impl::Time(const WaveShape& shape) {
  absl::StatusOr<std::unique_ptr<HeapSlot>> slot = slots_->Acquire(1);
  if (!slot.ok()) return slot.status();
  const SlotRow row = (*slot)->row(0);
  for (int i = 0; i < Variant::kCameras; ++i) {
    row.camera_mask[i] = i < shape.cameras;
  }
  *row.token_count = shape.prompt_tokens;
  std::promise<WaveResult> promise;
  worker_.Submit({*std::move(slot), shape}, [&promise](WaveResult result) {
    promise.set_value(std::move(result));
  });
  const WaveResult result = promise.get_future().get();
  if (!result.row_status[0].ok()) return result.row_status[0];
  return RowTimes{result.stages[0].duration, result.stages[1].duration,
                  result.stages[2].duration};
}

absl::Status ReferencePolicy::Impl::Measure() {
  constexpr absl::Duration kSlow = absl::Seconds(2);
  const Variant& variant = network_->variant();
  const auto sample = [&](int cameras,
                          int tokens) -> absl::StatusOr<CostSample> {
    const WaveShape shape{
        .rows = 1, .cameras = cameras, .prompt_tokens = tokens, .steps = 2};
    CostSample best{cameras,
                    tokens,
                    shape.steps,
                    {absl::InfiniteDuration(), absl::InfiniteDuration(),
                     absl::InfiniteDuration()}};
    // The first run also warms caches and thread pools up.
    for (int i = 0; i < 4 && (i < 2 || best.times.vision < kSlow); ++i) {
      const absl::StatusOr<RowTimes> times = Time(shape);
      if (!times.ok()) return times.status();
      best.times.vision = std::min(best.times.vision, times->vision);
      best.times.prefill = std::min(best.times.prefill, times->prefill);
      best.times.denoise = std::min(best.times.denoise, times->denoise);
    }
    return best;
  };
  const auto large = sample(Variant::kCameras, variant.max_token_len);
  if (!large.ok()) return large.status();
  const auto small = sample(1, 1);
  if (!small.ok()) return small.status();
  cost_.Reset(CostModel::Fit(variant.vision.tokens(), *small, *large), Now());
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<ReferencePolicy>> ReferencePolicy::Create(
    std::shared_ptr<const checkpoint::Weights> weights, Options options) {
  if (const absl::Status status = CheckOptions(options); !status.ok()) {
    return status;
  }
  absl::StatusOr<std::unique_ptr<Network>> network =
      Network::Create(*weights, reference::Options::For(options.precision));
  if (!network.ok()) return network.status();
  auto impl = std::make_unique<Impl>(*std::move(network), options);
  if (const absl::Status status = impl->Measure(); !status.ok()) return status;
  return std::unique_ptr<ReferencePolicy>(new ReferencePolicy(std::move(impl)));
}

ReferencePolicy::ReferencePolicy(std::unique_ptr<Impl> impl)
    : impl_(std::move(impl)) {}

ReferencePolicy::~ReferencePolicy() = default;

const Capabilities& ReferencePolicy::capabilities() const {
  return impl_->capabilities();
}

absl::Duration ReferencePolicy::PredictDuration(const WaveShape& shape) const {
  return impl_->Predict(shape);
}

absl::StatusOr<std::unique_ptr<Slot>> ReferencePolicy::AcquireSlot(int rows) {
  return impl_->slots().Acquire(rows);
}

void ReferencePolicy::Submit(Wave wave, Completion completion) {
  impl_->worker().Submit(std::move(wave), std::move(completion));
}

bool ReferencePolicy::healthy() const { return impl_->worker().healthy(); }

}  // namespace piserve::reference
