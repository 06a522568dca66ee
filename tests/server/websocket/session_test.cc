// SPDX-License-Identifier: Apache-2.0
#include "server/websocket/session.h"

#include <chrono>
#include <future>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "tests/server/loopback.h"
#include "tests/server/websocket/front_fixture.h"

namespace piserve::server::websocket {
namespace {

using rpc::Method;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

class SessionTest : public FrontFixture {};

TEST_F(SessionTest, TheFirstFrameIsTheMetadata) {
  Client client(port());
  ASSERT_EQ(client.Upgrade(), 101);
  EXPECT_EQ(client.response()[boost::beast::http::field::server], "piserve");
  const Client::Frame frame = client.Receive();
  EXPECT_FALSE(frame.text);
  EXPECT_EQ(frame.bytes, "\x81\xaareset_pose\x91" + packing::Double(0.5));
}

TEST_F(SessionTest, AnswersInOpenpisForm) {
  inference_.AnswerAtOnce();
  auto client = Connect();
  client->Send(Observation(0.25));
  const Client::Frame first = client->Receive();
  EXPECT_EQ(ValueOf(first), 0.25);
  EXPECT_EQ(Time(first, "policy_timing", "infer_ms"), 0.042);
  EXPECT_GT(Time(first, "server_timing", "infer_ms"), 0);
  EXPECT_EQ(Time(first, "server_timing", "prev_total_ms"), std::nullopt);
  client->Send(Observation(0.5));
  const Client::Frame second = client->Receive();
  EXPECT_EQ(ValueOf(second), 0.5);
  // The first one's, receiving and sending included.
  EXPECT_GT(Time(second, "server_timing", "prev_total_ms"),
            Time(first, "server_timing", "infer_ms"));
  EXPECT_EQ(observer_.completed(Method::kWebsocketInfer, absl::StatusCode::kOk),
            2);
}

TEST_F(SessionTest, ARequestCarriesPeerPolicyAndSizeAndNoDeadline) {
  inference_.AnswerAtOnce();
  auto client = Connect();
  client->Send(Observation(1));
  client->Receive();
  const auto started = inference_.started();
  ASSERT_EQ(started.size(), 1u);
  EXPECT_EQ(started[0].policy, "libero");
  EXPECT_EQ(started[0].peer, "ipv4:127.0.0.1");
  EXPECT_EQ(started[0].budget, absl::InfiniteDuration());
  EXPECT_EQ(started[0].bytes, Observation(1).size());
  EXPECT_TRUE(started[0].storage.expired());
}

// So that a client is one client on both wires, whatever they listen on.
TEST_F(SessionTest, APeerIsNamedAsGrpcNamesIt) {
  if (!HasIpv6()) GTEST_SKIP() << "this machine has no IPv6";
  ListenerOptions options = FreePort();
  options.address = "[::]:0";
  Start(options);
  inference_.AnswerAtOnce();
  for (const char* host : {"127.0.0.1", "::1"}) {
    Client client(port(), host);
    ASSERT_EQ(client.Upgrade(), 101);
    client.Send(Observation(1));
    client.Receive();
    client.Receive();
  }
  const auto started = inference_.started();
  ASSERT_EQ(started.size(), 2u);
  EXPECT_EQ(started[0].peer, "ipv4:127.0.0.1");
  EXPECT_EQ(started[1].peer, "ipv6:%5B::1%5D");
}

TEST_F(SessionTest, AnErrorIsATextFrameAndTheConnectionStays) {
  inference_.AnswerAtOnce();
  auto client = Connect();
  const std::vector<std::pair<std::string, const char*>> bad = {
      {"not msgpack", "INVALID_ARGUMENT (MALFORMED_MESSAGE): message: "},
      {"", "INVALID_ARGUMENT (MALFORMED_MESSAGE): message: "},
      {packing::LiberoMessage("observation/state", packing::Doubles({1})),
       "INVALID_ARGUMENT (STATE_LENGTH): observation/state: got shape [1], "
       "want [8]"},
      {packing::LiberoMessage("observation/image",
                              packing::Array("|u1", {9, 9, 3}, "short")),
       "INVALID_ARGUMENT (BAD_ARRAY): observation/image: got 5 bytes"}};
  for (const auto& [message, text] : bad) {
    client->Send(message);
    const Client::Frame frame = client->Receive();
    EXPECT_TRUE(frame.text);
    EXPECT_THAT(frame.bytes, StartsWith(text));
  }
  client->SendText("{}");
  EXPECT_THAT(client->Receive().bytes, HasSubstr("text frame"));
  client->Send(Observation(3));
  EXPECT_EQ(ValueOf(client->Receive()), 3);
  EXPECT_EQ(observer_.completed(Method::kWebsocketInfer,
                                absl::StatusCode::kInvalidArgument),
            5);
}

TEST_F(SessionTest, AnErrorSaysWhenToComeBack) {
  inference_.AnswerBy([](const InferenceRequest&) {
    return WithRetryAfter(
        WithReason(absl::ResourceExhaustedError("the queue is full in rows"),
                   "QUEUE_FULL"),
        absl::Microseconds(11200));
  });
  auto client = Connect();
  client->Send(Observation(1));
  EXPECT_EQ(client->Receive().bytes,
            "RESOURCE_EXHAUSTED (QUEUE_FULL): the queue is full in rows; try "
            "again after 12ms");
}

TEST_F(SessionTest, AnErrorShowsNothingOfOurs) {
  inference_.AnswerBy([](const InferenceRequest&) {
    return absl::InternalError("ATen at /src/network.cc:12\n#0 0xdead");
  });
  auto client = Connect();
  client->Send(Observation(1));
  EXPECT_EQ(client->Receive().bytes,
            "INTERNAL: internal error; the server's log has the cause");
}

TEST_F(SessionTest, AnAnswerAfterItsDeadlineIsNotGiven) {
  inference_.AnswerBy([](const InferenceRequest& request) {
    InferenceReply reply = rpc::ReplyTo(request);
    reply.deadline_served = absl::Nanoseconds(1);
    return reply;
  });
  auto client = Connect();
  client->Send(Observation(1));
  EXPECT_THAT(client->Receive().bytes, StartsWith("DEADLINE_EXCEEDED (LATE)"));
  EXPECT_EQ(observer_.completed(Method::kWebsocketInfer,
                                absl::StatusCode::kDeadlineExceeded),
            1);
}

TEST_F(SessionTest, AnAnswerThatWaitedForItsReaderTooLongIsNotGiven) {
  inference_.AnswerBy([](const InferenceRequest& request) {
    InferenceReply reply = rpc::ReplyTo(request);
    reply.horizon = 600'000;  // 16 MB on the wire; sockets hold 36 MB
    reply.actions.assign(3 * 600'000, 0);
    reply.deadline_served = absl::Seconds(1);
    return reply;
  });
  auto client = Connect();
  for (int i = 0; i < 4; ++i) client->Send(Observation(i));
  while (observer_.received() < 4) std::this_thread::yield();
  std::this_thread::sleep_for(std::chrono::milliseconds(1200));
  for (int i = 0; i < 3; ++i) client->Receive();
  EXPECT_THAT(client->Receive().bytes, StartsWith("DEADLINE_EXCEEDED (LATE)"));
  observer_.AwaitCompleted(4);
  EXPECT_GE(observer_.completed(Method::kWebsocketInfer,
                                absl::StatusCode::kDeadlineExceeded),
            1);
}

TEST_F(SessionTest, AnswersComeInTheOrderOfTheRequests) {
  auto client = Connect();
  client->Send(Observation(1));
  client->Send(Observation(2));
  client->Send("bad");
  inference_.AwaitWaiting(2);
  inference_.Answer("ws-1-2");
  inference_.Answer("ws-1-1");
  EXPECT_EQ(ValueOf(client->Receive()), 1);
  EXPECT_EQ(ValueOf(client->Receive()), 2);
  EXPECT_TRUE(client->Receive().text);
}

TEST_F(SessionTest, RequestsBeyondTheLimitWait) {
  ListenerOptions options = FreePort();
  options.max_in_flight = 2;
  Start(options);
  auto client = Connect();
  for (int i = 1; i <= 3; ++i) client->Send(Observation(i));
  inference_.AwaitWaiting(2);
  EXPECT_EQ(observer_.received(), 2);
  inference_.Answer("ws-1-1");
  EXPECT_EQ(ValueOf(client->Receive()), 1);
  inference_.AwaitWaiting(2);
  inference_.Answer("ws-1-3");
  inference_.Answer("ws-1-2");
  EXPECT_EQ(ValueOf(client->Receive()), 2);
  EXPECT_EQ(ValueOf(client->Receive()), 3);
}

TEST_F(SessionTest, APingIsAnsweredDuringInference) {
  auto client = Connect();
  client->Send(Observation(1));
  inference_.AwaitWaiting(1);
  // The answer is given by nothing but the pong.
  client->ws().control_callback(
      [&](boost::beast::websocket::frame_type type, auto payload) {
        if (type != boost::beast::websocket::frame_type::pong) return;
        EXPECT_EQ(payload, "here?");
        inference_.Answer("ws-1-1");
      });
  client->ws().ping("here?");
  EXPECT_EQ(ValueOf(client->Receive()), 1);
}

TEST_F(SessionTest, AFrameOverTheLimitEndsItsConnectionAlone) {
  ListenerOptions options = FreePort();
  options.max_frame_bytes = 4096;
  Start(options);
  inference_.AnswerAtOnce();
  auto large = Connect();
  auto other = Connect();
  large->Send(std::string(4097, 'x'));
  EXPECT_EQ(large->Receive().close_code, 1009);
  EXPECT_EQ(observer_.received(), 0);
  other->Send(Observation(1));
  EXPECT_EQ(ValueOf(other->Receive()), 1);
}

TEST_F(SessionTest, AFrameInPiecesIsOneRequest) {
  inference_.AnswerAtOnce();
  auto client = Connect();
  const std::string message = Observation(1);
  client->ws().binary(true);
  client->ws().write_some(false, boost::asio::buffer(message.data(), 10));
  client->ws().write_some(
      true, boost::asio::buffer(message.data() + 10, message.size() - 10));
  EXPECT_EQ(ValueOf(client->Receive()), 1);
}

TEST_F(SessionTest, AClientThatLeavesCancelsWhatItAskedFor) {
  auto client = Connect();
  client->Send(Observation(1));
  client->Send(Observation(2));
  inference_.AwaitWaiting(2);
  client->Cut();
  inference_.AwaitCancelled(2);
  observer_.AwaitCompleted(2);
  EXPECT_EQ(observer_.completed(Method::kWebsocketInfer,
                                absl::StatusCode::kCancelled),
            2);
  // Its slots are free: the limit is that of one connection.
  EXPECT_EQ(observer_.received(), 2);
}

TEST_F(SessionTest, AClientThatLeavesAtItsLimitIsNoticedToo) {
  ListenerOptions options = FreePort();
  options.max_in_flight = 1;
  Start(options);
  auto client = Connect();
  client->Send(Observation(1));
  inference_.AwaitWaiting(1);
  client->Cut();
  inference_.AwaitCancelled(1);
  observer_.AwaitCompleted(1);
}

TEST_F(SessionTest, WhatIsBeingComputedIsCountedWhenItsClientHasLeft) {
  inference_.IgnoreCancel();
  auto client = Connect();
  client->Send(Observation(1));
  inference_.AwaitWaiting(1);
  client->Cut();
  inference_.AwaitCancelled(1);
  inference_.Answer("ws-1-1");
  observer_.AwaitCompleted(1);
  EXPECT_EQ(observer_.completed(Method::kWebsocketInfer, absl::StatusCode::kOk),
            1);
}

TEST_F(SessionTest, AClosingHandshakeIsAnswered) {
  auto client = Connect();
  client->ws().close(boost::beast::websocket::close_code::normal);
  while (listener_->connections() > 0) std::this_thread::yield();
}

TEST_F(SessionTest, AClientThatNeverAnswersPingsIsCut) {
  ListenerOptions options = FreePort();
  options.idle_timeout = absl::Milliseconds(100);
  Start(options);
  auto client = Connect();
  client->AwaitEnd();  // reads bytes, and answers none
  while (listener_->connections() > 0) std::this_thread::yield();
}

TEST_F(SessionTest, AClientThatAnswersPingsStays) {
  ListenerOptions options = FreePort();
  options.idle_timeout = absl::Milliseconds(100);
  Start(options);
  auto client = Connect();
  int pings = 0;
  client->ws().control_callback(
      [&](boost::beast::websocket::frame_type type, auto) {
        pings += type == boost::beast::websocket::frame_type::ping;
        if (pings == 6)
          client->ws().next_layer().shutdown(
              boost::asio::ip::tcp::socket::shutdown_both);
      });
  client->Receive();
  EXPECT_EQ(pings, 6);  // three times the timeout
}

TEST_F(SessionTest, RefusedWhileUnavailable) {
  auto client = Connect();
  directory_.SetAvailability(WithRetryAfter(
      WithReason(absl::UnavailableError("the server is shutting down"),
                 "DRAINING"),
      absl::ZeroDuration()));
  client->Send("not even looked at");
  EXPECT_EQ(client->Receive().bytes,
            "UNAVAILABLE (DRAINING): the server is shutting down; try another "
            "server");
}

// Each client gets its own answers, in its own order, whatever the others do.
TEST_F(SessionTest, ManyClientsGetTheirOwnAnswers) {
  inference_.AnswerAtOnce();
  constexpr int kClients = 12;
  constexpr int kRequests = 40;
  std::vector<std::future<int>> done;
  for (int c = 0; c < kClients; ++c) {
    done.push_back(std::async(std::launch::async, [this, c] {
      int right = 0;
      for (int half = 0; half < 2; ++half) {
        auto client = Connect();
        for (int i = 0; i < kRequests; i += 2) {
          client->Send(Observation(1000 * c + i));
          client->Send(Observation(1000 * c + i + 1));
          right += ValueOf(client->Receive()) == 1000 * c + i;
          right += ValueOf(client->Receive()) == 1000 * c + i + 1;
        }
        if (c % 3 == 0) client->Send(Observation(0));  // and leaves
      }
      return right;
    }));
  }
  for (auto& right : done) EXPECT_EQ(right.get(), 2 * kRequests);
}

}  // namespace
}  // namespace piserve::server::websocket
