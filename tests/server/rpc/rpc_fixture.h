// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "grpcpp/create_channel.h"
#include "gtest/gtest.h"
#include "piserve/v1/policy.grpc.pb.h"
#include "server/rpc/listeners.h"
#include "tests/server/rpc/fakes.h"

namespace piserve::server::rpc {

// The three listeners on free loopback ports, over fakes.
class RpcFixture : public testing::Test {
 protected:
  static ListenerOptions FreePorts() {
    ListenerOptions options;
    options.public_address = "127.0.0.1:0";
    options.probe_address = "127.0.0.1:0";
    options.admin_address = "127.0.0.1:0";
    return options;
  }

  void SetUp() override { Start(FreePorts(), {}); }

  void Start(const ListenerOptions& options, const std::vector<ApiKey>& keys) {
    listeners_.reset();
    auto authenticator = Authenticator::Create(keys);
    ASSERT_TRUE(authenticator.ok()) << authenticator.status();
    authenticator_ = *std::move(authenticator);
    auto listeners = Listeners::Create(options, backends(), control_);
    ASSERT_TRUE(listeners.ok()) << listeners.status();
    listeners_ = *std::move(listeners);
    channel_ = Connect(listeners_->public_port());
    stub_ = v1::PolicyService::NewStub(channel_);
  }

  void TearDown() override {
    channel_.reset();
    if (listeners_ != nullptr) listeners_->Shutdown(absl::Seconds(10));
    EXPECT_EQ(observer_.received(), observer_.completed());
  }

  Backends backends() {
    return {inference_, directory_, observer_, authenticator_,
            batching::Clock::Real()};
  }

  // A connection of its own.
  static std::shared_ptr<grpc::Channel> Connect(int port) {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    return grpc::CreateCustomChannel("127.0.0.1:" + std::to_string(port),
                                     grpc::InsecureChannelCredentials(),
                                     arguments);
  }

  // A small request that every check lets through.
  static v1::ObservationRequest GoodObservation(const std::string& id) {
    v1::ObservationRequest observation;
    observation.set_request_id(id);
    observation.set_prompt("pick up the block");
    observation.add_state(0.5);
    return observation;
  }

  struct Outcome {
    grpc::Status status;
    v1::InferResponse response;
    std::string pushback;  // empty where the trailer is absent
  };

  Outcome Infer(const v1::ObservationRequest& observation,
                const std::string& authorization = "") {
    Outcome outcome;
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() +
                         std::chrono::seconds(20));
    if (!authorization.empty()) {
      context.AddMetadata("authorization", authorization);
    }
    v1::InferRequest request;
    *request.mutable_observation() = observation;
    outcome.status = stub_->Infer(&context, request, &outcome.response);
    const auto& trailers = context.GetServerTrailingMetadata();
    if (const auto it = trailers.find("grpc-retry-pushback-ms");
        it != trailers.end()) {
      outcome.pushback = std::string(it->second.data(), it->second.size());
    }
    return outcome;
  }

  template <typename Detail>
  static std::optional<Detail> DetailIn(const google::rpc::Status& rich) {
    for (const auto& any : rich.details()) {
      Detail detail;
      if (any.UnpackTo(&detail)) return detail;
    }
    return std::nullopt;
  }
  template <typename Detail>
  static std::optional<Detail> DetailIn(const grpc::Status& status) {
    google::rpc::Status rich;
    EXPECT_TRUE(rich.ParseFromString(status.error_details()));
    return DetailIn<Detail>(rich);
  }
  static std::string ReasonIn(const grpc::Status& status) {
    const auto info = DetailIn<google::rpc::ErrorInfo>(status);
    return info.has_value() ? info->reason() : "";
  }
  static std::string FieldIn(const grpc::Status& status) {
    const auto bad = DetailIn<google::rpc::BadRequest>(status);
    return bad.has_value() ? bad->field_violations(0).field() : "";
  }

  FakeInference inference_;
  FakeDirectory directory_;
  CountingObserver observer_;
  FakeControl control_;
  Authenticator authenticator_;
  std::unique_ptr<Listeners> listeners_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::PolicyService::Stub> stub_;
};

}  // namespace piserve::server::rpc
