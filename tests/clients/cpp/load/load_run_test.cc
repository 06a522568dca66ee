// SPDX-License-Identifier: Apache-2.0
#include "clients/cpp/load/load_run.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <mutex>
#include <set>

#include "absl/time/clock.h"
#include "clients/cpp/piserve/status.h"
#include "tests/clients/cpp/fake_service.h"

namespace piserve::load {
namespace {

class LoadRunTest : public ::testing::TestWithParam<Call> {
 protected:
  LoadRunTest() {
    service_.on_stream = [this](client::FakeService::Stream* stream) {
      v1::InferStreamRequest request;
      while (stream->Read(&request)) {
        const std::string& id = request.observation().request_id();
        Note(id);
        v1::InferStreamResponse response;
        response.set_request_id(id);
        *response.mutable_result() = client::FakeResult(id);
        stream->Write(response);
      }
      return grpc::Status::OK;
    };
    service_.on_infer = [this](grpc::ServerContext*,
                               const v1::InferRequest& request,
                               v1::InferResponse* response) {
      Note(request.observation().request_id());
      *response->mutable_result() =
          client::FakeResult(request.observation().request_id());
      return grpc::Status::OK;
    };
  }

  void Note(const std::string& id) {
    std::lock_guard<std::mutex> lock(mutex_);
    ids_.insert(id);
  }

  LoadResult Run(const LoadRun::Options& options,
                 Verifier* verifier = nullptr) {
    const int robots = options.schedule.robots;
    return LoadRun(
               options,
               *MakeTransports(
                   {.address = service_.address(), .api_key = "", .tls = {}},
                   GetParam(), Connections::kShared, robots),
               std::vector<client::ObservationIn>(robots,
                                                  client::FakeObservation()),
               verifier)
        .Run();
  }

  static LoadRun::Options Brief(Loop loop) {
    return {.schedule = {.robots = 3,
                         .period = absl::Milliseconds(10),
                         .end = absl::Milliseconds(100),
                         .loop = loop}};
  }

  std::mutex mutex_;
  std::multiset<std::string> ids_;
  client::FakeService service_;
};

INSTANTIATE_TEST_SUITE_P(Calls, LoadRunTest,
                         ::testing::Values(Call::kUnary, Call::kStream));

TEST_P(LoadRunTest, AnOpenLoopSendsEveryRequestOnceAndCountsEveryAnswer) {
  const LoadResult result = Run(Brief(Loop::kOpen));
  EXPECT_EQ(result.sent, 30u);
  EXPECT_EQ(result.samples.size(), 30u);
  EXPECT_EQ(result.lost, 0u);
  EXPECT_EQ(ids_.size(), 30u);
  EXPECT_EQ(std::set<std::string>(ids_.begin(), ids_.end()).size(), 30u);
  for (const Sample& sample : result.samples) {
    EXPECT_TRUE(sample.status.ok()) << sample.status;
    EXPECT_GE(sample.sent, sample.intended);
    EXPECT_GT(sample.latency(), absl::ZeroDuration());
  }
}

TEST_P(LoadRunTest, AClosedLoopHasOneRequestOfARobotInFlight) {
  LoadResult result = Run(Brief(Loop::kClosed));
  EXPECT_GT(result.samples.size(), 3u);
  std::sort(result.samples.begin(), result.samples.end(),
            [](const Sample& a, const Sample& b) { return a.sent < b.sent; });
  std::vector<absl::Duration> free_at(3);
  for (const Sample& sample : result.samples) {
    EXPECT_GE(sample.sent, free_at[sample.robot]);
    free_at[sample.robot] = sample.answered;
  }
}

// Answers by whether the robot's sequence number is even.
class EvenVerifier final : public Verifier {
 public:
  Expectation Prepare(int, std::uint64_t sequence,
                      client::ObservationIn*) override {
    return [sequence](const client::ActionChunk&) { return sequence % 2 == 0; };
  }
};

TEST_P(LoadRunTest, EveryOkAnswerIsVerified) {
  EvenVerifier verifier;
  const LoadResult result = Run(Brief(Loop::kOpen), &verifier);
  EXPECT_EQ(result.right, 15u);
  EXPECT_EQ(result.wrong, 15u);
}

using StalledLoadRun = LoadRunTest;
INSTANTIATE_TEST_SUITE_P(Calls, StalledLoadRun,
                         ::testing::Values(Call::kUnary));

TEST_P(StalledLoadRun, AStallShowsInEveryRequestItHeldUp) {
  // The first answer takes 300 ms and nothing else may be in flight: the other
  // sends wait in the generator, and their wait counts.
  std::atomic<bool> first = true;
  const auto infer = service_.on_infer;
  service_.on_infer = [&](auto... arguments) {
    if (first.exchange(false)) absl::SleepFor(absl::Milliseconds(300));
    return infer(arguments...);
  };
  LoadRun::Options options = Brief(Loop::kOpen);
  options.max_in_flight = 1;
  const LoadResult result = Run(options);
  EXPECT_EQ(result.samples.size(), 30u);
  for (const Sample& sample : result.samples) {
    EXPECT_GE(sample.latency(), absl::Milliseconds(200));
  }
}

TEST_P(LoadRunTest, RefusalsAreCountedAndNotRetried) {
  if (GetParam() == Call::kStream) {
    service_.on_stream = [](client::FakeService::Stream* stream) {
      v1::InferStreamRequest request;
      while (stream->Read(&request)) {
        v1::InferStreamResponse response;
        response.set_request_id(request.observation().request_id());
        response.mutable_error()->set_code(14);
        stream->Write(response);
      }
      return grpc::Status::OK;
    };
  }
  service_.on_infer = [](auto...) {
    return client::RefusalWithRetry(grpc::StatusCode::UNAVAILABLE,
                                    absl::ZeroDuration());
  };
  const LoadResult result = Run(Brief(Loop::kOpen));
  EXPECT_EQ(result.samples.size(), 30u);
  for (const Sample& sample : result.samples) {
    EXPECT_TRUE(absl::IsUnavailable(sample.status)) << sample.status;
  }
}

}  // namespace
}  // namespace piserve::load
