// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <boost/asio/buffer.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/buffers_to_string.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>
#include <boost/beast/websocket.hpp>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "server/websocket/listener.h"
#include "server/websocket/msgpack_codec.h"
#include "tests/server/rpc/fakes.h"
#include "tests/server/websocket/packing.h"

namespace piserve::server::websocket {

// Hosts LIBERO's cameras under each name, with {"reset_pose": [0.5]}.
class LiberoDirectory final : public rpc::PolicyDirectory {
 public:
  void Host(std::vector<std::string> names) { names_ = std::move(names); }
  void SetAvailability(absl::Status status) {
    batching::MutexLock lock(mutex_);
    availability_ = std::move(status);
  }

  absl::Status Availability() const override {
    batching::MutexLock lock(mutex_);
    return availability_;
  }
  std::string DefaultPolicy() const override {
    return names_.size() == 1 ? names_.front() : "";
  }
  absl::StatusOr<v1::GetPolicyInfoResponse> Describe(
      absl::string_view policy) const override {
    for (const std::string& name : names_) {
      if (policy != name) continue;
      v1::GetPolicyInfoResponse response;
      v1::PolicyInfo& info = *response.add_policies();
      info = packing::LiberoInfo();
      info.set_name(name);
      (*info.mutable_metadata()->mutable_fields())["reset_pose"]
          .mutable_list_value()
          ->add_values()
          ->set_number_value(0.5);
      return response;
    }
    return WithReason(absl::NotFoundError("policy: unknown"), "UNKNOWN_POLICY");
  }

 private:
  std::vector<std::string> names_ = {"libero"};
  mutable batching::Mutex mutex_;
  absl::Status availability_;
};

// A client that is not openpi's, of blocking calls.
class Client {
 public:
  using Error = boost::beast::error_code;
  using Fields = std::vector<std::pair<std::string, std::string>>;

  explicit Client(int port, const char* host = "127.0.0.1")
      : ws_(io_), port_(port) {
    ws_.next_layer().connect(Endpoint(port_, host));
  }

  // The HTTP status of the handshake: 101, or 0 where Ask tells more.
  int Upgrade(const std::string& target = "/", const Fields& headers = {}) {
    ws_.set_option(boost::beast::websocket::stream_base::decorator(
        [&](boost::beast::websocket::request_type& request) {
          for (const auto& [name, value] : headers) request.set(name, value);
        }));
    Error error;
    ws_.handshake(response_, "127.0.0.1:" + std::to_string(port_), target,
                  error);
    return error ? 0 : response_.result_int();
  }
  const boost::beast::websocket::response_type& response() const {
    return response_;
  }

  void Send(const std::string& message) {
    ws_.binary(true);
    ws_.write(boost::asio::buffer(message));
  }
  void SendText(const std::string& message) {
    ws_.text(true);
    ws_.write(boost::asio::buffer(message));
  }

  struct Frame {
    std::string bytes;
    bool text = false;
    int close_code = 0;  // not 0: no frame, the connection has ended
  };
  Frame Receive() {
    boost::beast::flat_buffer buffer;
    Error error;
    ws_.read(buffer, error);
    if (error) {
      const int code = ws_.reason().code;
      return {.bytes = std::string(ws_.reason().reason.c_str()),
              .text = false,
              .close_code = code != 0 ? code : 1006};
    }
    return {.bytes = boost::beast::buffers_to_string(buffer.data()),
            .text = ws_.got_text(),
            .close_code = 0};
  }

  // The HTTP status and body of the answer to a GET.
  std::pair<int, std::string> Get(const std::string& target,
                                  const Fields& headers = {}) {
    namespace http = boost::beast::http;
    http::request<http::empty_body> request(http::verb::get, target, 11);
    request.set(http::field::host, "127.0.0.1");
    for (const auto& [name, value] : headers) request.set(name, value);
    http::write(ws_.next_layer(), request);
    http::response<http::string_body> response;
    boost::beast::flat_buffer buffer;
    http::read(ws_.next_layer(), buffer, response);
    return {response.result_int(), response.body()};
  }

  // The same of a handshake. (Beast's own client keeps a refusal to itself.)
  std::pair<int, std::string> Ask(const std::string& target,
                                  Fields headers = {}) {
    headers.insert(headers.end(),
                   {{"Upgrade", "websocket"},
                    {"Connection", "Upgrade"},
                    {"Sec-WebSocket-Version", "13"},
                    {"Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="}});
    return Get(target, headers);
  }

  // Blocks until the server has closed the connection.
  void AwaitEnd() {
    Error error;
    char bytes[256];
    while (!error) {
      ws_.next_layer().read_some(boost::asio::buffer(bytes), error);
    }
  }
  void Cut() { ws_.next_layer().close(); }

  boost::beast::websocket::stream<boost::asio::ip::tcp::socket>& ws() {
    return ws_;
  }

  static boost::asio::ip::tcp::endpoint Endpoint(
      int port, const char* host = "127.0.0.1") {
    return {boost::asio::ip::make_address(host),
            static_cast<unsigned short>(port)};
  }

 private:
  boost::asio::io_context io_;
  boost::beast::websocket::stream<boost::asio::ip::tcp::socket> ws_;
  boost::beast::websocket::response_type response_;
  const int port_;
};

// The front on a free loopback port, over fakes.
class FrontFixture : public testing::Test {
 protected:
  static ListenerOptions FreePort() {
    ListenerOptions options;
    options.address = "127.0.0.1:0";
    return options;
  }

  void SetUp() override { Start(FreePort()); }

  void Start(const ListenerOptions& options,
             const std::vector<rpc::ApiKey>& keys = {}) {
    listener_.reset();
    auto authenticator = rpc::Authenticator::Create(keys);
    ASSERT_TRUE(authenticator.ok()) << authenticator.status();
    authenticator_ = *std::move(authenticator);
    auto listener = Listener::Create(options, backends());
    ASSERT_TRUE(listener.ok()) << listener.status();
    listener_ = *std::move(listener);
    ASSERT_TRUE(listener_->Listen().ok());
  }

  // What was received has one answer each, whatever happened.
  void TearDown() override {
    if (listener_ != nullptr) listener_->Shutdown(absl::Seconds(10));
    EXPECT_EQ(observer_.received(), observer_.completed());
  }

  Backends backends() {
    return {inference_, directory_, observer_, authenticator_,
            batching::Clock::Real()};
  }

  int port() const { return listener_->port(); }

  // Connected, the metadata read.
  std::unique_ptr<Client> Connect(const std::string& target = "/") {
    auto client = std::make_unique<Client>(port());
    EXPECT_EQ(client->Upgrade(target), 101);
    EXPECT_FALSE(client->Receive().bytes.empty());
    return client;
  }

  // An observation whose answer is `first` six times (fakes.h).
  static std::string Observation(double first) {
    return packing::LiberoMessage(
        "observation/state", packing::Doubles({first, 0, 0, 0, 0, 0, 0, 0}));
  }

  // The value that a reply holds; nothing for a text frame.
  static std::optional<double> ValueOf(const Client::Frame& frame) {
    if (frame.text || frame.close_code != 0) return std::nullopt;
    const auto map = DecodeMap(frame.bytes);
    EXPECT_TRUE(map.ok()) << map.status();
    const auto& actions = std::get<NdArray>(Find(*map, "actions")->of);
    EXPECT_EQ(actions.shape, (std::vector<std::size_t>{2, 3}));
    double value = 0;
    std::memcpy(&value, actions.data.data(), sizeof value);
    return value;
  }

  static std::optional<double> Time(const Client::Frame& frame,
                                    const char* group, const char* key) {
    const auto map = DecodeMap(frame.bytes);
    const Value* value = Find(std::get<Map>(Find(*map, group)->of), key);
    if (value == nullptr) return std::nullopt;
    return std::get<double>(value->of);
  }

  rpc::FakeInference inference_;
  LiberoDirectory directory_;
  rpc::CountingObserver observer_;
  rpc::Authenticator authenticator_;
  std::unique_ptr<Listener> listener_;
};

}  // namespace piserve::server::websocket
