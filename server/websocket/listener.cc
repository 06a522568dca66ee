// SPDX-License-Identifier: Apache-2.0
#include "server/websocket/listener.h"

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <boost/beast/core/error.hpp>
#include <chrono>
#include <future>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/address.h"
#include "server/websocket/hub.h"
#include "server/websocket/session.h"

namespace piserve::server::websocket {
namespace {

namespace net = boost::asio;
using Error = boost::beast::error_code;
using net::ip::tcp;

// Reading a request's bytes takes its thread for up to some milliseconds.
constexpr int kThreads = 2;
// Connections that are told that there are too many; beyond, they are cut.
constexpr int kTurnedAway = 16;
// Of sessions that have nothing left to wait for.
constexpr absl::Duration kUnwinding = absl::Seconds(1);
// After the process ran out of descriptors, say.
constexpr std::chrono::milliseconds kAcceptAgain{100};

absl::Status CannotBind(const std::string& address, const Error& error) {
  return absl::UnavailableError(absl::StrCat("websocket: cannot listen on ",
                                             address, ": ", error.message()));
}

}  // namespace

// Takes connections, on a strand of its own.
class Listener::Acceptor : public std::enable_shared_from_this<Acceptor> {
 public:
  explicit Acceptor(Hub& hub)
      : hub_(hub),
        acceptor_(net::make_strand(hub.io)),
        again_(acceptor_.get_executor()) {}

  absl::Status Bind(const HostPort& at) {
    Error error;
    const auto host = net::ip::make_address(
        at.host == "localhost" ? "127.0.0.1" : at.host, error);
    const tcp::endpoint endpoint(host, static_cast<std::uint16_t>(at.port));
    if (!error) acceptor_.open(endpoint.protocol(), error);
    if (!error) acceptor_.set_option(tcp::acceptor::reuse_address(true), error);
    if (!error) acceptor_.bind(endpoint, error);
    return error ? CannotBind(hub_.options.address, error) : absl::OkStatus();
  }

  absl::Status Listen() {
    Error error;
    acceptor_.listen(net::socket_base::max_listen_connections, error);
    if (error) return CannotBind(hub_.options.address, error);
    net::post(acceptor_.get_executor(),
              [self = shared_from_this()] { self->Accept(); });
    return absl::OkStatus();
  }

  // Whoever has been told to go (1001) and comes back finds nobody listening.
  void Drain() {
    net::post(acceptor_.get_executor(), [self = shared_from_this()] {
      Error ignored;
      self->acceptor_.close(ignored);
      self->again_.cancel();
      for (const auto& session : self->hub_.Sessions()) session->Drain();
    });
  }

  int port() const {
    Error ignored;
    return acceptor_.local_endpoint(ignored).port();
  }

 private:
  void Accept() {
    if (!acceptor_.is_open()) return;
    acceptor_.async_accept(
        net::make_strand(hub_.io),
        [self = shared_from_this()](Error error, tcp::socket socket) {
          if (error) return self->AcceptLater();
          self->Take(std::move(socket));
          self->Accept();
        });
  }

  void AcceptLater() {
    again_.expires_after(kAcceptAgain);
    again_.async_wait([self = shared_from_this()](Error) { self->Accept(); });
  }

  void Take(tcp::socket socket) {
    const int others = hub_.sessions();
    if (others >= hub_.options.max_connections + kTurnedAway) return;
    Error ignored;
    socket.set_option(tcp::no_delay(true), ignored);
    const auto session =
        std::make_shared<Session>(hub_, std::move(socket), ++taken_);
    if (others < hub_.options.max_connections) {
      session->Serve();
    } else {
      session->TurnAway();
    }
  }

  Hub& hub_;
  tcp::acceptor acceptor_;
  net::steady_timer again_;
  std::uint64_t taken_ = 0;
};

absl::StatusOr<std::unique_ptr<Listener>> Listener::Create(
    const ListenerOptions& options, const Backends& backends) {
  const auto address = ParseAddress(options.address);
  if (!address.ok()) return address.status();
  std::unique_ptr<Listener> listener(
      new Listener(std::make_shared<Hub>(options, backends)));
  if (absl::Status s = listener->acceptor_->Bind(*address); !s.ok()) return s;
  listener->port_ = listener->acceptor_->port();
  return listener;
}

Listener::Listener(std::shared_ptr<Hub> hub)
    : hub_(std::move(hub)), acceptor_(std::make_shared<Acceptor>(*hub_)) {
  for (int i = 0; i < kThreads; ++i) {
    threads_.emplace_back([io = &hub_->io] {
      const auto work = net::make_work_guard(*io);
      io->run();
    });
  }
}

Listener::~Listener() {
  if (!threads_.empty()) Shutdown(absl::ZeroDuration());
}

absl::Status Listener::Listen() { return acceptor_->Listen(); }

int Listener::connections() const { return hub_->sessions(); }

void Listener::Drain() {
  hub_->Drain();
  acceptor_->Drain();
}

void Listener::Shutdown(absl::Duration grace) {
  Drain();
  hub_->WaitNoSessions(grace);
  for (const auto& session : hub_->Sessions()) session->Abort();
  hub_->WaitNoCalls();
  hub_->WaitNoSessions(kUnwinding);
  hub_->io.stop();
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
  acceptor_.reset();  // before what it uses
}

}  // namespace piserve::server::websocket
