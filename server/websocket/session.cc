// SPDX-License-Identifier: Apache-2.0
#include "server/websocket/session.h"

#include <boost/asio/post.hpp>
#include <boost/beast/core/bind_handler.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/write.hpp>
#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "model/error.h"
#include "server/refusal.h"
#include "server/websocket/error_text.h"
#include "server/websocket/msgpack_codec.h"

namespace piserve::server::websocket {
namespace {

namespace beast = boost::beast;
namespace http = beast::http;
namespace net = boost::asio;

constexpr std::size_t kMaxHeaderBytes = 8192;
constexpr char kNetworkStage[] = "gpu";

// "ipv4:10.0.0.7" or "ipv6:%5B::1%5D", as gRPC names a peer without its port: a
// client is one client on both wires.
std::string PeerOf(const net::ip::tcp::socket& socket) {
  beast::error_code error;
  const auto endpoint = socket.remote_endpoint(error);
  if (error) return "";
  net::ip::address address = endpoint.address();
  // What comes by IPv4 to a socket that takes both.
  if (address.is_v6() && address.to_v6().is_v4_mapped()) {
    address = net::ip::make_address_v4(net::ip::v4_mapped, address.to_v6());
  }
  return address.is_v4() ? absl::StrCat("ipv4:", address.to_string())
                         : absl::StrCat("ipv6:%5B", address.to_string(), "%5D");
}

std::optional<std::string> HeaderOf(
    const http::request<http::string_body>& request, http::field name) {
  const auto it = request.find(name);
  if (it == request.end()) return std::nullopt;
  return std::string(it->value());
}

absl::Status TooManyConnections(int limit) {
  return WithReason(absl::ResourceExhaustedError(
                        absl::StrCat("got more than ", limit, " connections")),
                    "TOO_MANY_CONNECTIONS");
}

absl::Status FrameTooEarly() {
  return InvalidField("message", "MALFORMED_MESSAGE",
                      "got bytes behind the request, want to be asked first");
}

}  // namespace

Session::Session(Hub& hub, net::ip::tcp::socket socket, std::uint64_t number)
    : hub_(hub),
      number_(number),
      peer_(PeerOf(socket)),
      ws_(std::move(socket)) {}

Session::~Session() { hub_.Remove(this); }

void Session::OnStrand(void (Session::*step)()) {
  net::post(ws_.get_executor(),
            beast::bind_front_handler(step, shared_from_this()));
}

void Session::Serve() {
  hub_.Add(this);
  OnStrand(&Session::ReadHttp);
}

void Session::TurnAway() {
  refusal_ = TooManyConnections(hub_.options.max_connections);
  Serve();
}

void Session::Drain() {
  net::post(ws_.get_executor(), [self = shared_from_this()] {
    self->draining_ = true;
    self->CloseIfIdle();
  });
}

void Session::Abort() { OnStrand(&Session::End); }

// ---------------------------------------------------------------------- http

void Session::ReadHttp() {
  parser_.header_limit(kMaxHeaderBytes);
  parser_.body_limit(kMaxHeaderBytes);
  tcp().expires_after(
      absl::ToChronoMilliseconds(hub_.options.handshake_timeout));
  http::async_read(tcp(), http_buffer_, parser_,
                   [self = shared_from_this()](Error error, std::size_t) {
                     self->OnHttp(error);
                   });
}

void Session::OnHttp(Error error) {
  if (error || state_ == State::kEnded) return End();
  const HttpRequest& request = parser_.get();
  if (hub_.draining()) refusal_ = Draining();
  if (http_buffer_.size() > 0) refusal_ = FrameTooEarly();
  if (!refusal_.ok()) {
    return AnswerHttp(HttpStatusOf(refusal_), ErrorText(refusal_));
  }
  if (!beast::websocket::is_upgrade(request)) {
    if (request.target() != "/healthz") {
      return AnswerHttp(426, "this is openpi's websocket wire");
    }
    const absl::Status status = hub_.backends.directory.Availability();
    return AnswerHttp(HttpStatusOf(status),
                      status.ok() ? "OK" : ErrorText(status));
  }
  auto welcome =
      Judge(hub_.backends,
            {.target = std::string(request.target()),
             .authorization = HeaderOf(request, http::field::authorization),
             .origin = HeaderOf(request, http::field::origin)});
  if (!welcome.ok()) {
    return AnswerHttp(HttpStatusOf(welcome.status()),
                      ErrorText(welcome.status()));
  }
  welcome_ = *std::move(welcome);
  Upgrade();
}

void Session::AnswerHttp(int status, const std::string& text) {
  auto response = std::make_shared<http::response<http::string_body>>(
      static_cast<http::status>(status), 11, text + "\n");
  response->set(http::field::content_type, "text/plain; charset=utf-8");
  response->keep_alive(false);
  response->prepare_payload();
  http::async_write(tcp(), *response,
                    [self = shared_from_this(), response](Error, std::size_t) {
                      Error ignored;
                      self->tcp().socket().shutdown(
                          net::ip::tcp::socket::shutdown_send, ignored);
                      self->End();
                    });
}

void Session::Upgrade() {
  // The websocket has timeouts of its own.
  tcp().expires_never();
  const ListenerOptions& options = hub_.options;
  ws_.set_option(beast::websocket::stream_base::timeout{
      absl::ToChronoMilliseconds(options.handshake_timeout),
      absl::ToChronoMilliseconds(options.idle_timeout), true});
  ws_.set_option(beast::websocket::stream_base::decorator(
      [](beast::websocket::response_type& response) {
        response.set(http::field::server, "piserve");
      }));
  ws_.read_message_max(options.max_frame_bytes);
  ws_.auto_fragment(false);
  ws_.async_accept(parser_.get(), [self = shared_from_this()](Error error) {
    self->OnUpgraded(error);
  });
}

void Session::OnUpgraded(Error error) {
  if (error || state_ == State::kEnded) return End();
  state_ = State::kOpen;
  outgoing_.push_back(nullptr);
  Write();
  Read();
}

// ---------------------------------------------------------------------- open

void Session::Read() {
  if (state_ != State::kOpen || reading_ || !StartFrame()) return;
  reading_ = true;
  frame_ = std::make_shared<beast::flat_buffer>();
  frame_->reserve(last_frame_bytes_);  // a robot's frames are of one size
  ws_.async_read(*frame_,
                 [self = shared_from_this()](Error error, std::size_t) {
                   self->OnRead(error);
                 });
}

void Session::OnRead(Error error) {
  reading_ = false;
  if (state_ == State::kClosing && !error) return;  // came too late
  if (error || state_ == State::kEnded) return End();
  frame_came_ = Now();
  Read();
}

// False while the frame that has been read must wait.
bool Session::StartFrame() {
  if (!frame_came_.has_value()) return true;
  const std::size_t pending = calls_.size() + outgoing_.size();
  if (pending >= static_cast<std::size_t>(hub_.options.max_in_flight)) {
    return false;
  }
  Begin(*std::exchange(frame_came_, std::nullopt));
  frame_.reset();
  return true;
}

void Session::Begin(absl::Time received) {
  hub_.CallBegan();
  hub_.backends.observer.Received(rpc::Method::kWebsocketInfer);
  auto call = std::make_shared<Call>();
  call->received = received;
  calls_.push_back(call);
  auto request = ReadRequest(received);
  if (!request.ok()) return Answer(call, request.status());
  hub_.backends.observer.Parsed(rpc::Method::kWebsocketInfer, Now() - received);
  Holder holder{hub_.shared_from_this(), shared_from_this()};
  call->cancel = hub_.backends.inference.Start(
      *std::move(request),
      [holder, call](absl::StatusOr<InferenceReply> reply) {
        net::post(holder.session->ws_.get_executor(),
                  [session = holder.session, call,
                   reply = std::move(reply)]() mutable {
                    session->Answer(call, std::move(reply));
                  });
      });
}

absl::StatusOr<InferenceRequest> Session::ReadRequest(absl::Time received) {
  if (absl::Status s = hub_.backends.directory.Availability(); !s.ok()) {
    return s;
  }
  if (ws_.got_text()) {
    return InvalidField("message", "MALFORMED_MESSAGE",
                        "got a text frame, want a binary one");
  }
  const auto bytes = frame_->cdata();
  last_frame_bytes_ = bytes.size();
  auto request = welcome_->reader.Read(
      {static_cast<const char*>(bytes.data()), bytes.size()}, frame_);
  if (!request.ok()) return request;
  request->request_id = absl::StrCat("ws-", number_, "-", ++requests_);
  request->identity = welcome_->identity;
  request->peer = peer_;
  request->received = received;
  return request;
}

void Session::Answer(const CallPtr& call,
                     absl::StatusOr<InferenceReply> answer) {
  call->answer = std::move(answer);
  call->cancel = nullptr;
  DeliverInOrder();
}

void Session::DeliverInOrder() {
  while (!calls_.empty() && calls_.front()->answer.has_value()) {
    const CallPtr call = std::move(calls_.front());
    calls_.pop_front();
    Deliver(call);
  }
  Write();
  CloseIfIdle();
}

void Session::Deliver(const CallPtr& call) {
  if (state_ != State::kOpen) return Conclude(*call);
  outgoing_.push_back(call);
}

void Session::Conclude(Call& call) {
  call.answered = Now();
  const absl::Duration elapsed = call.answered - call.received;
  absl::StatusOr<InferenceReply>& answer = *call.answer;
  // It may have waited behind the answer to an older request, or for the client
  // to take that.
  if (answer.ok()) {
    const absl::Status met = DeadlineMet(elapsed, answer->deadline_served);
    if (!met.ok()) answer = met;
  }
  hub_.backends.observer.Completed(rpc::Method::kWebsocketInfer,
                                   answer.status(), elapsed);
  hub_.CallEnded();
}

void Session::Write() {
  if (state_ != State::kOpen || writing_ || outgoing_.empty()) return;
  writing_ = true;
  const CallPtr& call = outgoing_.front();
  if (call != nullptr) Conclude(*call);
  const bool is_error = call != nullptr && !call->answer->ok();
  payload_ = call == nullptr ? std::move(welcome_->metadata) : Encode(*call);
  ws_.text(is_error);
  ws_.async_write(net::buffer(payload_),
                  [self = shared_from_this()](Error error, std::size_t) {
                    self->OnWritten(error);
                  });
}

std::string Session::Encode(const Call& call) const {
  if (!call.answer->ok()) return ErrorText(call.answer->status());
  const InferenceReply& reply = **call.answer;
  ReplyTimes times{.policy = absl::ZeroDuration(),
                   .server = call.answered - call.received,
                   .previous_total = previous_total_};
  for (const StageDuration& stage : reply.stages) {
    if (stage.stage == kNetworkStage) times.policy = stage.duration;
  }
  return EncodeReply(reply, times);
}

void Session::OnWritten(Error error) {
  writing_ = false;
  const CallPtr call = std::move(outgoing_.front());
  outgoing_.pop_front();
  if (error || state_ == State::kEnded) return End();
  const absl::Time now = Now();
  if (call != nullptr) {
    hub_.backends.observer.Sent(rpc::Method::kWebsocketInfer,
                                now - call->answered);
    previous_total_ = now - last_written_;
  }
  last_written_ = now;
  Write();
  Read();
  CloseIfIdle();
}

// ----------------------------------------------------------------------- end

void Session::CloseIfIdle() {
  if (!draining_ || state_ != State::kOpen || writing_) return;
  if (calls_.empty() && outgoing_.empty()) Close();
}

void Session::Close() {
  state_ = State::kClosing;
  ws_.async_close(
      {beast::websocket::close_code::going_away, "the server is shutting down"},
      [self = shared_from_this()](Error) { self->End(); });
}

void Session::End() {
  if (state_ == State::kEnded) return;
  state_ = State::kEnded;
  for (const CallPtr& call : calls_) {
    if (call->cancel != nullptr) call->cancel();
  }
  // OnWritten takes the one under way.
  for (const std::size_t written = writing_ ? 1 : 0; outgoing_.size() > written;
       outgoing_.pop_back()) {
    if (outgoing_.back() != nullptr) Conclude(*outgoing_.back());
  }
  tcp().close();
}

}  // namespace piserve::server::websocket
