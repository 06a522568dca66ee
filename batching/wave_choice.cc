// SPDX-License-Identifier: Apache-2.0
#include "batching/wave_choice.h"

#include <algorithm>
#include <array>
#include <utility>

#include "batching/wave_cost.h"

namespace piserve::batching {
namespace {

constexpr WaveCost kNoRows{0, 0, 0, 0};

// Tasks that would miss their deadlines, by class, the most important first.
using Misses = std::array<int, 3>;

class Chooser {
 public:
  explicit Chooser(const WaveQuestion& question) : q_(question) {
    FindHopeful();
  }

  std::optional<WaveChoice> Choose() const {
    std::vector<std::pair<Misses, WaveChoice>> candidates;
    int smaller = 0;
    for (int size : q_.executor.sizes()) {
      WaveChoice choice = Fill(size);
      const int rows = static_cast<int>(choice.tasks.size());
      // A wave that fits a smaller graph was a candidate there.
      if (rows > smaller) {
        Misses misses = CountMisses(choice);
        candidates.emplace_back(misses, std::move(choice));
      }
      smaller = size;
    }
    if (candidates.empty()) return std::nullopt;
    WaveChoice chosen = Cheapest(std::move(candidates));
    AddBulk(chosen);
    return chosen;
  }

 private:
  const TaskTraits& Task(int position) const { return *q_.waiting[position]; }
  bool InGroup(int position) const {
    return Task(position).compatibility == q_.compatibility;
  }

  // Tasks this executor could answer in time if it took them first.
  void FindHopeful() {
    const int smallest = q_.executor.sizes().front();
    for (int position : q_.order) {
      const TaskTraits& task = Task(position);
      if (!InGroup(position) && !q_.executor.Serves(task.compatibility)) {
        continue;
      }
      const absl::Duration time = TimeOf(q_.executor, CostOf(task), smallest);
      if (q_.start + time > task.deadline) continue;
      hopeful_.push_back(position);
      cost_ = Max(cost_, CostOf(task));
      if (!InGroup(position)) continue;
      ++(task.priority == Class::kBulk ? bulk_ : urgent_);
    }
    usual_ = EfficientSize(q_.executor, cost_, q_.slack);
    for (int size : q_.executor.sizes()) {
      times_.push_back(TimeOf(q_.executor, cost_, size));
    }
  }

  // Bulk tasks make a wave of their own only where nothing else waits.
  bool Sizes(int position) const {
    return InGroup(position) &&
           (urgent_ == 0 || Task(position).priority != Class::kBulk);
  }

  // The first tasks, up to `size`, that all meet their deadlines together.
  WaveChoice Fill(int size) const {
    const int all = urgent_ > 0 ? urgent_ : bulk_;
    const int most = std::min(size, (all + q_.shares - 1) / q_.shares);
    WaveChoice wave;
    wave.size = size;
    wave.cost = kNoRows;
    absl::Time first_deadline = absl::InfiniteFuture();
    for (int position : hopeful_) {
      if (static_cast<int>(wave.tasks.size()) == most) break;
      if (!Sizes(position)) continue;
      const TaskTraits& task = Task(position);
      const WaveCost cost = Max(wave.cost, CostOf(task));
      const absl::Duration time = TimeOf(q_.executor, cost, size);
      if (q_.start + time > std::min(first_deadline, task.deadline)) continue;
      wave.tasks.push_back(position);
      wave.cost = cost;
      wave.predicted = time;
      first_deadline = std::min(first_deadline, task.deadline);
    }
    return wave;
  }

  absl::Duration UsualTime(int rows) const {
    const std::vector<int>& sizes = q_.executor.sizes();
    std::size_t i = 0;
    while (i + 1 < sizes.size() && sizes[i] < rows) ++i;
    return times_[i];
  }

  // What becomes of the others if this wave goes first: they follow in waves of
  // the efficient size, whatever their compatibility.
  Misses CountMisses(const WaveChoice& wave) const {
    std::vector<int> rest;
    rest.reserve(hopeful_.size());
    auto next = wave.tasks.begin();  // in the order of hopeful_
    for (int position : hopeful_) {
      if (next != wave.tasks.end() && *next == position) {
        ++next;
      } else {
        rest.push_back(position);
      }
    }
    Misses misses{};
    absl::Time finish = q_.start + wave.predicted;
    for (std::size_t i = 0; i < rest.size(); ++i) {
      if (i % usual_ == 0) {
        finish +=
            UsualTime(std::min(usual_, static_cast<int>(rest.size() - i)));
      }
      const TaskTraits& task = Task(rest[i]);
      if (finish > task.deadline) ++misses[static_cast<int>(task.priority)];
    }
    return misses;
  }

  WaveChoice Cheapest(
      std::vector<std::pair<Misses, WaveChoice>> candidates) const {
    const auto per_row = [](const WaveChoice& wave) {
      return TimePerRow(wave.predicted, static_cast<int>(wave.tasks.size()));
    };
    Misses fewest = candidates.front().first;
    for (const auto& [misses, wave] : candidates) {
      fewest = std::min(fewest, misses);
    }
    absl::Duration best = absl::InfiniteDuration();
    for (const auto& [misses, wave] : candidates) {
      if (misses == fewest) best = std::min(best, per_row(wave));
    }
    for (auto& [misses, wave] : candidates) {
      if (misses == fewest && per_row(wave) <= best * (1 + q_.slack)) {
        return std::move(wave);
      }
    }
    return std::move(candidates.back().second);
  }

  // Spare rows go to bulk tasks that cost the others nothing.
  void AddBulk(WaveChoice& wave) const {
    if (urgent_ == 0 || bulk_ == 0) return;
    for (int position : hopeful_) {
      if (static_cast<int>(wave.tasks.size()) == wave.size) return;
      const TaskTraits& task = Task(position);
      if (!InGroup(position) || task.priority != Class::kBulk) continue;
      const WaveCost cost = Max(wave.cost, CostOf(task));
      if (TimeOf(q_.executor, cost, wave.size) > wave.predicted) continue;
      if (q_.start + wave.predicted > task.deadline) continue;
      wave.tasks.push_back(position);
    }
  }

  const WaveQuestion& q_;
  std::vector<int> hopeful_;  // in serving order
  int urgent_ = 0;            // hopeful tasks of the group, bulk apart
  int bulk_ = 0;
  WaveCost cost_ = kNoRows;            // maxima over the hopeful tasks
  int usual_ = 1;                      // efficient size
  std::vector<absl::Duration> times_;  // of each size at cost_
};

}  // namespace

std::optional<WaveChoice> ChooseWave(const WaveQuestion& question) {
  return Chooser(question).Choose();
}

}  // namespace piserve::batching
