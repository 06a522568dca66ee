// SPDX-License-Identifier: Apache-2.0
#include "server/energy_sampler.h"

#include <cstdlib>
#include <future>
#include <memory>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace piserve::server {
namespace {

using ::testing::ElementsAre;
using ::testing::ExitedWithCode;

// What a sampler tells until it has asked for all of `readings`.
std::vector<double> ToldOf(std::vector<std::optional<double>> readings) {
  std::vector<double> told;
  std::promise<void> asked_for_all;
  {
    std::size_t next = 0;
    const EnergySampler sampler(
        {.energy = [&]() -> std::optional<double> {
           if (next < readings.size()) return readings[next++];
           if (next++ == readings.size()) asked_for_all.set_value();
           return std::nullopt;
         },
         .used = [&](double joules) { told.push_back(joules); },
         .interval = absl::Milliseconds(1),
         .patience = absl::Minutes(1)});
    asked_for_all.get_future().wait();
  }
  return told;
}

// A driver that does not return before it is told to.
class Driver {
 public:
  DeviceFacts::Energy energy() {
    return [state = state_]() -> std::optional<double> {
      state->asked.set_value();
      state->release.get_future().wait();
      return 1;
    };
  }
  void WaitUntilAsked() { state_->asked.get_future().wait(); }
  void Release() { state_->release.set_value(); }
  // Whether nobody may call it any more.
  bool forgotten() const { return state_.use_count() == 1; }

 private:
  struct State {
    std::promise<void> asked, release;
  };
  const std::shared_ptr<State> state_ = std::make_shared<State>();
};

TEST(EnergySamplerTest, TellsWhatWasUsedSinceItsStart) {
  EXPECT_THAT(ToldOf({1000, 1010, 1010, 1040}), ElementsAre(0, 10, 0, 30));
}

TEST(EnergySamplerTest, TellsNothingWhereNothingIsKnown) {
  EXPECT_THAT(ToldOf({std::nullopt, std::nullopt}), ElementsAre());
}

TEST(EnergySamplerTest, AReadingThatFailsLosesNothing) {
  EXPECT_THAT(ToldOf({std::nullopt, 7, std::nullopt, 9}), ElementsAre(0, 2));
}

TEST(EnergySamplerTest, ADriverThatCountsAnewTakesNothingAway) {
  EXPECT_THAT(ToldOf({50, 60, 3, 5}), ElementsAre(0, 10, 0, 2));
}

TEST(EnergySamplerTest, IsGoneWithItsThreadUnlessTheDriverHangs) {
  Driver driver;
  driver.Release();
  {
    const EnergySampler sampler({.energy = driver.energy(),
                                 .used = [](double) {},
                                 .interval = absl::Hours(1),
                                 .patience = absl::Minutes(1)});
    driver.WaitUntilAsked();
  }
  EXPECT_TRUE(driver.forgotten());
}

TEST(EnergySamplerTest, ADriverThatHangsIsLeftAndToldOfNoMore) {
  Driver driver;
  bool told = false;
  {
    const EnergySampler sampler({.energy = driver.energy(),
                                 .used = [&](double) { told = true; },
                                 .patience = absl::Milliseconds(20)});
    driver.WaitUntilAsked();
  }
  driver.Release();  // reached only by who waited for no answer
  while (!driver.forgotten()) std::this_thread::yield();
  EXPECT_FALSE(told);
}

[[noreturn]] void EndWhileTheDriverHangs() {
  Driver& driver = *new Driver;
  {
    const EnergySampler sampler({.energy = driver.energy(),
                                 .used = [](double) {},
                                 .patience = absl::Milliseconds(20)});
    driver.WaitUntilAsked();
  }
  std::exit(3);
}

// Otherwise it would never end.
TEST(EnergySamplerTest, ADriverThatHangsDoesNotKeepTheProcessFromEnding) {
  ::testing::GTEST_FLAG(death_test_style) = "threadsafe";
  EXPECT_EXIT(EndWhileTheDriverHangs(), ExitedWithCode(3), "");
}

}  // namespace
}  // namespace piserve::server
