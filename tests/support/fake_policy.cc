// SPDX-License-Identifier: Apache-2.0
#include "tests/support/fake_policy.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "model/error.h"
#include "tests/support/row_hash.h"

namespace piserve::testing {
namespace {

Capabilities CapabilitiesOf(const FakePolicy::Options& options) {
  Capabilities c;
  c.variant = options.variant;
  c.backend = "fake";
  c.precision = "float32";
  c.batch_sizes = options.batch_sizes;
  c.step_counts = options.step_counts;
  c.slots_in_flight = options.slots_in_flight;
  return c;
}

}  // namespace

// Memory of rows, kept for the next slot as a real policy keeps its own.
class FakePolicy::RowPool {
 public:
  struct Row {
    std::vector<std::uint8_t> pixels;
    std::vector<std::uint8_t> mask;
    std::vector<std::int32_t> tokens;
    std::int32_t token_count = 0;
    std::vector<float> state;
    std::vector<float> noise;
    std::vector<float> actions;
  };
  using RowPtr = std::unique_ptr<Row>;

  explicit RowPool(const Variant& variant) : variant_(variant) {}

  RowPtr Take() {
    {
      batching::MutexLock lock(mutex_);
      if (!free_.empty()) {
        RowPtr row = std::move(free_.back());
        free_.pop_back();
        return row;
      }
    }
    const Variant& v = variant_;
    auto row = std::make_unique<Row>();
    row->pixels.resize(Variant::kCameras * v.vision.image * v.vision.image * 3);
    row->mask.resize(Variant::kCameras);
    row->tokens.resize(v.max_token_len);
    row->state.resize(v.action_dim);
    row->noise.resize(v.action_horizon * v.action_dim);
    row->actions.resize(row->noise.size());
    return row;
  }

  void Return(RowPtr row) {
    batching::MutexLock lock(mutex_);
    free_.push_back(std::move(row));
  }

  std::atomic<int> slots_out = 0;

 private:
  const Variant variant_;
  batching::Mutex mutex_;
  std::vector<RowPtr> free_ ABSL_GUARDED_BY(mutex_);
};

class FakePolicy::MemorySlot : public Slot {
 public:
  MemorySlot(int rows, std::shared_ptr<RowPool> pool) : pool_(std::move(pool)) {
    for (int i = 0; i < rows; ++i) {
      rows_.push_back(pool_->Take());
      std::ranges::fill(rows_.back()->actions, 0.0f);
    }
  }
  ~MemorySlot() override {
    for (auto& row : rows_) pool_->Return(std::move(row));
    --pool_->slots_out;
  }

  int capacity() const override { return static_cast<int>(rows_.size()); }
  SlotRow row(int index) override {
    RowPool::Row& r = *rows_[index];
    return {r.pixels, r.mask,  r.tokens, &r.token_count,
            r.state,  r.noise, r.actions};
  }
  std::span<float> actions(int index) { return rows_[index]->actions; }

 private:
  const std::shared_ptr<RowPool> pool_;
  std::vector<RowPool::RowPtr> rows_;
};

FakePolicy::Options FakePolicy::NoOp(const Variant& variant) {
  Options options;
  options.variant = variant;
  return options;
}

FakePolicy::Options FakePolicy::Hash(const Variant& variant) {
  Options options;
  options.variant = variant;
  options.duration = [](int rows) {
    return absl::Milliseconds(6) + rows * absl::Microseconds(500);
  };
  options.act = [dim = variant.action_dim](const SlotRow& row,
                                           std::span<float> actions) {
    WriteHashActions(DigestOf(row), dim, actions);
    return absl::OkStatus();
  };
  return options;
}

FakePolicy::Options FakePolicy::Blind(const Variant& variant) {
  Options options = Hash(variant);
  options.act = [dim = variant.action_dim](const SlotRow& row,
                                           std::span<float> actions) {
    WriteHashActions(BlindDigestOf(row), dim, actions);
    return absl::OkStatus();
  };
  return options;
}

FakePolicy::FakePolicy(Options options)
    : options_(std::move(options)),
      capabilities_(CapabilitiesOf(options_)),
      pool_(std::make_shared<RowPool>(options_.variant)),
      thread_([this] { Work(); }) {}

FakePolicy::~FakePolicy() {
  {
    batching::MutexLock lock(mutex_);
    stopping_ = true;
    hanging_ = false;
    changed_.NotifyAll();
  }
  thread_.join();
}

int FakePolicy::SizeFor(int rows) const {
  const std::vector<int>& sizes = options_.batch_sizes;
  const auto size = std::lower_bound(sizes.begin(), sizes.end(), rows);
  return size == sizes.end() ? sizes.back() : *size;
}

absl::Duration FakePolicy::PredictDuration(const WaveShape& shape) const {
  const auto& predicted = options_.predicted;
  return (predicted ? predicted : options_.duration)(SizeFor(shape.rows));
}

absl::StatusOr<std::unique_ptr<Slot>> FakePolicy::AcquireSlot(int rows) {
  if (rows < 1 || rows > capabilities_.max_rows()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "slot of ", rows, " rows, want 1 to ", capabilities_.max_rows()));
  }
  if (++pool_->slots_out > options_.slots_in_flight) {
    --pool_->slots_out;
    return absl::ResourceExhaustedError("all slots are out");
  }
  return std::make_unique<MemorySlot>(rows, pool_);
}

void FakePolicy::Submit(Wave wave, Completion completion) {
  batching::MutexLock lock(mutex_);
  jobs_.push_back({std::move(wave), std::move(completion)});
  changed_.NotifyAll();
}

void FakePolicy::Hang() {
  batching::MutexLock lock(mutex_);
  hanging_ = true;
}

void FakePolicy::Release() {
  batching::MutexLock lock(mutex_);
  hanging_ = false;
  changed_.NotifyAll();
}

void FakePolicy::Work() {
  for (;;) {
    Job job;
    {
      batching::MutexLock lock(mutex_);
      while (jobs_.empty() && !stopping_) changed_.Wait(mutex_);
      if (jobs_.empty()) return;
      job = std::move(jobs_.front());
      jobs_.pop_front();
    }
    RunWave(std::move(job));
  }
}

void FakePolicy::WaitWhileHanging() {
  batching::MutexLock lock(mutex_);
  while (hanging_) changed_.Wait(mutex_);
}

void FakePolicy::RunWave(Job job) {
  const absl::Duration duration =
      options_.duration(SizeFor(job.wave.shape.rows));
  const auto end =
      std::chrono::steady_clock::now() + absl::ToChronoNanoseconds(duration);
  auto& slot = static_cast<MemorySlot&>(*job.wave.slot);
  if (waves_ >= options_.waves_before_fault.value_or(waves_ + 1)) Break();
  WaveResult result;
  for (int i = 0; i < job.wave.shape.rows; ++i) {
    absl::Status status = absl::OkStatus();
    if (!healthy_) {
      status = WithReason(absl::InternalError("device fault"), "DEVICE_FAULT");
    } else if (options_.act != nullptr) {
      status = options_.act(slot.row(i), slot.actions(i));
    }
    result.row_status.push_back(std::move(status));
  }
  std::this_thread::sleep_until(end);
  WaitWhileHanging();
  ++waves_;
  rows_ += job.wave.shape.rows;
  result.graph_rows = SizeFor(job.wave.shape.rows);
  for (const auto& [stage, part] : options_.stages) {
    result.stages.push_back({stage, part * duration});
  }
  result.slot = std::move(job.wave.slot);
  job.completion(std::move(result));
}

}  // namespace piserve::testing
