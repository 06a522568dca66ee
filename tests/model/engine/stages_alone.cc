// SPDX-License-Identifier: Apache-2.0
#include "tests/model/engine/stages_alone.h"

#include <vector>

#include "absl/time/time.h"
#include "model/engine/pinned_rows.h"
#include "model/engine/stage_timer.h"
#include "tests/model/engine/bench_call.h"

namespace piserve::engine {
namespace {

constexpr int kWarmUps = 5;
constexpr int kReplays = 50;

struct NamedStage {
  const char* name;
  Stage stage;
  absl::Duration StageTimer::Times::*time;
};

constexpr NamedStage kStages[] = {
    {"vision", Stage::kVision, &StageTimer::Times::vision},
    {"prefill", Stage::kPrefill, &StageTimer::Times::prefill},
    {"denoise", Stage::kDenoise, &StageTimer::Times::denoise}};

// Chooses algorithms, captures, and leaves a whole wave behind.
absl::Status Prepare(Network& network, const HostWave& wave,
                     const WaveShape& shape) {
  const auto run = [&](Network::Execution execution) {
    absl::Status status = network.Enqueue(wave, shape, execution, [](Stage) {});
    return status.ok() ? network.Synchronize() : status;
  };
  absl::Status status = run(Network::Execution::kEager);
  if (status.ok()) status = network.Capture(network.LayoutOf(shape));
  return status.ok() ? run(Network::Execution::kGraph) : status;
}

}  // namespace

absl::StatusOr<std::map<std::string, double>> TimeStagesAlone(
    Network& network, const WaveShape& shape) {
  PinnedRows rows(network.variant(), shape.rows);
  for (int i = 0; i < shape.rows; ++i) {
    FillRow(network.variant(), shape, i, rows.row(i));
  }
  if (absl::Status s = Prepare(network, rows.wave(), shape); !s.ok()) return s;
  StageTimer timer(network.stream().stream());
  std::map<std::string, double> medians;
  for (const NamedStage& stage : kStages) {
    std::vector<double> ms;
    for (int i = -kWarmUps; i < kReplays; ++i) {
      absl::Status status =
          network.EnqueueAlone(stage.stage, rows.wave(), shape,
                               [&](Stage mark) { timer.Record(mark); });
      if (status.ok()) status = timer.Wait();
      if (!status.ok()) return status;
      if (i < 0) continue;
      ms.push_back(absl::ToDoubleMilliseconds(timer.Read().*stage.time));
    }
    medians[stage.name] = Percentile(ms, 0.5);
  }
  return medians;
}

}  // namespace piserve::engine
