// SPDX-License-Identifier: Apache-2.0
#include "model/reference/wave_worker.h"

#include <algorithm>
#include <exception>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "model/reference/slot_pool.h"
#include "model/row_check.h"

namespace piserve::reference {
namespace {

void FailWave(const absl::Status& status, HeapSlot* slot, WaveResult& result) {
  for (int i = 0; i < result.row_status.size(); ++i) {
    result.row_status[i] = status;
    if (slot != nullptr && i < slot->capacity()) Withhold(slot->actions(i));
  }
}

}  // namespace

WaveWorker::WaveWorker(const Variant& variant, RunRow run_row)
    : variant_(variant),
      run_row_(std::move(run_row)),
      thread_([this] { Work(); }) {}

WaveWorker::~WaveWorker() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_one();
  thread_.join();
}

void WaveWorker::Submit(Wave wave, Policy::Completion completion) {
  {
    const std::lock_guard lock(mutex_);
    jobs_.push_back({std::move(wave), std::move(completion)});
  }
  wake_.notify_one();
}

void WaveWorker::Work() {
  for (;;) {
    Job job;
    {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [this] { return stopping_ || !jobs_.empty(); });
      if (jobs_.empty()) return;
      job = std::move(jobs_.front());
      jobs_.pop_front();
    }
    job.completion(Run(std::move(job.wave)));
  }
}

WaveResult WaveWorker::Run(Wave wave) {
  WaveResult result;
  result.row_status.resize(std::max(wave.shape.rows, 0));
  HeapSlot* slot = dynamic_cast<HeapSlot*>(wave.slot.get());
  result.slot = std::move(wave.slot);
  absl::Status status = CheckWave(slot, wave.shape);
  if (status.ok() && !healthy_) status = DeviceFault("after an earlier fault");
  if (!status.ok()) {
    FailWave(status, slot, result);
    return result;
  }
  try {
    RunRows(*slot, wave.shape, result);
  } catch (const std::exception& e) {
    healthy_ = false;
    FailWave(DeviceFault(e.what()), slot, result);
  }
  return result;
}

absl::Status WaveWorker::CheckWave(const HeapSlot* slot,
                                   const WaveShape& shape) const {
  if (slot == nullptr) {
    return absl::InvalidArgumentError("wave: its slot is not this policy's");
  }
  if (shape.rows < 1 || shape.rows > slot->capacity()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "wave: got ", shape.rows, " rows, want 1 to ", slot->capacity()));
  }
  if (shape.steps < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("wave: got ", shape.steps, " steps, want at least 1"));
  }
  return absl::OkStatus();
}

void WaveWorker::RunRows(HeapSlot& slot, const WaveShape& shape,
                         WaveResult& result) {
  RowTimes total;
  for (int i = 0; i < shape.rows; ++i) {
    const SlotRow row = slot.row(i);
    absl::Status& status = result.row_status[i];
    status = CheckRow(variant_, row);
    if (status.ok()) {
      const RowTimes times = run_row_(row, shape.steps, slot.actions(i));
      total.vision += times.vision;
      total.prefill += times.prefill;
      total.denoise += times.denoise;
      ++result.graph_rows;
      status = CheckFinite(row.actions);
    }
    if (!status.ok()) Withhold(slot.actions(i));
  }
  result.stages = {{"vision", total.vision},
                   {"prefill", total.prefill},
                   {"denoise", total.denoise}};
}

}  // namespace piserve::reference
