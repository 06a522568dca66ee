// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/health_service.h"

#include <chrono>
#include <memory>
#include <string>

#include "grpc/health/v1/health.grpc.pb.h"
#include "gtest/gtest.h"
#include "tests/server/rpc/rpc_fixture.h"

namespace piserve::server::rpc {
namespace {

using grpc::health::v1::Health;
using grpc::health::v1::HealthCheckRequest;
using grpc::health::v1::HealthCheckResponse;

class HealthServiceTest : public RpcFixture {
 protected:
  std::vector<int> Ports() {
    return {listeners_->public_port(), listeners_->probe_port(),
            listeners_->admin_port()};
  }

  struct Answer {
    grpc::Status status;
    HealthCheckResponse::ServingStatus serving;
  };

  static Answer Check(int port, const std::string& service) {
    grpc::ClientContext context;
    HealthCheckRequest request;
    request.set_service(service);
    HealthCheckResponse response;
    const grpc::Status status =
        Health::NewStub(Connect(port))->Check(&context, request, &response);
    return {status, response.status()};
  }
};

TEST_F(HealthServiceTest, ReadinessFollowsSetReadyOnEveryListener) {
  for (const Serving serving : {Serving::kNo, Serving::kYes, Serving::kNo}) {
    listeners_->SetReady(serving);
    const auto expected = serving == Serving::kYes
                              ? HealthCheckResponse::SERVING
                              : HealthCheckResponse::NOT_SERVING;
    for (const int port : Ports()) {
      EXPECT_EQ(Check(port, "").serving, expected);
      EXPECT_EQ(Check(port, "piserve.v1.PolicyService").serving, expected);
      EXPECT_EQ(Check(port, "liveness").serving, HealthCheckResponse::SERVING);
    }
  }
}

TEST_F(HealthServiceTest, AServerIsNotReadyUntilItSaysSo) {
  for (const int port : Ports()) {
    EXPECT_EQ(Check(port, "").serving, HealthCheckResponse::NOT_SERVING);
  }
}

TEST_F(HealthServiceTest, UnknownServicesAreNotFound) {
  for (const int port : Ports()) {
    EXPECT_EQ(Check(port, "nobody").status.error_code(),
              grpc::StatusCode::NOT_FOUND);
  }
}

// A watch keeps its name for as long as its client likes.
TEST_F(HealthServiceTest, NamesThatNoServiceHasAreNotKept) {
  for (const int port : Ports()) {
    const auto stub = Health::NewStub(Connect(port));
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() +
                         std::chrono::seconds(5));
    HealthCheckRequest request;
    request.set_service(std::string(1000, 'x'));
    const auto watch = stub->Watch(&context, request);
    HealthCheckResponse response;
    EXPECT_FALSE(watch->Read(&response));
    EXPECT_EQ(watch->Finish().error_code(), grpc::StatusCode::INVALID_ARGUMENT);
    EXPECT_EQ(Check(port, request.service()).status.error_code(),
              grpc::StatusCode::NOT_FOUND);
  }
}

TEST_F(HealthServiceTest, TheProbeTakesNoMessageThatIsLongerThanAName) {
  EXPECT_EQ(Check(listeners_->probe_port(), std::string(8192, 'x'))
                .status.error_code(),
            grpc::StatusCode::RESOURCE_EXHAUSTED);
}

TEST_F(HealthServiceTest, DrainingIsNotReadyButAlive) {
  listeners_->SetReady(Serving::kYes);
  listeners_->Drain();
  for (const int port : Ports()) {
    EXPECT_EQ(Check(port, "").serving, HealthCheckResponse::NOT_SERVING);
    EXPECT_EQ(Check(port, "liveness").serving, HealthCheckResponse::SERVING);
  }
}

TEST_F(HealthServiceTest, WatchTellsEachChangeAndTheEnd) {
  const auto channel = Connect(listeners_->probe_port());
  const auto stub = Health::NewStub(channel);
  grpc::ClientContext context;
  const auto watch = stub->Watch(&context, HealthCheckRequest());
  HealthCheckResponse response;
  ASSERT_TRUE(watch->Read(&response));
  EXPECT_EQ(response.status(), HealthCheckResponse::NOT_SERVING);
  listeners_->SetReady(Serving::kYes);
  ASSERT_TRUE(watch->Read(&response));
  EXPECT_EQ(response.status(), HealthCheckResponse::SERVING);
  listeners_->SetReady(Serving::kYes);  // no change, no message
  listeners_->Drain();
  ASSERT_TRUE(watch->Read(&response));
  EXPECT_EQ(response.status(), HealthCheckResponse::NOT_SERVING);
  const absl::Time before = batching::Clock::Real().Now();
  listeners_->Shutdown(absl::Seconds(30));
  EXPECT_LT(batching::Clock::Real().Now() - before, absl::Seconds(10));
  EXPECT_FALSE(watch->Read(&response));
  EXPECT_EQ(watch->Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
}

TEST_F(HealthServiceTest, WatchOfAnUnknownServiceWaitsForIt) {
  const auto stub = Health::NewStub(Connect(listeners_->public_port()));
  grpc::ClientContext context;
  HealthCheckRequest request;
  request.set_service("nobody");
  const auto watch = stub->Watch(&context, request);
  HealthCheckResponse response;
  ASSERT_TRUE(watch->Read(&response));
  EXPECT_EQ(response.status(), HealthCheckResponse::SERVICE_UNKNOWN);
  context.TryCancel();
  EXPECT_EQ(watch->Finish().error_code(), grpc::StatusCode::CANCELLED);
}

TEST_F(HealthServiceTest, ManyWatchersThatComeAndGoLeaveNothingBehind) {
  const auto stub = Health::NewStub(Connect(listeners_->public_port()));
  for (int i = 0; i < 50; ++i) {
    grpc::ClientContext context;
    const auto watch = stub->Watch(&context, HealthCheckRequest());
    listeners_->SetReady(i % 2 == 0 ? Serving::kYes : Serving::kNo);
    HealthCheckResponse response;
    if (i % 3 != 0) {
      EXPECT_TRUE(watch->Read(&response));
    }
    context.TryCancel();
    EXPECT_EQ(watch->Finish().error_code(), grpc::StatusCode::CANCELLED);
  }
}

}  // namespace
}  // namespace piserve::server::rpc
