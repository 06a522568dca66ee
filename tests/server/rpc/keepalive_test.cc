// SPDX-License-Identifier: Apache-2.0
// What becomes of connections that are silent, and of clients that ping.
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <cerrno>
#include <set>
#include <string>
#include <thread>

#include "tests/server/loopback.h"
#include "tests/server/rpc/raw_http2.h"
#include "tests/server/rpc/rpc_fixture.h"

namespace piserve::server::rpc {
namespace {

// What comes in place of a frame: the connection's end, or nothing for 10 s.
constexpr int kEnd = -1;
constexpr int kNothing = -2;

// A client that speaks HTTP/2 as far as it is told to: it answers no ping.
class MuteClient {
 public:
  explicit MuteClient(int port) : socket_(ConnectToLoopback(port)) {
    EXPECT_GE(socket_, 0);
    const timeval patience = {.tv_sec = 10, .tv_usec = 0};
    setsockopt(socket_, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    Send(Preface());
  }
  ~MuteClient() { close(socket_); }

  void Send(const std::string& bytes) {
    EXPECT_EQ(send(socket_, bytes.data(), bytes.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(bytes.size()));
  }
  // At once: a server that has had enough may cut between two of them.
  void Ping(int times = 1) {
    std::string pings;
    for (int i = 0; i < times; ++i) pings += Frame(kPing, 0, 0, "8 bytes.");
    Send(pings);
  }

  // The next frame of these types; skips others.
  int NextOf(const std::set<int>& types) {
    int frame = NextFrame();
    while (frame >= 0 && !types.contains(frame)) frame = NextFrame();
    return frame;
  }

 private:
  int NextFrame() {
    char head[9];
    if (const int end = Read(head, sizeof(head)); end < 0) return end;
    std::string body(NumberIn({head, 3}), 0);
    const int end = Read(body.data(), body.size());
    return end < 0 ? end : head[3];
  }

  int Read(void* to, std::size_t size) {
    if (size == 0) return 0;
    const ssize_t got = recv(socket_, to, size, MSG_WAITALL);
    if (got == static_cast<ssize_t>(size)) return 0;
    return got < 0 && errno == EAGAIN ? kNothing : kEnd;
  }

  const int socket_;
};

class KeepaliveTest : public RpcFixture {
 protected:
  void SetUp() override {}

  void StartWith(const Keepalive& keepalive) {
    ListenerOptions options = FreePorts();
    options.keepalive = keepalive;
    Start(options, {});
  }
};

// docs/contract.md, "Defaults".
TEST(ListenerOptionsTest, DefaultsAreTheContracts) {
  const ListenerOptions options;
  EXPECT_EQ(options.max_receive_bytes, 8 << 20);
  EXPECT_EQ(options.max_send_bytes, 1 << 20);
  EXPECT_EQ(options.max_streams, 64);
  EXPECT_EQ(options.max_metadata_bytes, 8 << 10);
  EXPECT_EQ(options.keepalive.time, absl::Seconds(20));
  EXPECT_EQ(options.keepalive.timeout, absl::Seconds(10));
  EXPECT_EQ(options.keepalive.client_pings, absl::Seconds(5));
}

TEST_F(KeepaliveTest, AClientThatIsSilentIsPingedAndThenCut) {
  StartWith(
      {.time = absl::Milliseconds(100), .timeout = absl::Milliseconds(100)});
  MuteClient client(listeners_->public_port());
  EXPECT_EQ(client.NextOf({kPing}), kPing);
  EXPECT_EQ(client.NextOf({}), kEnd);
}

TEST_F(KeepaliveTest, AClientMayPingWithoutACall) {
  StartWith({.client_pings = absl::Milliseconds(1)});
  MuteClient client(listeners_->public_port());
  for (int i = 0; i < 8; ++i) {
    client.Ping();
    ASSERT_EQ(client.NextOf({kPing, kGoAway}), kPing) << "ping " << i;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
}

TEST_F(KeepaliveTest, AClientThatPingsTooOftenIsToldToCalmDown) {
  StartWith({});
  MuteClient client(listeners_->public_port());
  client.Ping(8);
  EXPECT_EQ(client.NextOf({kGoAway}), kGoAway);
}

}  // namespace
}  // namespace piserve::server::rpc
