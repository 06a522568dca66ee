// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "clients/cpp/load/schedule.h"
#include "clients/cpp/load/transport.h"
#include "clients/cpp/load/verifier.h"
#include "clients/cpp/piserve/clock.h"
#include "clients/cpp/piserve/observation.h"

namespace piserve::load {

// One request and how it ended. Times are since the start of the run.
struct Sample {
  int robot = 0;
  absl::Duration intended;  // to be sent
  absl::Duration sent;      // really
  absl::Duration answered;
  absl::Status status;
  int wave_rows = 0;   // 0 where not OK
  int graph_rows = 0;  // 0 where not OK

  // What the robot waited, stalls of the generator and the server included.
  absl::Duration latency() const { return answered - intended; }
};

struct LoadResult {
  std::vector<Sample> samples;  // in order of their answers
  // Of OK answers to what was meant to be sent after the warm-up, by stage.
  std::map<std::string, std::vector<double>> stage_ms;
  absl::Duration wall;  // to the last answer
  std::uint64_t sent = 0;
  std::uint64_t lost = 0;     // never answered, not even by a deadline
  std::uint64_t dropped = 0;  // answers that nobody waited for any more
  std::uint64_t right = 0;    // OK answers that were verified
  std::uint64_t wrong = 0;
};

// Sends observations as the schedule says and collects the answers. Use once.
class LoadRun {
 public:
  struct Options {
    Schedule::Options schedule;
    absl::Duration warmup = absl::ZeroDuration();  // at the schedule's start
    absl::Duration timeout = absl::Seconds(5);
    // The sender waits at this many unanswered requests, so that an overload
    // does not eat this machine's memory; the wait counts as latency.
    int max_in_flight = 512;
  };

  // One transport and one observation for each robot. `verifier` may be null;
  // it must outlive the run.
  LoadRun(const Options& options,
          std::vector<std::unique_ptr<Transport>> transports,
          std::vector<client::ObservationIn> observations, Verifier* verifier);

  // Blocks until the last answer.
  LoadResult Run();

 private:
  absl::Duration Now() const;
  // Waits until a send is due and takes it; nothing when all is sent.
  bool TakeNext(Schedule::Send* send);
  void SendOne(const Schedule::Send& send);
  void Record(Sample sample, const Expectation& expectation,
              const absl::StatusOr<client::ActionChunk>& answer);
  void WaitForAnswers();

  const Options options_;
  std::vector<std::unique_ptr<Transport>> transports_;
  std::vector<client::ObservationIn> observations_;
  Verifier* const verifier_;
  client::Clock& clock_ = client::Clock::Steady();
  const client::Clock::TimePoint start_ = clock_.Now();

  // Not absl::Mutex: its waits end by the wall clock, which may be set back.
  std::mutex mutex_;  // guards what follows
  std::condition_variable changed_;
  Schedule schedule_;
  int in_flight_ = 0;
  LoadResult result_;
};

}  // namespace piserve::load
