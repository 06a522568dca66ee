// SPDX-License-Identifier: Apache-2.0
// A robot's wall clock is set back, as when it first hears from a time server.
#include <gtest/gtest.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <utility>
#include <vector>

#include "absl/synchronization/notification.h"
#include "clients/cpp/load/load_run.h"
#include "clients/cpp/piserve/latest.h"

namespace {

// By how much this process reads the wall clock ahead of the kernel. To who
// waits until a time that he read, that is a clock that was set back.
std::atomic<int> ahead_s{0};

}  // namespace

// In place of libc's, for every library of this process.
extern "C" int clock_gettime(clockid_t clock, timespec* time) noexcept {
  const long failed = syscall(SYS_clock_gettime, clock, time);
  if (clock == CLOCK_REALTIME) time->tv_sec += ahead_s;
  return static_cast<int>(failed);
}

extern "C" int gettimeofday(timeval* time, void*) noexcept {
  timespec now;
  const int failed = clock_gettime(CLOCK_REALTIME, &now);
  time->tv_sec = now.tv_sec;
  time->tv_usec = now.tv_nsec / 1000;
  return failed;
}

namespace piserve::client {
namespace {

using std::chrono::steady_clock;

constexpr int kSetBackS = 10;
// Far below the step, far above any wait of these tests.
constexpr std::chrono::seconds kMuchLess(5);

class WallClock : public ::testing::Test {
 protected:
  WallClock() { ahead_s = kSetBackS; }
  ~WallClock() override { ahead_s = 0; }

  std::chrono::nanoseconds elapsed() const {
    return steady_clock::now() - start_;
  }

 private:
  const steady_clock::time_point start_ = steady_clock::now();
};

TEST_F(WallClock, AControlLoopThatWaitsForAChunkGoesOn) {
  const auto latest = *LatestOnly::Create(
      [](const ObservationIn&, const CallOptions&) { return ActionChunk(); },
      {.max_age = absl::Seconds(60)});
  EXPECT_FALSE((*latest->Newest(absl::Milliseconds(20))).has_value());
  EXPECT_LT(elapsed(), kMuchLess);
}

TEST_F(WallClock, TheRequesterAsksAgainAfterItsPause) {
  absl::Notification refused;
  const auto latest = *LatestOnly::Create(
      [&](const ObservationIn&,
          const CallOptions&) -> absl::StatusOr<ActionChunk> {
        if (refused.HasBeenNotified()) return ActionChunk();
        refused.Notify();
        return absl::UnavailableError("lost");
      },
      {.max_age = absl::Seconds(60)});
  ASSERT_TRUE(latest->Observe({}).ok());
  refused.WaitForNotification();
  ASSERT_TRUE(latest->Observe({}).ok());
  bool answered = false;
  while (!answered && elapsed() < kMuchLess) {
    const auto chunk = latest->Newest();
    answered = chunk.ok() && chunk->has_value();
  }
  EXPECT_TRUE(answered);
}

class AnswersAtOnce final : public load::Transport {
 public:
  void Send(const ObservationIn&, absl::Duration, Done done) override {
    done(ActionChunk());
  }
};

TEST_F(WallClock, ALoadIsSentOnTime) {
  std::vector<std::unique_ptr<load::Transport>> transports;
  transports.push_back(std::make_unique<AnswersAtOnce>());
  load::LoadRun run({.schedule = {.robots = 1,
                                  .period = absl::Milliseconds(20),
                                  .end = absl::Milliseconds(40)}},
                    std::move(transports), {ObservationIn()}, nullptr);
  EXPECT_EQ(run.Run().samples.size(), 2u);
  EXPECT_LT(elapsed(), kMuchLess);
}

}  // namespace
}  // namespace piserve::client
