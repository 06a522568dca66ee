// SPDX-License-Identifier: Apache-2.0
// The server between the wire and the network: each request gets its one right
// status. The policy is a puppet; the pipeline is the real one.
#include <cmath>
#include <limits>
#include <optional>

#include "tests/server/dispatcher_fixture.h"

namespace piserve::server {
namespace {

TEST_F(DispatcherTest, AnswersWithTheRowsOwnActions) {
  Add("libero", Echo());
  Dispatcher& dispatcher = Make();
  std::vector<std::unique_ptr<Call>> calls;
  for (int i = 0; i < 16; ++i) {
    calls.push_back(std::make_unique<Call>(dispatcher, Request(i / 16.0f)));
  }
  for (int i = 0; i < 16; ++i) {
    const Result reply = calls[i]->Wait();
    ASSERT_TRUE(reply.ok()) << reply.status();
    EXPECT_EQ(reply->horizon, 10);
    EXPECT_EQ(reply->dim, 7);
    EXPECT_THAT(reply->actions, Each(::testing::FloatNear(i / 16.0f, 1e-5f)));
    EXPECT_EQ(reply->policy, "libero");
    EXPECT_EQ(reply->num_steps, 10);
    EXPECT_FALSE(reply->seed.has_value());
    EXPECT_GE(reply->graph_rows, reply->wave_rows);
  }
  EXPECT_EQ(observer_.answers, 16);
}

TEST_F(DispatcherTest, ReplySaysWhereTheTimeWent) {
  Add("libero", Echo());
  const Result reply = Call(Make(), Request()).Wait();
  ASSERT_TRUE(reply.ok());
  std::vector<std::string> stages;
  for (const StageDuration& stage : reply->stages) {
    stages.push_back(stage.stage);
    EXPECT_GE(stage.duration, absl::ZeroDuration()) << stage.stage;
  }
  EXPECT_THAT(stages,
              ::testing::ElementsAre("decode", "queue", "form", "gpu", "post"));
}

TEST_F(DispatcherTest, SeedIsDrawnAndReportedAndRepeats) {
  Add("libero", Echo());
  Dispatcher& dispatcher = Make();
  InferenceRequest first = Request();
  first.start = std::monostate();
  const Result drawn = Call(dispatcher, std::move(first)).Wait();
  ASSERT_TRUE(drawn.ok());
  ASSERT_TRUE(drawn->seed.has_value());
  InferenceRequest again = Request();
  again.start = *drawn->seed;
  const Result repeated = Call(dispatcher, std::move(again)).Wait();
  EXPECT_EQ(repeated->actions, drawn->actions);
  EXPECT_EQ(repeated->seed, drawn->seed);
}

TEST_F(DispatcherTest, DeadlineIsDefaultedAndClampedAndTheReplySaysSo) {
  Add("libero", Echo());
  Dispatcher& dispatcher = Make();
  EXPECT_EQ(Call(dispatcher, Request()).Wait()->deadline_served,
            absl::Seconds(5));
  InferenceRequest patient = Request();
  patient.deadline = patient.received + absl::Hours(1);
  EXPECT_EQ(Call(dispatcher, std::move(patient)).Wait()->deadline_served,
            absl::Seconds(30));
  InferenceRequest own = Request();
  own.deadline = own.received + absl::Seconds(7);
  EXPECT_EQ(Call(dispatcher, std::move(own)).Wait()->deadline_served,
            absl::Seconds(7));
}

struct Refusal {
  const char* name;
  void (*spoil)(InferenceRequest&);
  absl::StatusCode code;
  const char* reason;
  const char* field;
};

class RefusalTest : public DispatcherTest,
                    public ::testing::WithParamInterface<Refusal> {};

TEST_P(RefusalTest, GetsItsStatusReasonAndField) {
  Add("libero", Echo());
  InferenceRequest request = Request();
  GetParam().spoil(request);
  const absl::Status status = Call(Make(), std::move(request)).Wait().status();
  EXPECT_EQ(status.code(), GetParam().code) << status;
  EXPECT_EQ(ReasonOf(status), GetParam().reason);
  EXPECT_EQ(FieldOf(status).value_or(""), GetParam().field);
}

constexpr Refusal kRefusals[] = {
    {"Policy", [](InferenceRequest& r) { r.policy = "other"; },
     absl::StatusCode::kNotFound, "UNKNOWN_POLICY", ""},
    {"Digest", [](InferenceRequest& r) { r.model_digest = "0123"; },
     absl::StatusCode::kFailedPrecondition, "MODEL_DIGEST_MISMATCH", ""},
    {"Steps", [](InferenceRequest& r) { r.num_steps = 9; },
     absl::StatusCode::kFailedPrecondition, "STEPS_NOT_OFFERED", ""},
    {"HugeSteps", [](InferenceRequest& r) { r.num_steps = 0xffffffff; },
     absl::StatusCode::kFailedPrecondition, "STEPS_NOT_OFFERED", ""},
    {"NoiseShape",
     [](InferenceRequest& r) {
       r.noise_shape = {10, 7};
     },
     absl::StatusCode::kInvalidArgument, "WRONG_SHAPE", "noise.shape"},
    {"NoiseNaN",
     [](InferenceRequest& r) {
       std::get<std::vector<float>>(r.start)[3] = std::nanf("");
     },
     absl::StatusCode::kInvalidArgument, "NOT_FINITE", "noise.data"},
    {"DeadlinePast",
     [](InferenceRequest& r) { r.deadline = r.received - absl::Seconds(1); },
     absl::StatusCode::kDeadlineExceeded, "DEADLINE_PAST", ""},
};

INSTANTIATE_TEST_SUITE_P(BadInput, RefusalTest, ::testing::ValuesIn(kRefusals),
                         [](const auto& info) { return info.param.name; });

TEST_F(DispatcherTest, StepsAreToldAsTheyWereAsked) {
  Add("libero", Echo());
  InferenceRequest request = Request();
  request.num_steps = 0xffffffff;
  EXPECT_THAT(
      std::string(Call(Make(), std::move(request)).Wait().status().message()),
      HasSubstr("num_steps: got 4294967295, want one of "));
}

TEST_F(DispatcherTest, ADeadlineThatIsPastIsToldWhatItWouldHaveTaken) {
  Add("libero", Echo());
  InferenceRequest request = Request();
  request.deadline = request.received - absl::Seconds(1);
  const absl::Status status = Call(Make(), std::move(request)).Wait().status();
  EXPECT_TRUE(MetadataOf(status).contains("predicted_us")) << status;
}

TEST_F(DispatcherTest, WrongObservationNamesItsField) {
  Add("libero", Echo());
  Dispatcher& dispatcher = Make();
  InferenceRequest request = Request();
  request.observation.state.pop_back();
  const absl::Status state =
      Call(dispatcher, std::move(request)).Wait().status();
  EXPECT_EQ(state.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(FieldOf(state).value_or(""), HasSubstr("state"));
  InferenceRequest camera = Request();
  camera.observation.images[1].name = "elsewhere";
  const absl::Status image =
      Call(dispatcher, std::move(camera)).Wait().status();
  EXPECT_EQ(image.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(FieldOf(image).value_or(""), HasSubstr("images"));
}

TEST_F(DispatcherTest, BrokenImageGivesItsRoomBack) {
  Add("libero", Echo());
  LimitsConfig limits;
  limits.rows = 1;
  Dispatcher& dispatcher = Make(limits);
  // A JPEG that begins well and ends at once: found only by decoding.
  static constexpr char kHead[] =
      "\xff\xd8\xff\xc0\x00\x0b\x08\x00\x20\x00\x20\x01\x01\x11\x00\xff\xd9";
  for (int i = 0; i < 3; ++i) {
    InferenceRequest request = Request();
    ImageView& image = request.observation.images[0];
    image = {.name = image.name,
             .encoding = ImageEncoding::kJpeg,
             .width = 0,
             .height = 0,
             .data = std::string_view(kHead, sizeof(kHead) - 1)};
    const absl::Status status =
        Call(dispatcher, std::move(request)).Wait().status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  }
  EXPECT_TRUE(Call(dispatcher, Request()).Wait().ok());
}

TEST_F(DispatcherTest, PolicyMustBeNamedWhereSeveralAreHosted) {
  Add("one", Echo());
  Add("two", FakePolicy::NoOp(FakeVariant()));
  Dispatcher& dispatcher = Make();
  EXPECT_EQ(Call(dispatcher, Request()).Reason(), "POLICY_REQUIRED");
  InferenceRequest request = Request(0.5f);
  request.policy = "two";
  const Result two = Call(dispatcher, std::move(request)).Wait();
  ASSERT_TRUE(two.ok()) << two.status();
  EXPECT_EQ(two->policy, "two");
  EXPECT_THAT(two->actions, Each(::testing::FloatNear(0, 1e-5f)));
}

TEST_F(DispatcherTest, UnreachableDeadlineIsRefusedWithThePrediction) {
  FakePolicy::Options slow = Echo();
  slow.duration = [](int) { return absl::Milliseconds(100); };
  Add("libero", slow);
  InferenceRequest request = Request();
  request.deadline = clock_.Now() + absl::Milliseconds(60);
  const absl::Status status = Call(Make(), std::move(request)).Wait().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(ReasonOf(status), "DEADLINE_UNREACHABLE");
  EXPECT_GE(std::stoll(MetadataOf(status).at("predicted_us")), 100000);
}

TEST_F(DispatcherTest, NonFiniteRowIsWithheldAndHarmsNoOther) {
  FakePolicy::Options options = Echo();
  options.act = [](const SlotRow& row, std::span<float> actions) {
    std::copy(row.noise.begin(), row.noise.end(), actions.begin());
    if (row.noise[0] == 0.25f) {
      return WithReason(absl::InternalError("x"), "NON_FINITE_OUTPUT");
    }
    return absl::OkStatus();
  };
  options.duration = [](int) { return absl::Milliseconds(20); };
  Add("libero", options);
  Dispatcher& dispatcher = Make();
  Call good(dispatcher, Request(0.125f));
  Call looked(dispatcher, Request(0.25f));
  Call other(dispatcher, Request(0.75f));
  EXPECT_TRUE(good.Wait().ok());
  EXPECT_TRUE(other.Wait().ok());
  const Result bad = looked.Wait();
  EXPECT_EQ(bad.status().code(), absl::StatusCode::kInternal);
  EXPECT_EQ(ReasonOf(bad.status()), "NON_FINITE_OUTPUT");
}

TEST_F(DispatcherTest, ActionsOverflowingInRobotUnitsAreWithheld) {
  FakePolicy::Options options = Echo();
  options.act = [](const SlotRow&, std::span<float> actions) {
    std::fill(actions.begin(), actions.end(),
              std::numeric_limits<float>::quiet_NaN());
    return absl::OkStatus();
  };
  Add("libero", options);
  EXPECT_EQ(Call(Make(), Request()).Reason(), "NON_FINITE_OUTPUT");
}

TEST_F(DispatcherTest, ARowThatThePolicyCannotRunFailsWithoutSayingWhere) {
  FakePolicy::Options options = Echo();
  options.act = [](const SlotRow&, std::span<float>) {
    return absl::UnknownError("/a/path");
  };
  Add("libero", options);
  const absl::Status status = Call(Make(), Request()).Wait().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_EQ(ReasonOf(status), "WAVE_FAILED");
  EXPECT_THAT(status.message(), Not(HasSubstr("/a/path")));
}

// Whatever made it so: here the pipeline is of a policy with a longer horizon.
TEST_F(DispatcherTest, ActionsThatDoNotFitTheRobotAreWithheld) {
  FakePolicy::Options longer = Echo();
  longer.variant.action_horizon += 1;
  const auto host = [](FakePolicy::Options options) {
    return HostOf("libero", std::make_unique<FakePolicy>(std::move(options)),
                  PISERVE_SOURCE_DIR);
  };
  HostedPolicy mixed = host(Echo());
  mixed.pipeline = host(longer).pipeline;
  hosts_.push_back(std::make_unique<const HostedPolicy>(std::move(mixed)));
  const absl::Status status = Call(Make(), Request()).Wait().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_EQ(ReasonOf(status), "ANSWER_LOST");
}

// Answers of a hammering, by what they were.
struct Tally {
  std::atomic<int> right = 0;
  std::atomic<int> refused = 0;
  std::atomic<int> wrong = 0;
};

void Count(const Result& result, float tag, Tally& tally) {
  if (!result.ok()) {
    const bool known = absl::IsResourceExhausted(result.status()) ||
                       absl::IsDeadlineExceeded(result.status()) ||
                       absl::IsCancelled(result.status());
    ++(known ? tally.refused : tally.wrong);
    return;
  }
  bool own = true;
  for (const float action : result->actions) {
    own &= std::abs(action - tag) < 1e-4f;
  }
  ++(own ? tally.right : tally.wrong);
}

// Promise 1 under load: every request is answered once, with its own actions or
// with a status that fits what was done to it.
TEST_F(DispatcherTest, HammeredFromManyThreadsAnswersEachOnce) {
  FakePolicy::Options options = Echo();
  options.duration = [](int rows) {
    return absl::Microseconds(200 + 20 * rows);
  };
  Add("libero", options);
  LimitsConfig limits;
  limits.rows = 24;
  Dispatcher& dispatcher = Make(limits);
  constexpr int kThreads = 4;
  constexpr int kEach = 96;
  Tally tally;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      std::vector<std::pair<float, std::unique_ptr<Call>>> calls;
      for (int i = 0; i < kEach; ++i) {
        const float tag = (t * kEach + i) / 512.0f;
        InferenceRequest request = Request(tag);
        if (i % 7 == 0) {
          request.deadline = request.received + absl::Milliseconds(3);
        }
        calls.emplace_back(
            tag, std::make_unique<Call>(dispatcher, std::move(request)));
        if (i % 5 == 0) calls.back().second->Cancel();
        if (i % 4 == 3) (void)calls.back().second->Wait();
      }
      for (auto& [tag, call] : calls) Count(call->Wait(), tag, tally);
    });
  }
  for (std::thread& thread : threads) thread.join();
  Until([&] { return dispatcher.in_flight() == 0; });
  EXPECT_EQ(tally.wrong, 0);
  EXPECT_GT(tally.right, 0);
  EXPECT_EQ(tally.right + tally.refused, kThreads * kEach);
  EXPECT_EQ(observer_.answers, kThreads * kEach);
}

}  // namespace
}  // namespace piserve::server
