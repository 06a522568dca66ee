// SPDX-License-Identifier: Apache-2.0
#include "tests/model/engine/bench_call.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <mutex>
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
  std::mutex mutex;
  std::condition_variable done;
  WaveResult result;
  bool finished = false;
  policy.Submit({std::move(slot), shape}, [&](WaveResult r) {
    const std::lock_guard lock(mutex);
    result = std::move(r);
    finished = true;
    done.notify_one();
  });
  std::unique_lock lock(mutex);
  done.wait(lock, [&] { return finished; });
  return result;
}

absl::StatusOr<CallTimes> TimeCalls(Policy& policy, const WaveShape& shape,
                                    int calls, absl::Duration period) {
  auto filled = FilledSlot(policy, shape);
  if (!filled.ok()) return filled.status();
  std::unique_ptr<Slot> slot = *std::move(filled);
  CallTimes times;
  const EnergyMeter meter(PciBusId(0));
  double start_joules = 0;
  Clock::time_point begin;
  for (int i = -kWarmUps; i < calls; ++i) {
    if (i == 0) {
      start_joules = meter.Joules().value_or(0);
      begin = Clock::now();
    }
    const auto start = Clock::now();
    WaveResult result = Call(policy, std::move(slot), shape);
    const double took = MillisecondsSince(start);
    if (absl::Status s = FirstError(result); !s.ok()) return s;
    slot = std::move(result.slot);
    absl::SleepFor(period - absl::Milliseconds(took));
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
  return times;
}

double Percentile(std::vector<double> values, double p) {
  std::sort(values.begin(), values.end());
  return values[std::min<std::size_t>(values.size() * p, values.size() - 1)];
}

}  // namespace piserve::engine
