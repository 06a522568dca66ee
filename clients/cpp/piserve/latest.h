// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "clients/cpp/piserve/clock.h"
#include "clients/cpp/piserve/observation.h"

namespace piserve::client {

// A chunk as it is handed out.
struct LatestChunk {
  ActionChunk chunk;
  Clock::TimePoint captured_at;  // of its observation
  absl::Duration age;            // from then until now; <= max_age
};

// Chunks for a control loop that must not wait: a requester in the background
// sends the newest observation and hands out the newest chunk. Thread-safe.
//
// An observation that waits is replaced by a newer one. A refused one is not
// sent again; a newer one is, after the pause that the server asks for. Chunks
// are handed out once each, in the order of their observations: one whose
// observation is older than the last that was handed out is dropped, whenever
// it comes.
class LatestOnly {
 public:
  // PolicyClient::Infer, or what answers like it. Called on threads of
  // LatestOnly's own; must return by the timeout it is given.
  using InferFn = std::function<absl::StatusOr<ActionChunk>(
      const ObservationIn&, const CallOptions&)>;

  struct Options {
    // A chunk whose observation is older is never handed out, and an
    // observation that grew older is not sent. Also the deadline of every
    // request, counted from its observation's capture.
    absl::Duration max_age;
    int in_flight = 1;                // requests under way at a time
    Clock* clock = &Clock::Steady();  // not owned
  };

  // INVALID_ARGUMENT if max_age is no finite time above 0, or in_flight < 1.
  static absl::StatusOr<std::unique_ptr<LatestOnly>> Create(InferFn infer,
                                                            Options options);
  // Waits for requests under way, max_age at most.
  ~LatestOnly();
  LatestOnly(const LatestOnly&) = delete;
  LatestOnly& operator=(const LatestOnly&) = delete;

  // Gives the newest observation, in place of one that still waits. Never
  // blocks. Without captured_at it was captured now; one captured before one
  // that was given already is dropped. INVALID_ARGUMENT if it was captured in
  // the future.
  absl::Status Observe(ObservationIn observation);

  // The newest chunk that was not handed out yet, waiting up to `timeout` for
  // one. Where there is none: the error of the latest request, once, or
  // nothing.
  absl::StatusOr<std::optional<LatestChunk>> Newest(
      absl::Duration timeout = absl::ZeroDuration());

  // Starts an episode: no chunk of an earlier observation comes after.
  void Reset();

 private:
  struct Numbered {
    std::uint64_t number = 0;  // rises with captured_at
    ObservationIn observation;
  };
  struct Filed {
    std::uint64_t number = 0;
    Clock::TimePoint captured_at;
    ActionChunk chunk;
  };

  LatestOnly(InferFn infer, Options options);

  void Work();
  std::optional<Numbered> TakeObservation();
  absl::StatusOr<ActionChunk> Ask(const ObservationIn& observation);
  void File(const Numbered& asked, absl::StatusOr<ActionChunk> answer);
  void PauseAfter(const absl::Status& status);
  std::optional<LatestChunk> TakeChunk();  // mutex_ is held
  bool HasFreshChunk() const;              // mutex_ is held
  absl::Duration AgeOf(const Filed& filed) const;

  const InferFn infer_;
  const Options options_;
  // Not absl::Mutex: its waits end by the wall clock, which may be set back.
  std::mutex mutex_;  // guards what follows, but for threads_
  std::optional<Numbered> waiting_;
  // Numbers of observations: the newest given, sent, handed out as a chunk.
  std::uint64_t given_ = 0;
  std::uint64_t sent_ = 0;
  std::uint64_t handed_ = 0;
  std::optional<Clock::TimePoint> newest_capture_;
  std::optional<Filed> chunk_;
  absl::Status error_;
  std::uint64_t error_number_ = 0;  // its observation's
  bool closed_ = false;
  std::condition_variable changed_;
  std::vector<std::thread> threads_;
};

}  // namespace piserve::client
