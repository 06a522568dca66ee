// SPDX-License-Identifier: Apache-2.0
#include "tests/model/engine/bench_call.h"

#include <algorithm>
#include <chrono>
#include <deque>
#include <future>
#include <span>
#include <utility>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "model/engine/energy_meter.h"
#include "model/noise.h"
#include "tests/support/synthetic_inputs.h"

namespace piserve::engine {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kWarmUps = 5;

double MillisecondsSince(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start)
      .count();
}

std::future<WaveResult> Submitted(Policy& policy, std::unique_ptr<Slot> slot,
                                  const WaveShape& shape) {
  auto promise = std::make_shared<std::promise<WaveResult>>();
  std::future<WaveResult> result = promise->get_future();
  policy.Submit({std::move(slot), shape},
                [promise](WaveResult r) { promise->set_value(std::move(r)); });
  return result;
}

absl::Status FirstError(const WaveResult& result) {
  for (const absl::Status& status : result.row_status) {
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

}  // namespace

void FillRow(const Variant& variant, const WaveShape& shape, int index,
             const SlotRow& row) {
  const int side = variant.vision.image;
  for (int c = 0; c < Variant::kCameras; ++c) {
    row.camera_mask[c] = c < shape.cameras;
    const auto image = test::SyntheticImage(3 * index + c, side, side);
    std::copy(image.begin(), image.end(),
              row.pixels.begin() + c * image.size());
  }
  const auto tokens =
      test::SyntheticTokens(index, shape.prompt_tokens, variant.vocab);
  std::copy(tokens.begin(), tokens.end(), row.tokens.begin());
  *row.token_count = shape.prompt_tokens;
  FillNoise(index, row.noise);
  FillNoise(index + 100, row.state);
}

absl::StatusOr<std::unique_ptr<Slot>> FilledSlot(Policy& policy,
                                                 const WaveShape& shape) {
  auto slot = policy.AcquireSlot(shape.rows);
  if (!slot.ok()) return slot.status();
  for (int i = 0; i < shape.rows; ++i) {
    FillRow(policy.capabilities().variant, shape, i, (*slot)->row(i));
  }
  return slot;
}

WaveResult Call(Policy& policy, std::unique_ptr<Slot> slot,
                const WaveShape& shape) {
  return Submitted(policy, std::move(slot), shape).get();
}

absl::StatusOr<CallTimes> TimeCalls(Policy& policy, const WaveShape& shape,
                                    int calls, const Pace& pace) {
  std::deque<std::future<WaveResult>> flying;
  std::unique_ptr<Slot> slot;
  for (int i = 0; i < pace.in_flight; ++i) {
    if (slot != nullptr) {
      flying.push_back(Submitted(policy, std::move(slot), shape));
    }
    auto filled = FilledSlot(policy, shape);
    if (!filled.ok()) return filled.status();
    slot = *std::move(filled);
  }
  CallTimes times;
  const EnergyMeter meter(PciBusId(0));
  double start_joules = 0;
  Clock::time_point begin, start;
  for (int i = -kWarmUps; i < calls; ++i) {
    if (i == 0) {
      start_joules = meter.Joules().value_or(0);
      begin = Clock::now();
    }
    if (flying.empty()) start = Clock::now();
    flying.push_back(Submitted(policy, std::move(slot), shape));
    WaveResult result = flying.front().get();
    flying.pop_front();
    const double took = MillisecondsSince(start);
    start = Clock::now();
    if (absl::Status s = FirstError(result); !s.ok()) return s;
    slot = std::move(result.slot);
    absl::SleepFor(pace.period - absl::Milliseconds(took));
    if (i < 0) continue;
    times.ms.push_back(took);
    for (const StageDuration& stage : result.stages) {
      times.stages[stage.stage].push_back(
          absl::ToDoubleMilliseconds(stage.duration));
    }
  }
  times.joules = meter.Joules().value_or(0) - start_joules;
  times.seconds = MillisecondsSince(begin) / 1000;
  const std::span<const float> actions = slot->row(0).actions;
  times.actions.assign(actions.begin(), actions.end());
  for (std::future<WaveResult>& wave : flying) wave.wait();
  return times;
}

double Percentile(std::vector<double> values, double p) {
  std::sort(values.begin(), values.end());
  return values[std::min<std::size_t>(values.size() * p, values.size() - 1)];
}

}  // namespace piserve::engine
