// SPDX-License-Identifier: Apache-2.0
#include "clients/cpp/piserve/latest.h"

#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "clients/cpp/piserve/retry.h"
#include "clients/cpp/piserve/status.h"

namespace piserve::client {

absl::StatusOr<std::unique_ptr<LatestOnly>> LatestOnly::Create(
    InferFn infer, Options options) {
  if (options.max_age <= absl::ZeroDuration() ||
      options.max_age == absl::InfiniteDuration()) {
    return absl::InvalidArgumentError(
        absl::StrCat("max_age: got ", absl::FormatDuration(options.max_age),
                     ", want a finite time above 0"));
  }
  if (options.in_flight < 1) {
    return absl::InvalidArgumentError(absl::StrCat(
        "in_flight: got ", options.in_flight, ", want at least 1"));
  }
  return absl::WrapUnique(new LatestOnly(std::move(infer), options));
}

LatestOnly::LatestOnly(InferFn infer, Options options)
    : infer_(std::move(infer)), options_(options) {
  for (int i = 0; i < options_.in_flight; ++i) {
    threads_.emplace_back([this] { Work(); });
  }
}

LatestOnly::~LatestOnly() {
  {
    std::lock_guard lock(mutex_);
    closed_ = true;
    waiting_.reset();
  }
  changed_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

absl::Status LatestOnly::Observe(ObservationIn observation) {
  std::lock_guard lock(mutex_);
  const Clock::TimePoint now = options_.clock->Now();
  const Clock::TimePoint captured = observation.captured_at.value_or(now);
  if (captured > now) {
    return InvalidObservation(
        "captured_at",
        absl::StrCat("got ",
                     absl::FormatDuration(absl::FromChrono(captured - now)),
                     " after now"));
  }
  if (newest_capture_.has_value() && captured < *newest_capture_) {
    return absl::OkStatus();
  }
  newest_capture_ = observation.captured_at = captured;
  waiting_ = {.number = ++given_, .observation = std::move(observation)};
  changed_.notify_all();
  return absl::OkStatus();
}

absl::StatusOr<std::optional<LatestChunk>> LatestOnly::Newest(
    absl::Duration timeout) {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, Bounded(timeout),
                    [this] { return HasFreshChunk() || !error_.ok(); });
  std::optional<LatestChunk> chunk = TakeChunk();
  if (chunk.has_value() || error_.ok()) return chunk;
  return std::exchange(error_, absl::OkStatus());
}

absl::Duration LatestOnly::AgeOf(const Filed& filed) const {
  return absl::FromChrono(options_.clock->Now() - filed.captured_at);
}

bool LatestOnly::HasFreshChunk() const {
  return chunk_.has_value() && AgeOf(*chunk_) <= options_.max_age;
}

std::optional<LatestChunk> LatestOnly::TakeChunk() {
  if (!chunk_.has_value()) return std::nullopt;
  const std::optional<Filed> filed = std::exchange(chunk_, std::nullopt);
  const absl::Duration age = AgeOf(*filed);
  if (age > options_.max_age) return std::nullopt;
  handed_ = filed->number;
  return LatestChunk{
      .chunk = filed->chunk, .captured_at = filed->captured_at, .age = age};
}

void LatestOnly::Reset() {
  std::lock_guard lock(mutex_);
  waiting_.reset();
  chunk_.reset();
  error_ = absl::OkStatus();
  handed_ = given_;
}

void LatestOnly::Work() {
  while (const std::optional<Numbered> asked = TakeObservation()) {
    absl::StatusOr<ActionChunk> answer = Ask(asked->observation);
    const absl::Status status = answer.status();
    File(*asked, std::move(answer));
    PauseAfter(status);
  }
}

std::optional<LatestOnly::Numbered> LatestOnly::TakeObservation() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return closed_ || waiting_.has_value(); });
  if (waiting_.has_value()) sent_ = waiting_->number;
  return std::exchange(waiting_, std::nullopt);
}

absl::StatusOr<ActionChunk> LatestOnly::Ask(const ObservationIn& observation) {
  const absl::Duration age =
      absl::FromChrono(options_.clock->Now() - *observation.captured_at);
  if (age >= options_.max_age) {
    return WithReason(
        absl::AbortedError(absl::StrCat(
            "observation: got one that was ", absl::FormatDuration(age),
            " old before it could be sent, want less than ",
            absl::FormatDuration(options_.max_age))),
        kReasonTooOldAtClient);
  }
  return infer_(observation,
                {.timeout = options_.max_age - age, .attempts = 1});
}

void LatestOnly::File(const Numbered& asked,
                      absl::StatusOr<ActionChunk> answer) {
  std::lock_guard lock(mutex_);
  if (asked.number <= handed_) return;
  if (!answer.ok()) {
    // Of an older one nothing is told: what becomes of the newer one will be.
    if (asked.number == sent_) {
      error_ = answer.status();
      error_number_ = asked.number;
      changed_.notify_all();
    }
    return;
  }
  if (chunk_.has_value() && chunk_->number > asked.number) return;
  chunk_ = {.number = asked.number,
            .captured_at = *asked.observation.captured_at,
            .chunk = *std::move(answer)};
  if (error_number_ <= asked.number) error_ = absl::OkStatus();
  changed_.notify_all();
}

void LatestOnly::PauseAfter(const absl::Status& status) {
  if (status.ok()) return;
  const std::optional<absl::Duration> delay =
      RetryDelay(status, std::nullopt, absl::InfiniteDuration());
  if (!delay.has_value()) return;
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, Bounded(*delay), [this] { return closed_; });
}

}  // namespace piserve::client
