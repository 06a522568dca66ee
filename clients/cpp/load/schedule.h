// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <queue>
#include <vector>

#include "absl/time/time.h"

namespace piserve::load {

// An open loop sends at its times whatever the answers do; in a closed one a
// robot waits for its answer before it sends again.
enum class Loop { kOpen, kClosed };

// When which robot means to send. Times are since the start of the run.
//
// Robots start spread evenly over one period. An open loop's times are fixed by
// that alone. In a closed loop a robot's next time is one period after its last
// one or its answer, whichever is later; a period of 0 sends as fast as answers
// come. Latency is to be measured from these times, not from when the sender
// got around to them: otherwise a stall would hide the requests that it held
// up.
//
// Not thread-safe.
class Schedule {
 public:
  struct Options {
    int robots = 1;
    absl::Duration period;  // between a robot's sends; > 0 in an open loop
    absl::Duration end;     // nothing is sent from here on
    Loop loop = Loop::kOpen;
  };

  struct Send {
    absl::Duration time;
    int robot = 0;
    std::uint64_t sequence = 0;  // of the robot, from 0
  };

  explicit Schedule(const Options& options);

  // When the next send is due. Nothing if none is left, or none before an
  // answer comes.
  std::optional<absl::Duration> NextTime() const;

  // Takes the next send. NextTime() must have a value.
  Send Pop();

  // The robot's request got its answer, whatever it was.
  void Answered(int robot, absl::Duration now);

 private:
  struct Later {
    bool operator()(const Send& a, const Send& b) const {
      return a.time != b.time ? a.time > b.time : a.robot > b.robot;
    }
  };

  void Push(Send send);

  const Options options_;
  std::priority_queue<Send, std::vector<Send>, Later> due_;
  std::vector<Send> last_;  // of each robot
};

}  // namespace piserve::load
