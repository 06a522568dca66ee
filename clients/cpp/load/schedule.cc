// SPDX-License-Identifier: Apache-2.0
#include "clients/cpp/load/schedule.h"

#include <algorithm>

namespace piserve::load {

Schedule::Schedule(const Options& options)
    : options_(options), last_(options.robots) {
  for (int robot = 0; robot < options.robots; ++robot) {
    Push({.time = options.period * robot / options.robots, .robot = robot});
  }
}

std::optional<absl::Duration> Schedule::NextTime() const {
  if (due_.empty()) return std::nullopt;
  return due_.top().time;
}

Schedule::Send Schedule::Pop() {
  const Send send = due_.top();
  due_.pop();
  last_[send.robot] = send;
  if (options_.loop == Loop::kOpen) {
    Push({.time = send.time + options_.period,
          .robot = send.robot,
          .sequence = send.sequence + 1});
  }
  return send;
}

void Schedule::Answered(int robot, absl::Duration now) {
  if (options_.loop == Loop::kOpen) return;
  const Send& last = last_[robot];
  Push({.time = std::max(last.time + options_.period, now),
        .robot = robot,
        .sequence = last.sequence + 1});
}

void Schedule::Push(Send send) {
  if (send.time < options_.end) due_.push(send);
}

}  // namespace piserve::load
