// SPDX-License-Identifier: Apache-2.0
#include "server/websocket/listener.h"

#include <future>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "tests/server/websocket/front_fixture.h"

namespace piserve::server::websocket {
namespace {

using ::testing::HasSubstr;
using ::testing::Pair;

// sha256 of "open" and of "shut".
constexpr char kOpenSha256[] =
    "2348f998744212575d85959674f9607ab26f67708a917157472832386337c904";
constexpr char kShutSha256[] =
    "2a1db49adbe0e8281c0615f68e6829ddf9de3c315b8329481181ac65bea47e3b";

class ListenerTest : public FrontFixture {
 protected:
  int AskStatus(const std::string& target, const Client::Fields& headers = {}) {
    const auto [status, body] = Client(port()).Ask(target, headers);
    reason_ = body;
    return status;
  }

  std::string reason_;  // of the last refusal
};

TEST_F(ListenerTest, RefusesConnectionsUntilItListens) {
  auto listener = Listener::Create(FreePort(), backends());
  ASSERT_TRUE(listener.ok());
  EXPECT_GT((*listener)->port(), 0);
  EXPECT_THROW(Client((*listener)->port()), boost::system::system_error);
  ASSERT_TRUE((*listener)->Listen().ok());
  EXPECT_EQ(Client((*listener)->port()).Upgrade(), 101);
}

TEST_F(ListenerTest, AnAddressThatIsNoneOrTakenIsRefused) {
  ListenerOptions options;
  options.address = "nowhere:1";
  EXPECT_EQ(Listener::Create(options, backends()).status().code(),
            absl::StatusCode::kInvalidArgument);
  options.address = "127.0.0.1:" + std::to_string(port());
  const absl::Status taken = Listener::Create(options, backends()).status();
  EXPECT_EQ(taken.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(taken.message()), HasSubstr(options.address));
}

TEST_F(ListenerTest, ThePathNamesThePolicy) {
  directory_.Host({"left", "right"});
  inference_.AnswerAtOnce();
  for (const char* target : {"/left", "/right/", "/right?x=/left"}) {
    Connect(target)->Send("");
    auto client = Connect(target);
    client->Send(Observation(1));
    EXPECT_EQ(ValueOf(client->Receive()), 1);
  }
  const auto started = inference_.started();
  ASSERT_EQ(started.size(), 3u);
  EXPECT_EQ(started[0].policy, "left");
  EXPECT_EQ(started[1].policy, "right");
  EXPECT_EQ(started[2].policy, "right");
  EXPECT_EQ(AskStatus("/"), 404);
  EXPECT_THAT(reason_, HasSubstr("POLICY_REQUIRED"));
  EXPECT_EQ(AskStatus("/middle"), 404);
  EXPECT_THAT(reason_, HasSubstr("UNKNOWN_POLICY"));
}

TEST_F(ListenerTest, PagesInABrowserAreRefused) {
  EXPECT_EQ(AskStatus("/", {{"Origin", "http://evil.example"}}), 403);
  EXPECT_THAT(reason_, HasSubstr("ORIGIN_NOT_ALLOWED"));
}

TEST_F(ListenerTest, CredentialsDecideWhoMayConnect) {
  Start(FreePort(),
        {{"arm", kOpenSha256, {}}, {"guest", kShutSha256, {"other"}}});
  inference_.AnswerAtOnce();
  EXPECT_EQ(AskStatus("/"), 401);
  EXPECT_THAT(reason_, HasSubstr("NO_CREDENTIAL"));
  EXPECT_EQ(AskStatus("/", {{"Authorization", "Api-Key wrong"}}), 401);
  EXPECT_THAT(reason_, HasSubstr("BAD_CREDENTIAL"));
  EXPECT_EQ(AskStatus("/", {{"Authorization", "Api-Key shut"}}), 403);
  EXPECT_THAT(reason_, HasSubstr("POLICY_NOT_ALLOWED"));
  Client client(port());
  ASSERT_EQ(client.Upgrade("/", {{"Authorization", "Api-Key open"}}), 101);
  client.Receive();
  client.Send(Observation(1));
  EXPECT_EQ(ValueOf(client.Receive()), 1);
  EXPECT_EQ(inference_.started()[0].identity, "arm");
}

TEST_F(ListenerTest, RefusedWhileUnavailable) {
  EXPECT_THAT(Client(port()).Get("/healthz"), Pair(200, "OK\n"));
  directory_.SetAvailability(WithReason(
      absl::UnavailableError("the device has failed"), "DEVICE_FAULT"));
  EXPECT_EQ(AskStatus("/"), 503);
  EXPECT_THAT(Client(port()).Get("/healthz"),
              Pair(503, HasSubstr("DEVICE_FAULT")));
}

TEST_F(ListenerTest, OtherHttpIsToldWhatThisIs) {
  EXPECT_THAT(Client(port()).Get("/"), Pair(426, HasSubstr("websocket")));
}

TEST_F(ListenerTest, WhatIsNoHttpIsCut) {
  Client client(port());
  boost::asio::write(
      client.ws().next_layer(),
      boost::asio::buffer(std::string("\x16\x03\x01 TLS\r\n\r\n")));
  client.AwaitEnd();
}

TEST_F(ListenerTest, AHeaderOverItsLimitIsCut) {
  Client client(port());
  boost::asio::write(
      client.ws().next_layer(),
      boost::asio::buffer("GET / HTTP/1.1\r\nX: " + std::string(9000, 'x')));
  client.AwaitEnd();
}

TEST_F(ListenerTest, AFrameBeforeTheAnswerIsRefused) {
  Client client(port());
  boost::asio::write(
      client.ws().next_layer(),
      boost::asio::buffer(std::string(
          "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
          "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
          "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n\x82")));
  std::string answer(12, ' ');
  boost::asio::read(client.ws().next_layer(), boost::asio::buffer(answer));
  EXPECT_EQ(answer, "HTTP/1.1 400");
}

TEST_F(ListenerTest, HalfAHandshakeIsCut) {
  ListenerOptions options = FreePort();
  options.handshake_timeout = absl::Milliseconds(50);
  Start(options);
  Client silent(port());
  silent.AwaitEnd();
  Client slow(port());
  boost::asio::write(slow.ws().next_layer(),
                     boost::asio::buffer(std::string("GET / HT")));
  slow.AwaitEnd();
}

TEST_F(ListenerTest, ConnectionsBeyondTheLimitAreToldSo) {
  ListenerOptions options = FreePort();
  options.max_connections = 2;
  Start(options);
  auto first = Connect();
  auto second = Connect();
  EXPECT_EQ(listener_->connections(), 2);
  EXPECT_EQ(AskStatus("/"), 503);
  EXPECT_THAT(reason_, HasSubstr("TOO_MANY_CONNECTIONS"));
  first->Cut();
  while (listener_->connections() > 1) std::this_thread::yield();
  EXPECT_EQ(AskStatus("/"), 101);
}

TEST_F(ListenerTest, ConnectionsFarBeyondTheLimitAreCut) {
  ListenerOptions options = FreePort();
  options.max_connections = 1;
  Start(options);
  std::vector<std::unique_ptr<Client>> silent;
  for (int i = 0; i < 17; ++i) {
    silent.push_back(std::make_unique<Client>(port()));
  }
  while (listener_->connections() < 17) std::this_thread::yield();
  Client(port()).AwaitEnd();
  EXPECT_EQ(listener_->connections(), 17);
}

TEST_F(ListenerTest, DrainClosesWhatIsIdleAndAnswersTheRest) {
  auto idle = Connect();
  auto busy = Connect();
  busy->Send(Observation(1));
  inference_.AwaitWaiting(1);
  listener_->Drain();
  const Client::Frame gone = idle->Receive();
  EXPECT_EQ(gone.close_code, 1001);
  EXPECT_EQ(gone.bytes, "the server is shutting down");
  inference_.Answer("");
  EXPECT_EQ(ValueOf(busy->Receive()), 1);
  EXPECT_EQ(busy->Receive().close_code, 1001);
  EXPECT_THROW(Client(port()).Upgrade(), boost::system::system_error);
}

TEST_F(ListenerTest, AConnectionThatIsBeingMadeIsRefusedByDrain) {
  Client client(port());
  while (listener_->connections() == 0) std::this_thread::yield();
  listener_->Drain();
  EXPECT_THAT(client.Ask("/"), Pair(503, HasSubstr("DRAINING")));
}

TEST_F(ListenerTest, ShutdownWaitsForAnswersThatAreBeingComputed) {
  inference_.IgnoreCancel();
  auto client = Connect();
  client->Send(Observation(1));
  inference_.AwaitWaiting(1);
  auto stopped = std::async(std::launch::async, [this] {
    listener_->Shutdown(absl::ZeroDuration());
  });
  inference_.AwaitCancelled(1);  // no grace: the connection is cut
  EXPECT_EQ(stopped.wait_for(std::chrono::milliseconds(20)),
            std::future_status::timeout);
  inference_.Answer("");
  stopped.get();
  EXPECT_EQ(observer_.completed(), 1);
  listener_.reset();
}

TEST_F(ListenerTest, ShutdownGivesConnectionsTheirGrace) {
  auto client = Connect();
  client->Send(Observation(1));
  inference_.AwaitWaiting(1);
  auto stopped = std::async(std::launch::async,
                            [this] { listener_->Shutdown(absl::Seconds(20)); });
  inference_.Answer("");
  EXPECT_EQ(ValueOf(client->Receive()), 1);
  EXPECT_EQ(client->Receive().close_code, 1001);
  stopped.get();
  listener_.reset();
}

}  // namespace
}  // namespace piserve::server::websocket
