// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <boost/asio/ip/tcp.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <boost/beast/websocket/stream.hpp>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "server/inference.h"
#include "server/websocket/handshake.h"
#include "server/websocket/hub.h"

namespace piserve::server::websocket {

// One connection, from its first byte to its last. Everything runs on its
// strand, one handler at a time; handlers keep it alive.
//
//   http       one request is read: upgraded, or answered and closed
//   metadata   the first frame is written
//   open       frames are read and started while fewer than max_in_flight
//              requests are unanswered; one more is read, so that a ping or an
//              end is noticed, and waits. Answers are written in the order of
//              the requests
//   ended      the socket is closed; requests that are unanswered have been
//              cancelled, and are reported to the observer when their answer
//              comes
class Session : public std::enable_shared_from_this<Session> {
 public:
  // `hub` is borrowed. `number` tells its requests from others' in the log.
  Session(Hub& hub, boost::asio::ip::tcp::socket socket, std::uint64_t number);
  ~Session();

  // Each from any thread; the first call is one of the first two.
  void Serve();
  void TurnAway();  // answers any request with 503
  void Drain();     // closes (1001) once nothing is outstanding
  void Abort();     // ends at once

 private:
  using Error = boost::beast::error_code;
  using HttpRequest =
      boost::beast::http::request<boost::beast::http::string_body>;

  // A request between its receipt and its answer's having been written.
  struct Call {
    absl::Time received;
    absl::Time answered;
    Inference::Cancel cancel;
    std::optional<absl::StatusOr<InferenceReply>> answer;
  };
  using CallPtr = std::shared_ptr<Call>;
  // Kept by an answer under way. The session goes first.
  struct Holder {
    std::shared_ptr<Hub> hub;
    std::shared_ptr<Session> session;
  };

  void OnStrand(void (Session::*step)());
  void ReadHttp();
  void OnHttp(Error error);
  void AnswerHttp(int status, const std::string& text);
  void Upgrade();
  void OnUpgraded(Error error);

  void Read();
  bool StartFrame();
  void OnRead(Error error);
  void Begin(absl::Time received);
  absl::StatusOr<InferenceRequest> ReadRequest(absl::Time received);
  void Answer(const CallPtr& call, absl::StatusOr<InferenceReply> answer);
  void DeliverInOrder();
  void Deliver(const CallPtr& call);
  // Withholds an answer that is too late by now, and reports the end of its
  // request: when it is written, or dropped.
  void Conclude(Call& call);

  void Write();
  std::string Encode(const Call& call) const;
  void OnWritten(Error error);

  void Close();
  void CloseIfIdle();
  void End();

  boost::beast::tcp_stream& tcp() { return ws_.next_layer(); }
  absl::Time Now() const { return hub_.backends.clock.Now(); }

  Hub& hub_;
  const std::uint64_t number_;
  std::string peer_;
  boost::beast::websocket::stream<boost::beast::tcp_stream> ws_;

  // http
  boost::beast::flat_buffer http_buffer_;
  boost::beast::http::request_parser<boost::beast::http::string_body> parser_;
  absl::Status refusal_;  // not OK: whatever is asked for
  std::optional<Welcome> welcome_;

  // open
  enum class State { kHttp, kOpen, kClosing, kEnded };
  State state_ = State::kHttp;
  bool draining_ = false;
  bool reading_ = false;
  bool writing_ = false;
  std::shared_ptr<boost::beast::flat_buffer> frame_;
  std::optional<absl::Time> frame_came_;  // it waits to be started
  std::size_t last_frame_bytes_ = 0;
  std::uint64_t requests_ = 0;
  std::deque<CallPtr> calls_;     // unanswered, or behind such a one
  std::deque<CallPtr> outgoing_;  // answered; null: the metadata
  std::string payload_;           // being written
  absl::Time last_written_;
  std::optional<absl::Duration> previous_total_;
};

}  // namespace piserve::server::websocket
