// SPDX-License-Identifier: Apache-2.0
#include "batching/batch_runner.h"

#include <algorithm>
#include <cassert>

namespace piserve::batching {

void BatchRunner::Begin(const LaunchedWave& wave, absl::Time now) {
  running_.push_back({wave, now});
}

EndedWave BatchRunner::End(std::uint64_t id, absl::Time at) {
  const auto it = std::find_if(
      running_.begin(), running_.end(),
      [&](const Running& running) { return running.wave.id == id; });
  assert(it != running_.end());
  const EndedWave ended{it->wave, at - it->since};
  const bool was_first = it == running_.begin();
  const auto next = running_.erase(it);
  // The device goes on to the next.
  if (was_first && next != running_.end()) next->since = at;
  return ended;
}

ExecutorState BatchRunner::State(absl::Time now) const {
  ExecutorState state{executor_, static_cast<int>(running_.size()), now, {}};
  for (std::size_t i = 0; i < running_.size(); ++i) {
    const absl::Duration predicted = running_[i].wave.predicted;
    // A wave that is overdue is taken to end any moment.
    state.free_at = i == 0 ? std::max(now, running_[i].since + predicted)
                           : state.free_at + predicted;
    state.last_wave = predicted;
  }
  return state;
}

std::size_t BatchRunner::bytes() const {
  std::size_t bytes = 0;
  for (const Running& running : running_) bytes += running.wave.bytes;
  return bytes;
}

}  // namespace piserve::batching
