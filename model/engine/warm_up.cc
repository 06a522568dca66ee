// SPDX-License-Identifier: Apache-2.0
#include "model/engine/warm_up.h"

#include <cublasLt.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <iterator>
#include <set>
#include <span>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "model/engine/pinned_rows.h"
#include "model/engine/stage_timer.h"
#include "model/noise.h"

namespace piserve::engine {
namespace {

// To be raised with every change that may move a bit or a time.
constexpr int kEngineVersion = 12;
constexpr int kTimings = 3;
// Replayed at every start, as far as they are configured; and the largest.
constexpr int kCheckedRows[] = {1, 2, 4, 8, 16, 32, 64};

std::uint64_t Fnv1a64(std::span<const float> values) {
  std::uint64_t hash = 0xcbf29ce484222325;
  for (const float value : values) {
    const auto bits = std::bit_cast<std::uint32_t>(value);
    for (int shift = 0; shift < 32; shift += 8) {
      hash = (hash ^ ((bits >> shift) & 0xFF)) * 0x100000001b3;
    }
  }
  return hash;
}

class WarmUp {
 public:
  WarmUp(Network& network, const Progress& progress)
      : network_(network),
        progress_(progress),
        variant_(network.variant()),
        sizes_(network.sizes()),
        rows_(variant_, sizes_.batch_sizes.back()),
        timer_(network.stream().stream()),
        fewest_(*std::min_element(network.options().step_counts.begin(),
                                  network.options().step_counts.end())),
        most_(*std::max_element(network.options().step_counts.begin(),
                                network.options().step_counts.end())) {
    Fill();
  }

  absl::Status CaptureAndMeasure(CostTable& costs);
  std::set<int> PersistentRows() const;
  absl::Status CaptureAll();
  absl::StatusOr<std::map<int, std::uint64_t>> Hashes();

 private:
  void Fill();
  WaveShape ShapeOf(const WaveLayout& layout, int steps) const;
  absl::Status Run(const WaveLayout& layout, int steps,
                   Network::Execution execution);
  absl::StatusOr<StageTimer::Times> Time(const WaveLayout& layout, int steps);
  absl::Status Compare(const WaveLayout& layout);
  absl::Status Measure(const WaveLayout& layout, CostTable& costs);
  absl::Status TryStepwise(const WaveLayout& layout, CostTable& costs);
  std::span<const float> Actions(int rows);
  void Say(const WaveLayout& layout, int done, int all) const;

  Network& network_;
  const Progress& progress_;
  const Variant& variant_;
  const GraphSizes& sizes_;
  PinnedRows rows_;
  StageTimer timer_;
  const int fewest_, most_;  // step counts
};

// Every row differs; all have all cameras and the longest prompt.
void WarmUp::Fill() {
  for (int i = 0; i < sizes_.batch_sizes.back(); ++i) {
    const SlotRow row = rows_.row(i);
    for (std::size_t k = 0; k < row.pixels.size(); k += 4) {
      const auto word =
          Philox4x32({static_cast<std::uint32_t>(k / 256), 0, 0, 0},
                     {static_cast<std::uint32_t>(i), 1})[0] *
          static_cast<std::uint32_t>(k + 1);
      std::memcpy(&row.pixels[k], &word, 4);
    }
    std::fill(row.camera_mask.begin(), row.camera_mask.end(), 1);
    for (std::size_t k = 0; k < row.tokens.size(); ++k) {
      row.tokens[k] = static_cast<std::int32_t>((k * 31 + i) % variant_.vocab);
    }
    *row.token_count = static_cast<std::int32_t>(row.tokens.size());
    FillNoise(i, row.noise);
    FillNoise(i + 1000, row.state);
  }
}

WaveShape WarmUp::ShapeOf(const WaveLayout& layout, int steps) const {
  return {.rows = layout.rows,
          .cameras = layout.prefix.cameras,
          .prompt_tokens = layout.prefix.prompt_tokens,
          .steps = steps};
}

absl::Status WarmUp::Run(const WaveLayout& layout, int steps,
                         Network::Execution execution) {
  // A smaller graph than the rows need would read past its arrays.
  for (int i = 0; i < layout.rows; ++i) {
    const SlotRow row = rows_.row(i);
    for (int c = 0; c < Variant::kCameras; ++c) {
      row.camera_mask[c] = c < layout.prefix.cameras;
    }
    *row.token_count = layout.prefix.prompt_tokens;
  }
  absl::Status status =
      network_.Enqueue(rows_.wave(), ShapeOf(layout, steps), layout, execution,
                       [this](Stage stage) { timer_.Record(stage); });
  if (!status.ok()) return status;
  return timer_.Wait();
}

std::span<const float> WarmUp::Actions(int rows) {
  const std::span<const float> first = rows_.row(0).actions;
  return {first.data(), first.size() * rows};
}

absl::Status WarmUp::Compare(const WaveLayout& layout) {
  // The first run chooses algorithms on what was there before.
  for (int i = 0; i < 2; ++i) {
    if (absl::Status s = Run(layout, fewest_, Network::Execution::kEager);
        !s.ok()) {
      return s;
    }
  }
  const std::uint64_t eager = Fnv1a64(Actions(layout.rows));
  if (absl::Status s = network_.Capture(layout); !s.ok()) return s;
  if (absl::Status s = Run(layout, fewest_, Network::Execution::kGraph);
      !s.ok()) {
    return s;
  }
  if (Fnv1a64(Actions(layout.rows)) == eager) return absl::OkStatus();
  return absl::InternalError(absl::StrCat(
      "the graph of ", layout.rows, " rows, ", layout.prefix.cameras,
      " cameras, ", layout.prefix.prompt_tokens,
      " prompt tokens does not answer as its kernels do"));
}

absl::StatusOr<StageTimer::Times> WarmUp::Time(const WaveLayout& layout,
                                               int steps) {
  StageTimer::Times best;
  for (int i = 0; i < kTimings; ++i) {
    if (absl::Status s = Run(layout, steps, Network::Execution::kGraph);
        !s.ok()) {
      return s;
    }
    const StageTimer::Times times = timer_.Read();
    if (i == 0 || times.total() < best.total()) best = times;
  }
  return best;
}

absl::Status WarmUp::Measure(const WaveLayout& layout, CostTable& costs) {
  const auto few = Time(layout, fewest_);
  if (!few.ok()) return few.status();
  const auto many = fewest_ == most_ ? few : Time(layout, most_);
  if (!many.ok()) return many.status();
  costs.prefix.emplace(layout.prefix,
                       CostTable::Prefix{many->vision / layout.micro_waves,
                                         many->prefill / layout.micro_waves});
  const absl::Duration later =
      fewest_ == most_ ? few->denoise / fewest_
                       : (many->denoise - few->denoise) / (most_ - fewest_);
  costs.steps.emplace(
      layout.rows,
      CostTable::Steps{few->denoise - later * (fewest_ - 1), later});
  const absl::Duration transfer = (many->load + many->store) / layout.rows;
  costs.transfer = std::max(costs.transfer, transfer);
  return absl::OkStatus();
}

// Compares both ways to denoise so few rows, and keeps the faster one.
absl::Status WarmUp::TryStepwise(const WaveLayout& layout, CostTable& costs) {
  const int rows = layout.rows;
  CostTable stepwise;
  network_.Choose(rows, Network::Denoising::kStepwise);
  if (absl::Status s = Compare(layout); !s.ok()) return s;
  if (absl::Status s = Measure(layout, stepwise); !s.ok()) return s;
  CostTable::Steps& best = costs.steps.at(rows);
  const CostTable::Steps& other = stepwise.steps.at(rows);
  progress_(absl::StrCat(
      rows, " rows, ", most_, " steps: ",
      absl::ToInt64Microseconds(best.Total(most_)), " us in one kernel, ",
      absl::ToInt64Microseconds(other.Total(most_)), " us step by step"));
  if (other.Total(most_) < best.Total(most_)) {
    best = other;
  } else {
    network_.Choose(rows, Network::Denoising::kPersistent);
  }
  return absl::OkStatus();
}

std::set<int> WarmUp::PersistentRows() const {
  std::set<int> persistent;
  for (const int rows : sizes_.batch_sizes) {
    if (network_.DenoisingOf(rows) == Network::Denoising::kPersistent) {
      persistent.insert(rows);
    }
  }
  return persistent;
}

void WarmUp::Say(const WaveLayout& layout, int done, int all) const {
  progress_(absl::StrCat("graphs ", done, "/", all, ": ", layout.rows,
                         " rows, ", layout.prefix.cameras, " cameras, ",
                         layout.prefix.prompt_tokens, " prompt tokens"));
}

absl::Status WarmUp::CaptureAndMeasure(CostTable& costs) {
  const std::vector<WaveLayout> layouts = DistinctLayouts(sizes_);
  int done = 0;
  for (const WaveLayout& layout : layouts) {
    Say(layout, ++done, layouts.size());
    const bool first_of_rows = !costs.steps.contains(layout.rows);
    if (absl::Status s = Compare(layout); !s.ok()) return s;
    if (absl::Status s = Measure(layout, costs); !s.ok()) return s;
    if (first_of_rows && network_.HasPersistent(layout.rows)) {
      if (absl::Status s = TryStepwise(layout, costs); !s.ok()) return s;
    }
  }
  return absl::OkStatus();
}

absl::Status WarmUp::CaptureAll() {
  const std::vector<WaveLayout> layouts = DistinctLayouts(sizes_);
  progress_(absl::StrCat("capturing graphs of ", layouts.size(), " layouts"));
  for (const WaveLayout& layout : layouts) {
    if (absl::Status s = network_.Capture(layout); !s.ok()) return s;
  }
  return absl::OkStatus();
}

absl::StatusOr<std::map<int, std::uint64_t>> WarmUp::Hashes() {
  std::set<int> checked = {sizes_.batch_sizes.back()};
  std::set_intersection(sizes_.batch_sizes.begin(), sizes_.batch_sizes.end(),
                        std::begin(kCheckedRows), std::end(kCheckedRows),
                        std::inserter(checked, checked.end()));
  std::map<int, std::uint64_t> hashes;
  for (const int rows : checked) {
    const WaveLayout layout = LayOut(
        sizes_, {.rows = rows, .prompt_tokens = sizes_.prompt_tokens.back()});
    if (absl::Status s = Run(layout, most_, Network::Execution::kGraph);
        !s.ok()) {
      return s;
    }
    hashes[rows] = Fnv1a64(Actions(rows));
  }
  return hashes;
}

Plan::Algorithm ToPlan(const Gemm::Algorithm& algorithm) {
  return std::bit_cast<Plan::Algorithm>(algorithm);
}

}  // namespace

std::string PlanKey(const Network& network, absl::string_view weights_digest) {
  int current = 0;
  cudaGetDevice(&current);
  cudaDeviceProp device = {};
  cudaGetDeviceProperties(&device, current);
  int driver = 0, runtime = 0;
  cudaDriverGetVersion(&driver);
  cudaRuntimeGetVersion(&runtime);
  return absl::StrCat(
      "engine=", kEngineVersion, " weights=", weights_digest,
      " variant=", DebugString(network.variant()), " device=", device.name,
      " driver=", driver, " runtime=", runtime,
      " cublaslt=", cublasLtGetVersion(),
      " rope=", static_cast<int>(network.options().rope),
      " batch_sizes=", absl::StrJoin(network.options().batch_sizes, ","),
      " step_counts=", absl::StrJoin(network.options().step_counts, ","),
      " micro_rows=", network.sizes().micro_rows);
}

absl::StatusOr<Plan> MakePlan(Network& network, std::string key,
                              const Progress& progress) {
  Plan plan;
  plan.key = std::move(key);
  WarmUp warm_up(network, progress);
  if (absl::Status s = warm_up.CaptureAndMeasure(plan.costs); !s.ok()) return s;
  for (const auto& [shape, algorithm] : network.gemms().Algorithms()) {
    plan.gemms.emplace(shape, ToPlan(algorithm));
  }
  plan.persistent = warm_up.PersistentRows();
  auto hashes = warm_up.Hashes();
  if (!hashes.ok()) return hashes.status();
  plan.hashes = *std::move(hashes);
  return plan;
}

absl::Status UsePlan(Network& network, const Plan& plan,
                     const Progress& progress) {
  for (const WaveLayout& layout : AllLayouts(network.sizes())) {
    const absl::Duration cost =
        plan.costs.Predict(layout, network.options().step_counts.front());
    if (cost <= absl::ZeroDuration() || cost == absl::InfiniteDuration()) {
      return absl::FailedPreconditionError(
          absl::StrCat("the plan has no times for ", layout.rows, " rows"));
    }
  }
  for (const auto& [shape, algorithm] : plan.gemms) {
    if (absl::Status s = network.gemms().Add(
            shape, std::bit_cast<Gemm::Algorithm>(algorithm));
        !s.ok()) {
      return s;
    }
  }
  for (const int rows : network.sizes().batch_sizes) {
    if (!plan.persistent.contains(rows)) {
      network.Choose(rows, Network::Denoising::kStepwise);
    }
  }
  WarmUp warm_up(network, progress);
  if (absl::Status s = warm_up.CaptureAll(); !s.ok()) return s;
  const auto hashes = warm_up.Hashes();
  if (!hashes.ok()) return hashes.status();
  if (*hashes == plan.hashes) return absl::OkStatus();
  return absl::FailedPreconditionError(
      "the plan's graphs answered differently when it was made");
}

}  // namespace piserve::engine
