// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "tests/server/loopback.h"

namespace piserve::server::rpc {

enum FrameType {
  kData = 0,
  kHeaders = 1,
  kReset = 3,
  kSettings = 4,
  kPing = 6,
  kGoAway = 7,
  kWindow = 8
};

inline std::string BigEndian(std::uint32_t n) {
  std::string out;
  for (int shift = 24; shift >= 0; shift -= 8) {
    out.push_back(static_cast<char>(n >> shift));
  }
  return out;
}

inline std::uint32_t NumberIn(std::string_view bytes) {
  std::uint32_t n = 0;
  for (const char c : bytes) n = n << 8 | static_cast<std::uint8_t>(c);
  return n;
}

// A head of 9 bytes, which begins with the body's size in three, and the body.
inline std::string Frame(FrameType type, char flags, std::uint32_t stream,
                         const std::string& body) {
  return BigEndian(static_cast<std::uint32_t>(body.size())).substr(1) +
         static_cast<char>(type) + flags + BigEndian(stream) + body;
}

// How a client begins.
inline std::string Preface() {
  return "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + Frame(kSettings, 0, 0, "");
}

// A literal of HPACK, without Huffman and not indexed.
inline std::string Header(const std::string& name, const std::string& value) {
  return std::string(1, '\0') + static_cast<char>(name.size()) + name +
         static_cast<char>(value.size()) + value;
}

// How a call begins.
inline std::string CallHeaders(const std::string& method) {
  return Header(":method", "POST") + Header(":scheme", "http") +
         Header(":path", method) + Header(":authority", "x") +
         Header("content-type", "application/grpc") + Header("te", "trailers");
}

// What a message of `bytes` bytes begins with.
inline std::string MessagePrefix(std::uint32_t bytes) {
  return std::string(1, '\0') + BigEndian(bytes);
}

// An HTTP/2 client that begins gRPC messages and does not end them: what no
// gRPC library would send. Obeys flow control.
class RawHttp2 {
 public:
  // Opens `streams` calls of `method`, each of which says that a message of
  // `declared` bytes follows.
  RawHttp2(int port, const std::string& method, int streams,
           std::uint32_t declared)
      : fd_(ConnectToLoopback(port)), open_(fd_ >= 0) {
    Send(Preface());
    const std::string headers = CallHeaders(method);
    const std::string prefix = MessagePrefix(declared);
    for (int i = 0; i < streams; ++i) {
      const std::uint32_t id = 1 + 2 * i;
      Send(Frame(kHeaders, 4, id, headers) + Frame(kData, 0, id, prefix));
      streams_[id].sent = prefix.size();
      sent_ += prefix.size();
    }
  }
  ~RawHttp2() { close(fd_); }
  RawHttp2(const RawHttp2&) = delete;
  RawHttp2& operator=(const RawHttp2&) = delete;

  // Takes what came and sends on every stream what its windows allow, up to
  // `limit` bytes on each. False once nothing is left to do: all is sent, all
  // streams were reset, or the connection is gone.
  bool Pump(std::uint64_t limit) {
    Receive();
    bool left = false;
    for (auto& [id, stream] : streams_) {
      if (!open_ || stream.reset || stream.sent >= limit) continue;
      left = true;
      const std::int64_t may = std::min<std::int64_t>(
          {initial_window_ + stream.window -
               static_cast<std::int64_t>(stream.sent),
           window_ - static_cast<std::int64_t>(sent_),
           static_cast<std::int64_t>(limit - stream.sent), 16384});
      if (may <= 0) continue;
      Send(Frame(kData, 0, id, std::string(may, 'x')));
      stream.sent += may;
      sent_ += may;
    }
    return open_ && left;
  }

  // Of the messages that the server has not refused by now.
  std::uint64_t unanswered() const {
    std::uint64_t bytes = 0;
    for (const auto& [id, stream] : streams_) {
      if (open_ && !stream.reset) bytes += stream.sent;
    }
    return bytes;
  }

 private:
  struct Stream {
    std::uint64_t sent = 0;
    std::int64_t window = 0;  // beyond the initial one
    bool reset = false;
  };

  void Send(std::string_view bytes) {
    while (open_ && !bytes.empty()) {
      const ssize_t n = send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      open_ = n > 0;
      if (open_) bytes.remove_prefix(n);
    }
  }

  void Receive() {
    pollfd poll_fd = {.fd = fd_, .events = POLLIN, .revents = 0};
    char buffer[65536];
    while (open_ && poll(&poll_fd, 1, 0) > 0) {
      const ssize_t n = recv(fd_, buffer, sizeof buffer, 0);
      open_ = n > 0;
      if (open_) received_.append(buffer, n);
    }
    std::string_view in = received_;
    while (in.size() >= 9) {
      const std::size_t size = 9 + NumberIn(in.substr(0, 3));
      if (in.size() < size) break;
      Take(in[3], in[4], NumberIn(in.substr(5, 4)), in.substr(9, size - 9));
      in.remove_prefix(size);
    }
    received_ = std::string(in);
  }

  void Take(char type, char flags, std::uint32_t id, std::string_view body) {
    if (type == kSettings && (flags & 1) == 0) {
      for (; body.size() >= 6; body.remove_prefix(6)) {
        if (NumberIn(body.substr(0, 2)) == 4) {
          initial_window_ = NumberIn(body.substr(2, 4));
        }
      }
      Send(Frame(kSettings, 1, 0, ""));
    } else if (type == kPing && (flags & 1) == 0) {
      Send(Frame(kPing, 1, 0, std::string(body)));
    } else if (type == kWindow) {
      (id == 0 ? window_ : streams_[id].window) += NumberIn(body);
    } else if (type == kReset || (type == kHeaders && (flags & 1) != 0)) {
      streams_[id].reset = true;
    } else if (type == kGoAway) {
      open_ = false;
    }
  }

  const int fd_;
  bool open_ = false;
  std::string received_;
  std::map<std::uint32_t, Stream> streams_;
  std::int64_t window_ = 65535;
  std::int64_t initial_window_ = 65535;
  std::uint64_t sent_ = 0;
};

}  // namespace piserve::server::rpc
