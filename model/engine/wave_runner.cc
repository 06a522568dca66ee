// SPDX-License-Identifier: Apache-2.0
#include "model/engine/wave_runner.h"

#include <algorithm>
#include <span>
#include <utility>

#include "absl/strings/str_cat.h"
#include "model/row_check.h"

namespace piserve::engine {
namespace {

// The policy hands actions out read only; the memory is its own.
std::span<float> Writable(std::span<const float> actions) {
  return {const_cast<float*>(actions.data()), actions.size()};
}

void FailWave(const absl::Status& status, WaveResult& result) {
  for (std::size_t i = 0; i < result.row_status.size(); ++i) {
    if (result.row_status[i].ok()) result.row_status[i] = status;
    if (result.slot != nullptr && i < result.slot->capacity()) {
      Withhold(Writable(result.slot->row(i).actions));
    }
  }
}

// A row that is refused is computed as an empty prompt without cameras would
// be, so that it cannot touch the others.
void Blank(const SlotRow& row) {
  std::fill(row.camera_mask.begin(), row.camera_mask.end(), 0);
  row.tokens[0] = 0;
  *row.token_count = 1;
}

}  // namespace

WaveRunner::WaveRunner(Network& network)
    : network_(network), thread_([this] { Work(); }) {}

WaveRunner::~WaveRunner() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_one();
  thread_.join();
}

absl::Status WaveRunner::CheckWave(const PinnedSlot* slot,
                                   const WaveShape& shape) const {
  if (slot == nullptr) {
    return absl::InvalidArgumentError("wave: its slot is not this policy's");
  }
  if (shape.rows < 1 || shape.rows > slot->capacity()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "wave: got ", shape.rows, " rows, want 1 to ", slot->capacity()));
  }
  const auto& counts = network_.options().step_counts;
  if (std::find(counts.begin(), counts.end(), shape.steps) == counts.end()) {
    return absl::InvalidArgumentError(
        absl::StrCat("wave: got ", shape.steps, " steps, which no graph has"));
  }
  return absl::OkStatus();
}

void WaveRunner::CheckRows(PinnedSlot& slot, WaveResult& result) const {
  for (std::size_t i = 0; i < result.row_status.size(); ++i) {
    const SlotRow row = slot.row(i);
    result.row_status[i] = CheckRow(network_.variant(), row);
    if (!result.row_status[i].ok()) Blank(row);
  }
}

// What the rows really need: the caller's word is not taken for it, because a
// smaller graph would cut a row short.
WaveShape NeededBy(PinnedSlot& slot, WaveShape shape) {
  shape.cameras = 0;
  shape.prompt_tokens = 0;
  for (int i = 0; i < shape.rows; ++i) {
    const SlotRow row = slot.row(i);
    shape.prompt_tokens = std::max(shape.prompt_tokens, *row.token_count);
    const auto live = static_cast<int>(row.camera_mask.size()) -
                      std::count(row.camera_mask.begin(), row.camera_mask.end(),
                                 std::uint8_t{0});
    shape.cameras = std::max(shape.cameras, static_cast<int>(live));
  }
  return shape;
}

absl::Status WaveRunner::Enqueue(PinnedSlot& slot, Job& job) {
  if (!healthy_) return DeviceFault("after an earlier fault");
  const WaveShape shape = NeededBy(slot, job.shape);
  job.result.graph_rows = network_.LayoutOf(shape).rows;
  {
    const std::lock_guard lock(mutex_);
    if (!idle_timers_.empty()) {
      job.timer = std::move(idle_timers_.back());
      idle_timers_.pop_back();
    }
  }
  if (job.timer == nullptr) {
    job.timer = std::make_unique<StageTimer>(network_.stream().stream());
  }
  const absl::Status status =
      network_.Enqueue(slot.wave(), shape, network_.execution(),
                       [&](Stage stage) { job.timer->Record(stage); });
  return status.ok() ? status : DeviceFault(status.message());
}

void WaveRunner::Submit(Wave wave, Policy::Completion completion) {
  const std::lock_guard submitting(submit_mutex_);
  Job job;
  job.shape = wave.shape;
  job.completion = std::move(completion);
  job.result.row_status.resize(std::max(wave.shape.rows, 0));
  auto* slot = dynamic_cast<PinnedSlot*>(wave.slot.get());
  job.result.slot = std::move(wave.slot);
  job.status = CheckWave(slot, wave.shape);
  if (job.status.ok()) {
    CheckRows(*slot, job.result);
    job.status = Enqueue(*slot, job);
  }
  {
    const std::lock_guard lock(mutex_);
    jobs_.push_back(std::move(job));
  }
  wake_.notify_one();
}

void WaveRunner::Work() {
  for (;;) {
    Job job;
    {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [this] { return stopping_ || !jobs_.empty(); });
      if (jobs_.empty()) return;
      job = std::move(jobs_.front());
      jobs_.pop_front();
    }
    Finish(job);
    if (job.timer != nullptr) {
      const std::lock_guard lock(mutex_);
      idle_timers_.push_back(std::move(job.timer));
    }
  }
}

void WaveRunner::Finish(Job& job) {
  absl::Status status = job.status;
  if (status.ok()) {
    status = job.timer->Wait();
    if (!status.ok()) status = DeviceFault(status.message());
  }
  if (!status.ok()) {
    if (status.code() == absl::StatusCode::kInternal) healthy_ = false;
    FailWave(status, job.result);
    job.completion(std::move(job.result));
    return;
  }
  const StageTimer::Times times = job.timer->Read();
  job.result.stages = {{"h2d", times.load},
                       {"vision", times.vision},
                       {"prefill", times.prefill},
                       {"denoise", times.denoise},
                       {"d2h", times.store}};
  for (std::size_t i = 0; i < job.result.row_status.size(); ++i) {
    absl::Status& row = job.result.row_status[i];
    const std::span<const float> actions = job.result.slot->row(i).actions;
    if (row.ok()) row = CheckFinite(actions);
    if (!row.ok()) Withhold(Writable(actions));
  }
  job.completion(std::move(job.result));
}

}  // namespace piserve::engine
