// SPDX-License-Identifier: Apache-2.0
//
// What gRPC holds of messages before anything of ours sees them.
#include <unistd.h>

#include <chrono>
#include <fstream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "tests/server/rpc/raw_http2.h"
#include "tests/server/rpc/rpc_fixture.h"

namespace piserve::server::rpc {
namespace {

constexpr std::int64_t kMiB = 1 << 20;
constexpr char kInfer[] = "/piserve.v1.PolicyService/Infer";
constexpr char kCheck[] = "/grpc.health.v1.Health/Check";
constexpr char kWatch[] = "/grpc.health.v1.Health/Watch";

// Of this process: server and raw client, which holds next to nothing.
std::int64_t ResidentMiB() {
  std::ifstream statm("/proc/self/statm");
  std::int64_t all = 0;
  std::int64_t resident = 0;
  statm >> all >> resident;
  return resident * sysconf(_SC_PAGESIZE) / kMiB;
}

class MemoryTest : public RpcFixture {
 protected:
  void SetUp() override {
    ListenerOptions options = FreePorts();
    options.max_unparsed_bytes = 32 * kMiB;
    Start(options, {});
    inference_.AnswerAtOnce();
    ASSERT_TRUE(Infer(GoodObservation("first")).status.ok());
  }

  // Sends `limit` bytes of a message of `declared` on each of 64 calls on each
  // of three connections. Whether the server then holds no more than `bound`
  // bytes of them: it resets one call after the other.
  static bool HoldsAtMost(std::uint64_t bound, int port, const char* method,
                          std::uint32_t declared, std::uint64_t limit) {
    std::vector<std::unique_ptr<RawHttp2>> clients;
    for (int i = 0; i < 3; ++i) {
      clients.push_back(std::make_unique<RawHttp2>(port, method, 64, declared));
    }
    const auto until =
        std::chrono::steady_clock::now() + std::chrono::seconds(30);
    while (std::chrono::steady_clock::now() < until) {
      bool left = false;
      std::uint64_t held = 0;
      for (const auto& client : clients) {
        left |= client->Pump(limit);
        held += client->unanswered();
      }
      if (!left && held <= bound) return true;
    }
    return false;
  }
};

TEST_F(MemoryTest, AMessageThatClaimsGigabytesIsCutOff) {
  const std::int64_t before = ResidentMiB();
  RawHttp2 client(listeners_->public_port(), kInfer, 1, 3u << 30);
  while (client.Pump(512 * kMiB)) {
  }
  EXPECT_EQ(client.unanswered(), 0u);
  EXPECT_LT(ResidentMiB() - before, 256);
}

TEST_F(MemoryTest, ManyMessagesThatDoNotEndAreCutOff) {
  EXPECT_TRUE(HoldsAtMost(32 * kMiB, listeners_->public_port(), kInfer,
                          8 * kMiB, 2 * kMiB));
  EXPECT_TRUE(Infer(GoodObservation("after")).status.ok());
}

TEST_F(MemoryTest, TheProbeHasABoundOfItsOwn) {
  for (const char* method : {kCheck, kWatch}) {
    EXPECT_TRUE(HoldsAtMost(16 * kMiB, listeners_->probe_port(), method,
                            8 * kMiB, 2 * kMiB))
        << method;
  }
}

class BurstTest : public RpcFixture {
 protected:
  // What 64 calls at once, of 8 MiB each, ended with.
  std::vector<grpc::Status> Burst() {
    inference_.AnswerAtOnce();
    std::vector<std::shared_ptr<grpc::Channel>> channels;
    for (int i = 0; i < 4; ++i) {
      channels.push_back(Connect(listeners_->public_port()));
    }
    v1::InferRequest request;
    *request.mutable_observation() = GoodObservation("large");
    v1::Image& image = *request.mutable_observation()->add_images();
    image.set_encoding(v1::IMAGE_ENCODING_JPEG);
    image.set_data(std::string(8 * kMiB - 1024, 'x'));
    std::vector<std::thread> calls;
    std::vector<grpc::Status> statuses(64);
    for (std::size_t i = 0; i < statuses.size(); ++i) {
      calls.emplace_back([&, i] {
        grpc::ClientContext context;
        v1::InferResponse response;
        statuses[i] = v1::PolicyService::NewStub(channels[i % channels.size()])
                          ->Infer(&context, request, &response);
      });
    }
    for (std::thread& call : calls) call.join();
    return statuses;
  }
};

TEST_F(BurstTest, WhatTheDefaultLimitsLetInIsNeverReset) {
  for (const grpc::Status& status : Burst()) {
    EXPECT_TRUE(status.ok()) << status.error_message();
  }
}

// A connection that has no call yet is told to go away instead.
TEST_F(BurstTest, WhatIsNotLetInIsToldSo) {
  ListenerOptions options = FreePorts();
  options.max_unparsed_bytes = 32 * kMiB;
  Start(options, {});
  for (const grpc::Status& status : Burst()) {
    EXPECT_TRUE(status.ok() ||
                status.error_code() == grpc::StatusCode::RESOURCE_EXHAUSTED ||
                status.error_code() == grpc::StatusCode::UNAVAILABLE)
        << status.error_code() << " " << status.error_message();
  }
}

}  // namespace
}  // namespace piserve::server::rpc
