// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/infer_stream_call.h"

#include <chrono>
#include <future>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <thread>

#include "grpcpp/generic/generic_stub.h"
#include "gtest/gtest.h"
#include "model/error.h"
#include "tests/server/rpc/rpc_fixture.h"

namespace piserve::server::rpc {
namespace {

class InferStreamTest : public RpcFixture {
 protected:
  void SetUp() override {
    RpcFixture::SetUp();
    Open();
  }

  void Open() {
    context_ = std::make_unique<grpc::ClientContext>();
    stream_ = stub_->InferStream(context_.get());
  }

  void TearDown() override {
    stream_.reset();
    RpcFixture::TearDown();
  }

  void Send(const v1::ObservationRequest& observation,
            std::uint64_t timeout_us = 0) {
    v1::InferStreamRequest request;
    *request.mutable_observation() = observation;
    request.set_timeout_us(timeout_us);
    ASSERT_TRUE(stream_->Write(request));
  }
  void Send(const std::string& id) { Send(GoodObservation(id)); }

  v1::InferStreamResponse Receive() {
    v1::InferStreamResponse response;
    EXPECT_TRUE(stream_->Read(&response));
    return response;
  }

  // Half-closes and expects nothing more but OK.
  void EndWell() {
    stream_->WritesDone();
    ExpectOk();
  }
  void ExpectOk() {
    v1::InferStreamResponse response;
    EXPECT_FALSE(stream_->Read(&response)) << response.ShortDebugString();
    const grpc::Status status = stream_->Finish();
    EXPECT_TRUE(status.ok()) << status.error_message();
  }

  static std::string ReasonIn(const v1::Error& error) {
    for (const auto& any : error.details()) {
      google::rpc::ErrorInfo info;
      if (any.UnpackTo(&info)) return info.reason();
    }
    return "";
  }

  static void ExpectError(const v1::InferStreamResponse& response,
                          const std::string& id, absl::StatusCode code,
                          const std::string& reason) {
    EXPECT_EQ(response.request_id(), id);
    EXPECT_EQ(response.error().code(), static_cast<int>(code))
        << response.ShortDebugString();
    EXPECT_EQ(ReasonIn(response.error()), reason);
  }

  std::unique_ptr<grpc::ClientContext> context_;
  std::unique_ptr<
      grpc::ClientReaderWriter<v1::InferStreamRequest, v1::InferStreamResponse>>
      stream_;
};

TEST_F(InferStreamTest, RepliesComeInTheOrderInWhichTheyAreReady) {
  Send("a");
  Send("b");
  Send("c");
  inference_.AwaitWaiting(3);
  for (const char* id : {"c", "a", "b"}) {
    inference_.Answer(id);
    const v1::InferStreamResponse response = Receive();
    EXPECT_EQ(response.request_id(), id);
    EXPECT_EQ(response.result().request_id(), id);
  }
  EndWell();
}

TEST_F(InferStreamTest, AnErrorBelongsToItsRequestAndTheStreamGoesOn) {
  inference_.AnswerAtOnce();
  v1::ObservationRequest bad = GoodObservation("bad");
  bad.set_num_steps(0);
  Send(bad);
  ExpectError(Receive(), "bad", absl::StatusCode::kInvalidArgument,
              "ZERO_STEPS");
  inference_.AnswerBy([](const auto&) {
    return WithReason(absl::AbortedError("superseded"), "SUPERSEDED");
  });
  Send("old");
  ExpectError(Receive(), "old", absl::StatusCode::kAborted, "SUPERSEDED");
  inference_.AnswerAtOnce();
  Send("good");
  EXPECT_TRUE(Receive().has_result());
  EndWell();
}

TEST_F(InferStreamTest, ARequestNeedsAnId) {
  inference_.AnswerAtOnce();
  Send("");
  ExpectError(Receive(), "", absl::StatusCode::kInvalidArgument, "MISSING");
  Send(std::string(65, 'x'));
  ExpectError(Receive(), "", absl::StatusCode::kInvalidArgument, "TOO_LONG");
  EndWell();
}

TEST_F(InferStreamTest, AnIdInFlightCannotBeUsedAgainUntilItIsAnswered) {
  Send("a");
  inference_.AwaitWaiting(1);
  Send("a");
  ExpectError(Receive(), "a", absl::StatusCode::kInvalidArgument, "DOUBLED");
  inference_.Answer("a");
  EXPECT_TRUE(Receive().has_result());
  Send("a");
  inference_.AwaitWaiting(1);
  inference_.Answer("a");
  EXPECT_TRUE(Receive().has_result());
  EndWell();
}

TEST_F(InferStreamTest, OneMoreThanSixtyFourInFlightIsRefused) {
  for (int i = 0; i < kMaxInFlight; ++i) Send(std::to_string(i));
  inference_.AwaitWaiting(kMaxInFlight);
  Send("one more");
  const v1::InferStreamResponse refusal = Receive();
  ExpectError(refusal, "one more", absl::StatusCode::kResourceExhausted,
              "STREAM_FULL");
  google::rpc::Status rich;
  *rich.mutable_details() = refusal.error().details();
  EXPECT_TRUE(DetailIn<google::rpc::RetryInfo>(rich).has_value());
  inference_.Answer("63");
  EXPECT_EQ(Receive().request_id(), "63");
  Send("again");
  inference_.AwaitWaiting(kMaxInFlight);
  stream_->WritesDone();
  for (int i = 0; i < kMaxInFlight; ++i) {
    inference_.Answer("");
    EXPECT_TRUE(Receive().has_result());
  }
  ExpectOk();
}

TEST_F(InferStreamTest, HalfCloseIsAnsweredInFullBeforeOk) {
  Send("a");
  Send("b");
  stream_->WritesDone();
  inference_.AwaitWaiting(2);
  inference_.Answer("b");
  inference_.Answer("a");
  std::set<std::string> ids = {Receive().request_id(), Receive().request_id()};
  EXPECT_EQ(ids, (std::set<std::string>{"a", "b"}));
  ExpectOk();
}

TEST_F(InferStreamTest, AnEmptyStreamEndsWell) { EndWell(); }

TEST_F(InferStreamTest, TimeoutIsTheBudgetFromReceipt) {
  inference_.AnswerAtOnce();
  Send(GoodObservation("a"), 250'000);
  Send(GoodObservation("b"), 0);
  Send(GoodObservation("c"), std::numeric_limits<std::uint64_t>::max());
  for (int i = 0; i < 3; ++i) Receive();
  const auto started = inference_.started();
  EXPECT_EQ(started[0].budget, absl::Milliseconds(250));
  EXPECT_EQ(started[1].budget, absl::InfiniteDuration());
  EXPECT_GT(started[2].budget, absl::Hours(1'000'000));
  EndWell();
}

TEST_F(InferStreamTest, ClientsThatCancelTakeTheirRequestsAlong) {
  for (int i = 0; i < 10; ++i) Send(std::to_string(i));
  inference_.AwaitWaiting(10);
  context_->TryCancel();
  inference_.AwaitCancelled(10);
  observer_.AwaitCompleted(10);
  EXPECT_EQ(
      observer_.completed(Method::kInferStream, absl::StatusCode::kCancelled),
      10);
  EXPECT_EQ(stream_->Finish().error_code(), grpc::StatusCode::CANCELLED);
}

TEST_F(InferStreamTest, ClientsThatVanishTakeTheirRequestsAlong) {
  // A stream whose client dies: the channel goes without a word.
  auto channel = Connect(listeners_->public_port());
  auto stub = v1::PolicyService::NewStub(channel);
  grpc::ClientContext context;
  auto stream = stub->InferStream(&context);
  v1::InferStreamRequest request;
  *request.mutable_observation() = GoodObservation("a");
  ASSERT_TRUE(stream->Write(request));
  inference_.AwaitWaiting(1);
  context.TryCancel();
  stream->Finish();
  stream.reset();
  stub.reset();
  channel.reset();
  inference_.AwaitCancelled(1);
  // The other stream of another connection is not touched.
  Send("b");
  inference_.AwaitWaiting(1);
  inference_.Answer("b");
  EXPECT_TRUE(Receive().has_result());
  EndWell();
}

TEST_F(InferStreamTest, AStreamOutlivesItsClientWhileARequestIsComputed) {
  inference_.IgnoreCancel();
  Send("a");
  inference_.AwaitWaiting(1);
  context_->TryCancel();
  inference_.AwaitCancelled(1);
  stream_->Finish();
  EXPECT_EQ(observer_.completed(), 0);
  inference_.Answer("a");  // Nobody reads it; nothing leaks (ASan).
  EXPECT_EQ(observer_.completed(Method::kInferStream, absl::StatusCode::kOk),
            1);
}

TEST_F(InferStreamTest, DrainingEndsAnIdleStreamAndTellsWhereToGo) {
  listeners_->Drain();
  v1::InferStreamResponse response;
  EXPECT_FALSE(stream_->Read(&response));
  const grpc::Status status = stream_->Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(RpcFixture::ReasonIn(status), "DRAINING");
  EXPECT_EQ(
      context_->GetServerTrailingMetadata().count("grpc-retry-pushback-ms"), 1);
}

TEST_F(InferStreamTest, DrainingAnswersWhatWasAcceptedAndRefusesTheRest) {
  Send("accepted");
  inference_.AwaitWaiting(1);
  directory_.SetAvailability(
      WithRetryAfter(WithReason(absl::UnavailableError("draining"), "DRAINING"),
                     absl::ZeroDuration()));
  listeners_->Drain();
  Send("late");
  ExpectError(Receive(), "late", absl::StatusCode::kUnavailable, "DRAINING");
  inference_.Answer("accepted");
  EXPECT_EQ(Receive().request_id(), "accepted");
  v1::InferStreamResponse response;
  EXPECT_FALSE(stream_->Read(&response));
  EXPECT_EQ(stream_->Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
}

// The stream must not end between a message's arrival and its registration.
TEST_F(InferStreamTest, DrainingAnswersWhatIsJustBeingTaken) {
  observer_.OnNextReceived([this] { listeners_->Drain(); });
  Send("taken");
  inference_.AwaitWaiting(1);
  inference_.Answer("taken");
  EXPECT_EQ(Receive().request_id(), "taken");
  v1::InferStreamResponse response;
  EXPECT_FALSE(stream_->Read(&response));
  EXPECT_EQ(stream_->Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
}

TEST_F(InferStreamTest, AStreamOpenedWhileDrainingEndsAtOnce) {
  listeners_->Drain();
  Open();
  v1::InferStreamResponse response;
  EXPECT_FALSE(stream_->Read(&response));
  EXPECT_EQ(stream_->Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
}

TEST_F(InferStreamTest, ShutdownCancelsWhatOutlastsTheGrace) {
  Send("stuck");
  inference_.AwaitWaiting(1);
  listeners_->Shutdown(absl::Milliseconds(50));
  EXPECT_EQ(
      observer_.completed(Method::kInferStream, absl::StatusCode::kCancelled),
      1);
}

// A client that sends and never reads must not grow the server's memory: its
// answers stop the reading of its requests, so its writes stop.
TEST_F(InferStreamTest, AClientThatNeverReadsIsNotReadFromForever) {
  inference_.AnswerBy([](const InferenceRequest& request) {
    InferenceReply reply = ReplyTo(request);
    reply.actions.assign(16384, 0);  // 64 KiB, so that the socket fills up
    return reply;
  });
  std::atomic<int> sent = 0;
  std::thread writer([&] {
    v1::InferStreamRequest request;
    *request.mutable_observation() = GoodObservation("x");
    request.mutable_observation()->set_prompt(std::string(4096, 'x'));
    while (sent < 100'000) {
      request.mutable_observation()->set_request_id(std::to_string(sent));
      if (!stream_->Write(request)) return;
      ++sent;
    }
  });
  // The number of requests that were taken stops rising.
  int before = -1;
  while (before != observer_.received() || before == 0) {
    before = observer_.received();
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
  }
  EXPECT_LT(before, 2000);
  context_->TryCancel();
  writer.join();
  EXPECT_LT(sent, 100'000);
}

// One that does not read in time: what waits for it grows old.
TEST_F(InferStreamTest, AnAnswerThatWaitedForItsReaderTooLongIsNotGiven) {
  inference_.AnswerBy([](const InferenceRequest& request) {
    InferenceReply reply = ReplyTo(request);
    reply.actions.assign(16384, 0);  // 64 KiB, so that the windows fill up
    reply.deadline_served = absl::Milliseconds(500);
    return reply;
  });
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);
  arguments.SetInt(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, 1024);
  channel_ = grpc::CreateCustomChannel(
      "127.0.0.1:" + std::to_string(listeners_->public_port()),
      grpc::InsecureChannelCredentials(), arguments);
  stub_ = v1::PolicyService::NewStub(channel_);
  Open();
  constexpr int kRequests = 40;
  for (int i = 0; i < kRequests; ++i) Send(std::to_string(i));
  while (observer_.received() < kRequests) std::this_thread::yield();
  std::this_thread::sleep_for(std::chrono::milliseconds(700));
  stream_->WritesDone();
  int given = 0;
  int late = 0;
  for (int i = 0; i < kRequests; ++i) {
    const v1::InferStreamResponse response = Receive();
    if (response.has_result()) {
      ++given;
      continue;
    }
    ++late;
    ExpectError(response, response.request_id(),
                absl::StatusCode::kDeadlineExceeded, "LATE");
  }
  ExpectOk();
  EXPECT_LE(given, 2) << "handed to gRPC in time";
  EXPECT_EQ(observer_.completed(), kRequests);
  EXPECT_EQ(observer_.completed(Method::kInferStream, absl::StatusCode::kOk),
            given);
  EXPECT_EQ(observer_.completed(Method::kInferStream,
                                absl::StatusCode::kDeadlineExceeded),
            late);
}

TEST_F(InferStreamTest, BytesThatAreNoMessageDoNotEndTheStream) {
  inference_.AnswerAtOnce();
  grpc::GenericStub stub(channel_);
  grpc::ClientContext context;
  grpc::CompletionQueue queue;
  auto raw = stub.PrepareCall(&context, "/piserve.v1.PolicyService/InferStream",
                              &queue);
  const auto await = [&] {
    void* tag;
    bool ok = false;
    EXPECT_TRUE(queue.Next(&tag, &ok));
    return ok;
  };
  raw->StartCall(nullptr);
  EXPECT_TRUE(await());
  v1::InferStreamRequest good;
  *good.mutable_observation() = GoodObservation("good");
  // Id "u" and an unknown field; no message at all; a good one.
  const std::string messages[] = {
      std::string("\x0a\x06\x1a\x01u\xf8\x06\x01", 8), "\xff\xff",
      good.SerializeAsString()};
  const char* reasons[] = {"UNKNOWN_FIELD", "MALFORMED_MESSAGE", ""};
  const char* ids[] = {"u", "", "good"};
  for (int i = 0; i < 3; ++i) {
    const grpc::Slice slice(messages[i]);
    raw->Write(grpc::ByteBuffer(&slice, 1), nullptr);
    EXPECT_TRUE(await());
    grpc::ByteBuffer bytes;
    raw->Read(&bytes, nullptr);
    ASSERT_TRUE(await());
    v1::InferStreamResponse response;
    grpc::ProtoBufferReader reader(&bytes);
    ASSERT_TRUE(response.ParseFromZeroCopyStream(&reader));
    EXPECT_EQ(response.request_id(), ids[i]);
    EXPECT_EQ(ReasonIn(response.error()), reasons[i]);
  }
  raw->WritesDone(nullptr);
  EXPECT_TRUE(await());
  grpc::Status status;
  raw->Finish(&status, nullptr);
  EXPECT_TRUE(await());
  EXPECT_TRUE(status.ok());
  queue.Shutdown();
  EndWell();
}

}  // namespace
}  // namespace piserve::server::rpc
