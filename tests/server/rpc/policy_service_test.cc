// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/policy_service.h"

#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <future>
#include <memory>
#include <string>
#include <thread>

#include "grpcpp/generic/generic_stub.h"
#include "gtest/gtest.h"
#include "model/error.h"
#include "server/rpc/codec.h"
#include "tests/server/loopback.h"
#include "tests/server/rpc/raw_http2.h"
#include "tests/server/rpc/rpc_fixture.h"

namespace piserve::server::rpc {
namespace {

using PolicyServiceTest = RpcFixture;

TEST_F(PolicyServiceTest, InferAnswersWithTheChunk) {
  inference_.AnswerAtOnce();
  const Outcome outcome = Infer(GoodObservation("r1"));
  ASSERT_TRUE(outcome.status.ok()) << outcome.status.error_message();
  const v1::InferResult& result = outcome.response.result();
  EXPECT_EQ(result.request_id(), "r1");
  EXPECT_EQ(result.actions().shape(0), 2);
  EXPECT_EQ(result.actions().shape(1), 3);
  EXPECT_EQ(result.actions().data().size(), 24);
  EXPECT_EQ(result.seed(), 7);
  ASSERT_EQ(result.stages_size(), 2);
  EXPECT_EQ(result.stages(0).stage(), "parse");
  EXPECT_EQ(result.stages(1).stage(), "gpu");
  EXPECT_EQ(observer_.completed(Method::kInfer, absl::StatusCode::kOk), 1);
}

TEST_F(PolicyServiceTest, InferPassesOnWhoAskedAndHowMuchTimeThereIs) {
  inference_.AnswerAtOnce();
  v1::InferRequest request;
  *request.mutable_observation() = GoodObservation("r1");
  grpc::ClientContext without_deadline;
  v1::InferResponse response;
  ASSERT_TRUE(stub_->Infer(&without_deadline, request, &response).ok());
  ASSERT_TRUE(Infer(GoodObservation("r2")).status.ok());

  const auto started = inference_.started();
  ASSERT_EQ(started.size(), 2);
  EXPECT_EQ(started[0].budget, absl::InfiniteDuration());
  EXPECT_GT(started[1].budget, absl::Seconds(15));
  // gRPC sends timeouts rounded up.
  EXPECT_LT(started[1].budget, absl::Seconds(21));
  EXPECT_EQ(started[0].peer, "ipv4:127.0.0.1");
  EXPECT_EQ(started[0].bytes, request.ByteSizeLong());
}

// tests/server/websocket/session_test.cc expects the same of the other wire.
TEST_F(PolicyServiceTest, APeerIsNamedByItsAddressAlone) {
  if (!HasIpv6()) GTEST_SKIP() << "this machine has no IPv6";
  ListenerOptions options = FreePorts();
  options.public_address = "[::]:0";
  options.plain_text = PlainText::kAnywhere;
  Start(options, {});
  inference_.AnswerAtOnce();
  const std::string port = std::to_string(listeners_->public_port());
  v1::InferRequest request;
  *request.mutable_observation() = GoodObservation("r1");
  for (const char* host : {"127.0.0.1:", "[::1]:"}) {
    grpc::ClientContext context;
    v1::InferResponse response;
    const auto stub = v1::PolicyService::NewStub(
        grpc::CreateChannel(host + port, grpc::InsecureChannelCredentials()));
    ASSERT_TRUE(stub->Infer(&context, request, &response).ok());
  }
  const auto started = inference_.started();
  ASSERT_EQ(started.size(), 2);
  EXPECT_EQ(started[0].peer, "ipv4:127.0.0.1");
  EXPECT_EQ(started[1].peer, "ipv6:%5B::1%5D");
}

// What a client in Go sends for the longest timeout it knows; gRPC's own sends
// none of more than 27000 hours.
TEST_F(PolicyServiceTest, ADeadlineCenturiesAwayIsNotPast) {
  inference_.AnswerAtOnce();
  v1::InferRequest request;
  *request.mutable_observation() = GoodObservation("r1");
  const std::string message = request.SerializeAsString();
  constexpr char kEndStream = 1, kEndHeaders = 4;
  const std::string call =
      Preface() +
      Frame(kHeaders, kEndHeaders, 1,
            CallHeaders("/piserve.v1.PolicyService/Infer") +
                Header("grpc-timeout", "2562048H")) +
      Frame(
          kData, kEndStream, 1,
          MessagePrefix(static_cast<std::uint32_t>(message.size())) + message);
  const int client = ConnectToLoopback(listeners_->public_port());
  ASSERT_EQ(send(client, call.data(), call.size(), MSG_NOSIGNAL),
            static_cast<ssize_t>(call.size()));
  observer_.AwaitSent(1);
  close(client);
  ASSERT_EQ(inference_.started().size(), 1);
  EXPECT_GT(inference_.started()[0].budget, absl::Hours(24 * 365 * 200));
}

TEST_F(PolicyServiceTest, TheMessageIsLetGoWithItsRequest) {
  inference_.AnswerAtOnce();
  ASSERT_TRUE(Infer(GoodObservation("r1")).status.ok());
  observer_.AwaitSent(1);
  EXPECT_TRUE(inference_.started()[0].storage.expired());
}

TEST_F(PolicyServiceTest, BadInputNamesItsField) {
  v1::ObservationRequest zero_steps = GoodObservation("r1");
  zero_steps.set_num_steps(0);
  const Outcome outcome = Infer(zero_steps);
  EXPECT_EQ(outcome.status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(ReasonIn(outcome.status), "ZERO_STEPS");
  EXPECT_EQ(FieldIn(outcome.status), "num_steps");
  EXPECT_EQ(outcome.pushback, "");
  EXPECT_TRUE(inference_.started().empty());
}

// What Inference may answer, and what the client must then see.
TEST_F(PolicyServiceTest, EveryAnswerOfInferenceReachesTheClient) {
  const absl::Status answers[] = {
      InvalidField("state", "WRONG_LENGTH", "got 1, want 8"),
      WithReason(absl::FailedPreconditionError("digest"), "DIGEST_DIFFERS"),
      WithReason(absl::NotFoundError("policy"), "UNKNOWN_POLICY"),
      WithReason(absl::DeadlineExceededError("late"), "CANNOT_MEET"),
      WithReason(absl::AbortedError("old"), "TOO_OLD"),
      WithReason(absl::InternalError("not finite"), "NOT_FINITE"),
      WithRetryAfter(WithReason(absl::ResourceExhaustedError("full"), "FULL"),
                     absl::Milliseconds(40)),
      WithRetryAfter(WithReason(absl::UnavailableError("drain"), "DRAINING"),
                     absl::ZeroDuration()),
  };
  for (const absl::Status& answer : answers) {
    inference_.AnswerBy([&](const auto&) { return answer; });
    const Outcome outcome = Infer(GoodObservation("r1"));
    EXPECT_EQ(static_cast<int>(outcome.status.error_code()),
              static_cast<int>(answer.code()));
    EXPECT_EQ(ReasonIn(outcome.status), ReasonOf(answer));
    EXPECT_EQ(FieldIn(outcome.status), FieldOf(answer).value_or(""));
    EXPECT_EQ(DetailIn<google::rpc::RetryInfo>(outcome.status).has_value(),
              RetryAfterOf(answer).has_value());
    EXPECT_EQ(
        outcome.pushback,
        RetryAfterOf(answer).has_value()
            ? std::to_string(absl::ToInt64Milliseconds(*RetryAfterOf(answer)))
            : "");
  }
}

TEST_F(PolicyServiceTest, AnAnswerAfterItsDeadlineIsWithheld) {
  inference_.AnswerBy([](const InferenceRequest& request) {
    InferenceReply reply = ReplyTo(request);
    reply.deadline_served = absl::Nanoseconds(1);
    return reply;
  });
  const Outcome outcome = Infer(GoodObservation("r1"));
  EXPECT_EQ(outcome.status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_EQ(ReasonIn(outcome.status), "LATE");
}

TEST_F(PolicyServiceTest, DrainingIsToldBeforeTheContentsAreJudged) {
  directory_.SetAvailability(
      WithRetryAfter(WithReason(absl::UnavailableError("draining"), "DRAINING"),
                     absl::ZeroDuration()));
  v1::ObservationRequest bad = GoodObservation("r1");
  bad.set_num_steps(0);
  const Outcome outcome = Infer(bad);
  EXPECT_EQ(outcome.status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(ReasonIn(outcome.status), "DRAINING");
  EXPECT_EQ(outcome.pushback, "0");
}

TEST_F(PolicyServiceTest, ClientsThatGiveUpCancelTheirRequest) {
  grpc::ClientContext context;
  v1::InferRequest request;
  *request.mutable_observation() = GoodObservation("r1");
  auto call = std::async(std::launch::async, [&] {
    v1::InferResponse response;
    return stub_->Infer(&context, request, &response);
  });
  inference_.AwaitWaiting(1);
  context.TryCancel();
  EXPECT_EQ(call.get().error_code(), grpc::StatusCode::CANCELLED);
  inference_.AwaitCancelled(1);
  observer_.AwaitCompleted(1);
  EXPECT_EQ(observer_.completed(Method::kInfer, absl::StatusCode::kCancelled),
            1);
}

TEST_F(PolicyServiceTest, ARequestWhoseDeadlinePassesIsCancelled) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() +
                       std::chrono::milliseconds(50));
  v1::InferRequest request;
  *request.mutable_observation() = GoodObservation("r1");
  v1::InferResponse response;
  EXPECT_EQ(stub_->Infer(&context, request, &response).error_code(),
            grpc::StatusCode::DEADLINE_EXCEEDED);
  inference_.AwaitCancelled(1);
}

TEST_F(PolicyServiceTest, OversizeMessagesAreRefusedUnseen) {
  inference_.AnswerAtOnce();
  v1::ObservationRequest large = GoodObservation("r1");
  v1::Image* image = large.add_images();
  image->set_encoding(v1::IMAGE_ENCODING_RGB8);
  image->set_data(std::string((8 << 20) - 1000, 'x'));
  EXPECT_TRUE(Infer(large).status.ok());
  image->set_data(std::string(8 << 20, 'x'));
  EXPECT_EQ(Infer(large).status.error_code(),
            grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(observer_.received(), 1);
}

// What a client sends that does not use our generated code.
grpc::Status CallRaw(const std::shared_ptr<grpc::Channel>& channel,
                     const std::string& method, const std::string& bytes) {
  grpc::GenericStub stub(channel);
  grpc::ClientContext context;
  const grpc::Slice slice(bytes);
  const grpc::ByteBuffer request(&slice, 1);
  grpc::ByteBuffer response;
  std::promise<grpc::Status> done;
  stub.UnaryCall(
      &context, "/piserve.v1.PolicyService/" + method, {}, &request, &response,
      [&](grpc::Status status) { done.set_value(std::move(status)); });
  return done.get_future().get();
}

TEST_F(PolicyServiceTest, BytesThatAreNoMessageAreInvalidArgument) {
  for (const char* method : {"Infer", "GetPolicyInfo"}) {
    const grpc::Status status = CallRaw(channel_, method, "\xff\xff\xff\xff");
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
    EXPECT_EQ(ReasonIn(status), "MALFORMED_MESSAGE");
  }
}

TEST_F(PolicyServiceTest, APromptThatIsNotUtf8IsABadRequestAboutIt) {
  const grpc::Status status =
      CallRaw(channel_, "Infer", std::string("\x0a\x04\x62\x02\xff\xfe"));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(FieldIn(status), "prompt");
}

TEST_F(PolicyServiceTest, GetPolicyInfoDescribesAllOrOne) {
  grpc::ClientContext all, one, none;
  v1::GetPolicyInfoRequest request;
  v1::GetPolicyInfoResponse response;
  directory_.SetAvailability(absl::UnavailableError("warming up"));
  ASSERT_TRUE(stub_->GetPolicyInfo(&all, request, &response).ok());
  EXPECT_EQ(response.policies_size(), 2);
  request.set_policy("other");
  ASSERT_TRUE(stub_->GetPolicyInfo(&one, request, &response).ok());
  ASSERT_EQ(response.policies_size(), 1);
  EXPECT_EQ(response.policies(0).name(), "other");
  request.set_policy("third");
  const grpc::Status status = stub_->GetPolicyInfo(&none, request, &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(ReasonIn(status), "UNKNOWN_POLICY");
}

class WithKeysTest : public RpcFixture {
 protected:
  void SetUp() override {
    inference_.AnswerAtOnce();
    // sha256 of "open sesame" and of "swordfish".
    Start(FreePorts(),
          {{"lab",
            "41ef4bb0b23661e66301aac36066912dac037827b4ae63a7b1165a5aa93ed4eb",
            {}},
           {"guest",
            "b9f195c5cc7ef6afadbfbc42892ad47d3b24c6bc94bb510c4564a90a14e8b799",
            {"other"}}});
  }
};

TEST_F(WithKeysTest, TheCredentialIsJudgedBeforeAnythingElse) {
  directory_.SetAvailability(absl::UnavailableError("draining"));
  v1::ObservationRequest bad = GoodObservation("r1");
  bad.set_num_steps(0);
  const Outcome none = Infer(bad);
  EXPECT_EQ(none.status.error_code(), grpc::StatusCode::UNAUTHENTICATED);
  EXPECT_EQ(ReasonIn(none.status), "NO_CREDENTIAL");
  const Outcome wrong = Infer(bad, "Bearer guess");
  EXPECT_EQ(wrong.status.error_code(), grpc::StatusCode::UNAUTHENTICATED);
  EXPECT_EQ(ReasonIn(wrong.status), "BAD_CREDENTIAL");
  EXPECT_EQ(Infer(bad, "Bearer open sesame").status.error_code(),
            grpc::StatusCode::UNAVAILABLE);
}

TEST_F(WithKeysTest, AKeyOpensItsPoliciesOnly) {
  v1::ObservationRequest observation = GoodObservation("r1");  // means "fake"
  EXPECT_TRUE(Infer(observation, "Bearer open sesame").status.ok());
  const Outcome denied = Infer(observation, "Bearer swordfish");
  EXPECT_EQ(denied.status.error_code(), grpc::StatusCode::PERMISSION_DENIED);
  EXPECT_EQ(ReasonIn(denied.status), "POLICY_NOT_ALLOWED");
  observation.set_policy("other");
  EXPECT_TRUE(Infer(observation, "api-key swordfish").status.ok());
  const auto started = inference_.started();
  ASSERT_EQ(started.size(), 2);
  EXPECT_EQ(started[0].identity, "lab");
  EXPECT_EQ(started[1].identity, "guest");
}

TEST_F(WithKeysTest, GetPolicyInfoListsWhatTheKeyOpens) {
  grpc::ClientContext context, anonymous, denied;
  context.AddMetadata("authorization", "Bearer swordfish");
  denied.AddMetadata("authorization", "Bearer swordfish");
  v1::GetPolicyInfoRequest request;
  v1::GetPolicyInfoResponse response;
  ASSERT_TRUE(stub_->GetPolicyInfo(&context, request, &response).ok());
  ASSERT_EQ(response.policies_size(), 1);
  EXPECT_EQ(response.policies(0).name(), "other");
  EXPECT_EQ(stub_->GetPolicyInfo(&anonymous, request, &response).error_code(),
            grpc::StatusCode::UNAUTHENTICATED);
  request.set_policy("fake");
  EXPECT_EQ(stub_->GetPolicyInfo(&denied, request, &response).error_code(),
            grpc::StatusCode::PERMISSION_DENIED);
}

TEST_F(WithKeysTest, AStreamWithoutCredentialEndsAtOnce) {
  grpc::ClientContext context;
  auto stream = stub_->InferStream(&context);
  v1::InferStreamResponse response;
  EXPECT_FALSE(stream->Read(&response));
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::UNAUTHENTICATED);
}

}  // namespace
}  // namespace piserve::server::rpc
