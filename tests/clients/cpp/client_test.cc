// SPDX-License-Identifier: Apache-2.0
#include "clients/cpp/piserve/client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>
#include <future>
#include <utility>

#include "clients/cpp/piserve/status.h"
#include "tests/clients/cpp/fake_service.h"

namespace piserve::client {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::Gt;
using ::testing::Le;
using ::testing::SizeIs;

// gRPC sends the time left with three digits, rounded up.
constexpr double kRoundingUp = 1.01;

class Client : public ::testing::Test {
 protected:
  std::unique_ptr<PolicyClient> Connect() {
    return *PolicyClient::Connect({.address = service_.address(),
                                   .api_key = "secret",
                                   .tls = {},
                                   .timeout = absl::Seconds(20),
                                   .clock = &clock_});
  }
  // Answers `first` to the first call and a chunk to the later ones.
  void RefuseFirst(const grpc::Status& first, const std::string& pushback) {
    service_.on_infer = [=, this](grpc::ServerContext* context,
                                  const v1::InferRequest& request,
                                  v1::InferResponse* response) {
      if (service_.requests().size() == 1) {
        if (!pushback.empty()) {
          context->AddTrailingMetadata("grpc-retry-pushback-ms", pushback);
        }
        return first;
      }
      *response->mutable_result() =
          FakeResult(request.observation().request_id());
      return grpc::Status::OK;
    };
  }

  FakeClock clock_;
  FakeService service_;
};

TEST_F(Client, AnswersWithAChunk) {
  const auto client = Connect();
  const auto chunk = client->Infer(FakeObservation());
  ASSERT_TRUE(chunk.ok()) << chunk.status();
  EXPECT_THAT(chunk->step(0), ElementsAre(0, 1, 2));
  EXPECT_THAT(service_.credentials(), ElementsAre("Bearer secret"));
}

TEST_F(Client, EveryCallHasADeadline) {
  const auto client = Connect();
  ASSERT_TRUE(client->Infer(FakeObservation()).ok());
  ASSERT_TRUE(
      client->Infer(FakeObservation(), {.timeout = absl::Seconds(9)}).ok());
  const auto budgets = service_.budgets();
  ASSERT_THAT(budgets, SizeIs(2));
  EXPECT_THAT(budgets[0], AllOf(Gt(absl::Seconds(10)),
                                Le(absl::Seconds(20) * kRoundingUp)));
  EXPECT_THAT(budgets[1],
              AllOf(Gt(absl::Seconds(1)), Le(absl::Seconds(9) * kRoundingUp)));
}

TEST_F(Client, UnavailableIsTriedOnceMoreAfterTheServersDelay) {
  RefuseFirst(
      RefusalWithRetry(grpc::StatusCode::UNAVAILABLE, absl::Milliseconds(70)),
      "");
  EXPECT_TRUE(Connect()->Infer(FakeObservation()).ok());
  EXPECT_THAT(clock_.sleeps(), ElementsAre(absl::Milliseconds(70)));
}

TEST_F(Client, PushbackIsObeyed) {
  RefuseFirst(RefusalWithRetry(grpc::StatusCode::RESOURCE_EXHAUSTED,
                               absl::Milliseconds(70)),
              "400");
  EXPECT_TRUE(Connect()->Infer(FakeObservation()).ok());
  EXPECT_THAT(clock_.sleeps(), ElementsAre(absl::Milliseconds(400)));
}

TEST_F(Client, ARetryKeepsTheDeadlineAndAgesTheObservation) {
  RefuseFirst(grpc::Status(grpc::StatusCode::UNAVAILABLE, "warming up"),
              "15000");
  ObservationIn observation = FakeObservation();
  observation.captured_at = clock_.Now();
  EXPECT_TRUE(Connect()->Infer(observation).ok());
  ASSERT_THAT(service_.budgets(), SizeIs(2));
  EXPECT_LE(service_.budgets()[1], absl::Seconds(5) * kRoundingUp);
  EXPECT_EQ(service_.requests()[0].observation().age_us(), 0u);
  EXPECT_EQ(service_.requests()[1].observation().age_us(), 15'000'000u);
}

TEST_F(Client, NothingIsTriedThreeTimes) {
  service_.on_infer = [](auto...) {
    return RefusalWithRetry(grpc::StatusCode::UNAVAILABLE,
                            absl::ZeroDuration());
  };
  EXPECT_TRUE(
      absl::IsUnavailable(Connect()->Infer(FakeObservation()).status()));
  EXPECT_THAT(service_.requests(), SizeIs(2));
}

TEST_F(Client, AWaitBeyondTheDeadlineIsNotBegun) {
  RefuseFirst(grpc::Status(grpc::StatusCode::UNAVAILABLE, ""), "20000");
  EXPECT_TRUE(
      absl::IsUnavailable(Connect()->Infer(FakeObservation()).status()));
  EXPECT_THAT(service_.requests(), SizeIs(1));
  EXPECT_THAT(clock_.sleeps(), SizeIs(0));
}

TEST_F(Client, OtherErrorsAreNotRetried) {
  for (const grpc::Status& status :
       {grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED, "message too big"),
        grpc::Status(grpc::StatusCode::INVALID_ARGUMENT, ""),
        grpc::Status(grpc::StatusCode::DEADLINE_EXCEEDED, ""),
        grpc::Status(grpc::StatusCode::ABORTED, ""),
        grpc::Status(grpc::StatusCode::INTERNAL, "")}) {
    service_.on_infer = [&](auto...) { return status; };
    const std::size_t before = service_.requests().size();
    EXPECT_EQ(
        static_cast<int>(Connect()->Infer(FakeObservation()).status().code()),
        static_cast<int>(status.error_code()));
    EXPECT_EQ(service_.requests().size(), before + 1);
  }
}

TEST_F(Client, AnAnswerAfterTheDeadlineIsAnErrorAndNeverAChunk) {
  service_.on_infer = [&](grpc::ServerContext*, const v1::InferRequest&,
                          v1::InferResponse* response) {
    clock_.Advance(absl::Seconds(21));
    *response->mutable_result() = FakeResult("");
    return grpc::Status::OK;
  };
  const auto chunk = Connect()->Infer(FakeObservation());
  EXPECT_TRUE(absl::IsDeadlineExceeded(chunk.status()));
  EXPECT_EQ(ErrorReason(chunk.status()), "LATE_REPLY");
}

TEST_F(Client, AServerThatNeverAnswersEndsInDeadlineExceeded) {
  std::promise<void> release;
  service_.on_infer = [&](auto...) {
    release.get_future().wait();
    return grpc::Status::OK;
  };
  const auto client = Connect();
  EXPECT_TRUE(absl::IsDeadlineExceeded(
      client->Infer(FakeObservation(), {.timeout = absl::Milliseconds(200)})
          .status()));
  release.set_value();
}

TEST_F(Client, AMisfitIsRefusedBeforeItIsSent) {
  ObservationIn observation = FakeObservation();
  observation.state = {1.0};
  const auto client = Connect();
  EXPECT_EQ(ErrorField(client->Infer(observation).status()), "state");
  EXPECT_THAT(service_.requests(), SizeIs(0));
}

TEST_F(Client, PolicyInfoIsAskedForOnceUntilTheDigestChanges) {
  const auto client = Connect();
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(client->Infer(FakeObservation()).ok());
  }
  EXPECT_EQ(service_.info_calls(), 1);
  service_.info.set_model_digest("digest-2");
  service_.on_infer = [](grpc::ServerContext*, const v1::InferRequest&,
                         v1::InferResponse* response) {
    *response->mutable_result() = FakeResult("");
    response->mutable_result()->set_model_digest("digest-2");
    return grpc::Status::OK;
  };
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(client->Infer(FakeObservation()).ok());
  }
  EXPECT_EQ(service_.info_calls(), 2);
}

TEST_F(Client, PolicyInfoIsAskedForAgainAfterARefusal) {
  for (const auto code :
       {grpc::StatusCode::INVALID_ARGUMENT, grpc::StatusCode::NOT_FOUND,
        grpc::StatusCode::FAILED_PRECONDITION, grpc::StatusCode::UNAVAILABLE}) {
    const auto client = Connect();
    ASSERT_TRUE(client->Infer(FakeObservation()).ok());
    const int before = service_.info_calls();
    const auto answer = std::exchange(
        service_.on_infer, [=](auto...) { return grpc::Status(code, "no"); });
    EXPECT_FALSE(client->Infer(FakeObservation(), {.attempts = 1}).ok());
    service_.on_infer = answer;
    for (int i = 0; i < 2; ++i) {
      EXPECT_TRUE(client->Infer(FakeObservation()).ok());
    }
    EXPECT_EQ(service_.info_calls(), before + 1) << code;
  }
}

TEST_F(Client, AFullQueueIsNoReasonToAskForPolicyInfo) {
  RefuseFirst(grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED, "full"), "");
  const auto client = Connect();
  EXPECT_FALSE(client->Infer(FakeObservation()).ok());
  EXPECT_TRUE(client->Infer(FakeObservation()).ok());
  EXPECT_EQ(service_.info_calls(), 1);
}

TEST_F(Client, APolicyThatFitsIsFoundInThePlaceOfOneThatDidNot) {
  const v1::PolicyInfo fit = service_.info;
  service_.info.mutable_cameras(0)->set_name("front");
  const auto client = Connect();
  EXPECT_TRUE(
      absl::IsInvalidArgument(client->Infer(FakeObservation()).status()));
  service_.info = fit;
  EXPECT_TRUE(client->Infer(FakeObservation()).ok());
  EXPECT_THAT(service_.requests(), SizeIs(1));
}

TEST_F(Client, APolicyThatIsNotTheOneExpectedGetsNoObservation) {
  for (const Expectation& expect :
       {Expectation{.robot = LiberoProfile()},
        Expectation{.model_digest = "digest-2"},
        Expectation{.preprocessing_checksum = "sum-2"}}) {
    const auto client = *PolicyClient::Connect({.address = service_.address(),
                                                .api_key = "",
                                                .tls = {},
                                                .expect = expect});
    for (int i = 0; i < 2; ++i) {
      EXPECT_TRUE(absl::IsFailedPrecondition(
          client->Infer(FakeObservation()).status()));
    }
  }
  EXPECT_THAT(service_.requests(), SizeIs(0));
}

TEST_F(Client, AnAnswerOfAMisfitThatTookItsPlaceIsNeverHandedOut) {
  // Another model answers from here on.
  service_.on_infer = [this](grpc::ServerContext*, const v1::InferRequest&,
                             v1::InferResponse* response) {
    service_.info.set_model_digest("digest-2");
    service_.info.set_preprocessing_checksum("sum-2");
    *response->mutable_result() = FakeResult("");
    response->mutable_result()->set_model_digest("digest-2");
    return grpc::Status::OK;
  };
  const auto client =
      *PolicyClient::Connect({.address = service_.address(),
                              .api_key = "",
                              .tls = {},
                              .expect = {.preprocessing_checksum = "sum-1"}});
  EXPECT_EQ(ErrorReason(client->Infer(FakeObservation()).status()),
            "PREPROCESSING_MISMATCH");
}

TEST_F(Client, AnAnswerOfAModelNobodyDescribesIsNeverHandedOut) {
  service_.on_infer = [](grpc::ServerContext*, const v1::InferRequest&,
                         v1::InferResponse* response) {
    *response->mutable_result() = FakeResult("");
    response->mutable_result()->set_model_digest("digest-9");
    return grpc::Status::OK;
  };
  const auto chunk = Connect()->Infer(FakeObservation());
  EXPECT_TRUE(absl::IsFailedPrecondition(chunk.status()));
  EXPECT_EQ(ErrorReason(chunk.status()), "MODEL_CHANGED");
}

TEST_F(Client, ACallMayForbidItsRetry) {
  RefuseFirst(
      RefusalWithRetry(grpc::StatusCode::UNAVAILABLE, absl::Milliseconds(70)),
      "");
  EXPECT_TRUE(absl::IsUnavailable(
      Connect()->Infer(FakeObservation(), {.attempts = 1}).status()));
  EXPECT_THAT(service_.requests(), SizeIs(1));
}

TEST_F(Client, ARestartedServerIsFoundAgain) {
  const auto client = *PolicyClient::Connect(
      {.address = service_.address(), .api_key = "", .tls = {}});
  ASSERT_TRUE(client->Infer(FakeObservation()).ok());
  service_.Stop();
  EXPECT_TRUE(absl::IsUnavailable(client->Infer(FakeObservation()).status()));
  service_.Start();
  const auto give_up =
      std::chrono::steady_clock::now() + std::chrono::seconds(20);
  absl::Status status = absl::UnavailableError("");
  while (!status.ok() && std::chrono::steady_clock::now() < give_up) {
    status = client->Infer(FakeObservation()).status();
  }
  EXPECT_TRUE(status.ok()) << status;
}

TEST_F(Client, AServerOnThisMachineIsAskedPastAProxy) {
  for (const char* name :
       {"no_grpc_proxy", "no_proxy", "grpc_proxy", "https_proxy"}) {
    unsetenv(name);
  }
  setenv("http_proxy", "http://127.0.0.1:1", 1);  // where nobody listens
  const auto chunk = Connect()->Infer(FakeObservation());
  unsetenv("http_proxy");
  EXPECT_TRUE(chunk.ok()) << chunk.status();
}

TEST(ClientOptions, WhatMakesNoSenseIsRefused) {
  EXPECT_TRUE(absl::IsInvalidArgument(PolicyClient::Connect({}).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(
      PolicyClient::Connect({.address = "x:1",
                             .api_key = "",
                             .tls = {},
                             .timeout = absl::InfiniteDuration()})
          .status()));
}

TEST(ClientOptions, APortThatThereIsNotIsRefused) {
  for (const char* address : {"robot-lab:65536", "127.0.0.1:99999", "[::1]:0",
                              "dns:///robot-lab:123456789012345678901"}) {
    const auto client =
        PolicyClient::Connect({.address = address, .api_key = "", .tls = {}});
    EXPECT_TRUE(absl::IsInvalidArgument(client.status())) << address;
    EXPECT_THAT(std::string(client.status().message()),
                ::testing::HasSubstr(address));
  }
  for (const char* address :
       {"robot-lab", "robot-lab:65535", "[::1]:1", "unix:/run/piserve:99999"}) {
    EXPECT_TRUE(
        PolicyClient::Connect({.address = address, .api_key = "", .tls = {}})
            .ok())
        << address;
  }
}

TEST(ClientOptions, AKeyDoesNotCrossTheNetworkInTheClear) {
  for (const char* address :
       {"robot-lab:50051", "127.evil.invalid:1", "127.0.0.1.evil.invalid:1",
        "localhostile.invalid:1", "localhost.evil.invalid:1", "128.0.0.1:1",
        "[::1].evil.invalid:1", "[::2]:1", "::1:1", "dns:///evil.invalid:1",
        "dns://192.0.2.1/localhost:1", "ipv4:127.0.0.1:1,192.0.2.1:1"}) {
    Options options = {.address = address, .api_key = "k", .tls = {}};
    EXPECT_TRUE(
        absl::IsInvalidArgument(PolicyClient::Connect(options).status()))
        << address;
    options.tls = TlsOptions();
    EXPECT_TRUE(PolicyClient::Connect(options).ok()) << address;
  }
}

TEST(ClientOptions, AKeyThatNoHeaderTakesIsRefusedUntold) {
  for (const char* key : {"k-1\n", "k\x7f", "\xc3\xbc"}) {
    const auto client = PolicyClient::Connect(
        {.address = "127.0.0.1:1", .api_key = key, .tls = {}});
    EXPECT_TRUE(absl::IsInvalidArgument(client.status()));
    EXPECT_THAT(std::string(client.status().message()),
                ::testing::Not(::testing::HasSubstr(key)));
  }
}

TEST(ClientOptions, AKeyMayStayOnThisMachineWithoutTls) {
  for (const char* address : {"localhost:1", "127.0.0.1:1", "127.8.9.10",
                              "[::1]:1", "unix:/run/piserve"}) {
    EXPECT_TRUE(
        PolicyClient::Connect({.address = address, .api_key = "k", .tls = {}})
            .ok())
        << address;
  }
}

}  // namespace
}  // namespace piserve::client
