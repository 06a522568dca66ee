// SPDX-License-Identifier: Apache-2.0
#include "clients/cpp/load/load_run.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace piserve::load {
namespace {

// Beyond the last deadline, for answers on their way.
constexpr absl::Duration kGrace = absl::Seconds(5);

}  // namespace

LoadRun::LoadRun(const Options& options,
                 std::vector<std::unique_ptr<Transport>> transports,
                 std::vector<client::ObservationIn> observations,
                 Verifier* verifier)
    : options_(options),
      transports_(std::move(transports)),
      observations_(std::move(observations)),
      verifier_(verifier),
      schedule_(options.schedule) {}

absl::Duration LoadRun::Now() const {
  return absl::FromChrono(clock_.Now() - start_);
}

LoadResult LoadRun::Run() {
  Schedule::Send send;
  while (TakeNext(&send)) SendOne(send);
  WaitForAnswers();
  std::uint64_t dropped = 0;
  for (const auto& transport : transports_) {
    dropped += transport->dropped_replies();
  }
  transports_.clear();
  std::lock_guard lock(mutex_);
  result_.dropped = dropped;
  return std::move(result_);
}

bool LoadRun::TakeNext(Schedule::Send* send) {
  std::unique_lock lock(mutex_);
  const auto may_go_on = [this] {
    return in_flight_ < options_.max_in_flight &&
           (schedule_.NextTime().has_value() || in_flight_ == 0);
  };
  for (;;) {
    changed_.wait(lock, may_go_on);
    const std::optional<absl::Duration> next = schedule_.NextTime();
    if (!next.has_value()) return false;
    const absl::Duration left = *next - Now();
    if (left <= absl::ZeroDuration()) break;
    // An answer may bring an earlier send.
    changed_.wait_for(lock, client::Bounded(left),
                      [&] { return schedule_.NextTime() < next; });
  }
  *send = schedule_.Pop();
  ++in_flight_;
  ++result_.sent;
  return true;
}

void LoadRun::SendOne(const Schedule::Send& send) {
  client::ObservationIn& observation = observations_[send.robot];
  observation.robot_id = absl::StrCat("robot-", send.robot);
  observation.request_id = absl::StrCat("r", send.robot, "-", send.sequence);
  observation.sequence = send.sequence;
  Expectation expectation;
  if (verifier_ != nullptr) {
    expectation = verifier_->Prepare(send.robot, send.sequence, &observation);
  }
  Sample sample;
  sample.robot = send.robot;
  sample.intended = send.time;
  sample.sent = Now();
  transports_[send.robot]->Send(
      observation, options_.timeout,
      [this, sample, expectation = std::move(expectation)](
          const absl::StatusOr<client::ActionChunk>& answer) {
        Record(sample, expectation, answer);
      });
}

void LoadRun::Record(Sample sample, const Expectation& expectation,
                     const absl::StatusOr<client::ActionChunk>& answer) {
  sample.answered = Now();
  sample.status = answer.status();
  const bool right =
      answer.ok() && expectation != nullptr && expectation(*answer);
  std::lock_guard lock(mutex_);
  if (answer.ok()) {
    sample.wave_rows = answer->wave_rows;
    sample.graph_rows = answer->graph_rows;
    if (sample.intended >= options_.warmup) {
      for (const auto& [stage, duration] : answer->stages) {
        result_.stage_ms[stage].push_back(absl::ToDoubleMilliseconds(duration));
      }
    }
    if (expectation != nullptr) ++(right ? result_.right : result_.wrong);
  }
  result_.wall = std::max(result_.wall, sample.answered);
  schedule_.Answered(sample.robot, sample.answered);
  result_.samples.push_back(std::move(sample));
  --in_flight_;
  changed_.notify_all();
}

void LoadRun::WaitForAnswers() {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, client::Bounded(options_.timeout + kGrace),
                    [this] { return in_flight_ == 0; });
  result_.lost = in_flight_;
}

}  // namespace piserve::load
