// SPDX-License-Identifier: Apache-2.0
// Several policies, on one device and on several; devices that fail or hang.
#include <atomic>
#include <future>
#include <memory>
#include <utility>
#include <vector>

#include "tests/server/dispatcher_fixture.h"

namespace piserve::server {
namespace {

class DevicesTest : public DispatcherTest {
 protected:
  // Counts the rows that it has begun with.
  FakePolicy::Options Counted() {
    FakePolicy::Options options = Echo();
    options.act = [this](const SlotRow& row, std::span<float> actions) {
      ++acted_;
      return EchoNoise(row, actions);
    };
    return options;
  }

  std::unique_ptr<Call> Ask(const char* policy) {
    InferenceRequest request = Request();
    request.policy = policy;
    return std::make_unique<Call>(*dispatcher_, std::move(request));
  }

  std::atomic<int> acted_ = 0;
};

TEST_F(DevicesTest, FaultOfOnePolicyLeavesTheOtherServing) {
  FakePolicy& ill = Add("ill", Echo());
  Add("well", Echo());
  Dispatcher& dispatcher = Make();
  ill.Break();
  EXPECT_TRUE(dispatcher.CheckFaults());
  EXPECT_TRUE(dispatcher.Availability().ok());
  EXPECT_EQ(Ask("ill")->Reason(), "DEVICE_FAULT");
  EXPECT_TRUE(Ask("well")->Wait().ok());
}

TEST_F(DevicesTest, FaultOfADeviceTakesOutAllItsPoliciesAndNoOthers) {
  FakePolicy::Options on_gpu = Counted();
  on_gpu.device_facts.emplace();
  FakePolicy& ill = Add("ill", on_gpu);
  FakePolicy& beside = Add("beside", on_gpu);
  Add("elsewhere", Echo());
  Dispatcher& dispatcher = Make();
  beside.Hang();
  const auto running = Ask("beside");
  Until([&] { return acted_ == 1; });
  ill.Break();
  EXPECT_TRUE(dispatcher.CheckFaults());
  EXPECT_EQ(running->Reason(), "DEVICE_FAULT");
  EXPECT_EQ(Ask("beside")->Reason(), "DEVICE_FAULT");
  EXPECT_TRUE(Ask("elsewhere")->Wait().ok());
  beside.Release();
  EXPECT_TRUE(dispatcher.CheckFaults());
  EXPECT_EQ(observer_.failures, 1) << "one device has failed";
  EXPECT_EQ(observer_.hangs, 0);
}

TEST_F(DevicesTest, AWaveMayTakeTheTimeOfThoseBesideItToo) {
  FakePolicy::Options slow = Counted();
  slow.duration = [](int) { return absl::Milliseconds(10); };
  Add("one", slow).Hang();
  Add("other", slow).Hang();
  // One wave hangs after ten minutes.
  Dispatcher& dispatcher = Make({}, {60'000, absl::ZeroDuration()});
  std::vector<std::unique_ptr<Call>> calls;
  for (const char* policy : {"one", "other"}) calls.push_back(Ask(policy));
  Until([&] { return acted_ == 2; });
  clock_.Jump(absl::Minutes(15));
  EXPECT_TRUE(dispatcher.CheckFaults());
  EXPECT_EQ(observer_.hangs, 0);
  clock_.Jump(absl::Minutes(6));
  EXPECT_FALSE(dispatcher.CheckFaults());
  EXPECT_EQ(observer_.hangs, 2);
}

// Its Submit waits for the device, as a CUDA call can.
class StuckPolicy : public FakePolicy {
 public:
  using FakePolicy::FakePolicy;
  void Submit(Wave wave, Completion completion) override {
    stuck.set_value();
    go.get_future().wait();
    FakePolicy::Submit(std::move(wave), std::move(completion));
  }
  std::promise<void> stuck, go;
};

TEST_F(DevicesTest, ADeviceThatHoldsUpItsLaunchesHoldsUpNoOther) {
  FakePolicy::Options on_gpu = Echo();
  on_gpu.device_facts = DeviceFacts{};
  auto policy = std::make_unique<StuckPolicy>(on_gpu);
  StuckPolicy& one = *policy;
  hosts_.push_back(std::make_unique<const HostedPolicy>(
      HostOf("one", std::move(policy), PISERVE_SOURCE_DIR)));
  Add("other", Echo());
  Dispatcher& dispatcher = Make();
  const auto hanging = Ask("one");
  one.stuck.get_future().wait();
  EXPECT_TRUE(Ask("other")->Wait().ok());
  clock_.Jump(absl::Minutes(15));
  EXPECT_TRUE(dispatcher.CheckFaults());  // one device is left
  EXPECT_EQ(observer_.hangs, 1);
  EXPECT_TRUE(hanging->answered());
  EXPECT_TRUE(Ask("other")->Wait().ok());
  one.go.set_value();
}

TEST_F(DevicesTest, AWaveIsPredictedToTakeTurnsWithThoseBesideIt) {
  FakePolicy::Options slow = Counted();
  slow.predicted = [](int) { return absl::Milliseconds(10); };
  FakePolicy& one = Add("one", slow);
  Add("other", slow);
  Make();
  EXPECT_TRUE(Ask("one")->Wait().ok());
  EXPECT_EQ(observer_.predicted_ms, 10);
  one.Hang();
  const auto hanging = Ask("one");
  Until([&] { return acted_ == 2; });
  for (int i = 0; i < 3; ++i) {  // however many waves it runs beside
    EXPECT_TRUE(Ask("other")->Wait().ok());
    EXPECT_EQ(observer_.predicted_ms, 20);
  }
  one.Release();
  EXPECT_TRUE(hanging->Wait().ok());
  EXPECT_EQ(observer_.predicted_ms, 20);
}

// A neighbour that goes on getting waves does not put it off for ever.
TEST_F(DevicesTest, AWaveThatHangsIsFoundBesideABusyPolicy) {
  FakePolicy::Options slow = Echo();
  slow.duration = [](int) { return absl::Milliseconds(10); };
  FakePolicy& one = Add("one", slow);
  one.Hang();
  Add("other", slow);
  Dispatcher& dispatcher = Make({}, {10, absl::Seconds(1)});
  const auto hanging = Ask("one");
  for (int i = 0; i < 30 && observer_.hangs == 0; ++i) {
    EXPECT_TRUE(Ask("other")->Wait().ok());
    clock_.Jump(absl::Milliseconds(100));
    dispatcher.CheckFaults();
  }
  EXPECT_EQ(observer_.hangs, 1);
  EXPECT_TRUE(hanging->answered());
  one.Release();
}

}  // namespace
}  // namespace piserve::server
