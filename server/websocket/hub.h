// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <boost/asio/io_context.hpp>
#include <memory>
#include <unordered_set>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"
#include "batching/mutex.h"
#include "server/websocket/handshake.h"
#include "server/websocket/listener.h"

namespace piserve::server::websocket {

class Session;

// What the sessions of a listener share. Thread-safe.
class Hub : public std::enable_shared_from_this<Hub> {
 public:
  Hub(const ListenerOptions& options_in, const Backends& backends_in);
  ~Hub();

  // From now on new sessions are turned away.
  void Drain() { draining_ = true; }
  bool draining() const { return draining_; }

  // A session counts from its first call, when others may hold it, to its
  // destruction.
  void Add(Session* session);
  void Remove(Session* session);
  int sessions() const;
  std::vector<std::shared_ptr<Session>> Sessions() const;

  // A call counts until Completed was reported.
  void CallBegan();
  void CallEnded();

  // True once there is none, false after `timeout`.
  bool WaitNoSessions(absl::Duration timeout);
  void WaitNoCalls();

  const ListenerOptions options;
  const Backends backends;

 private:
  std::atomic<bool> draining_ = false;
  mutable batching::Mutex mutex_;
  batching::CondVar changed_;
  std::unordered_set<Session*> sessions_ ABSL_GUARDED_BY(mutex_);
  int calls_ ABSL_GUARDED_BY(mutex_) = 0;

 public:
  // Last: what it still holds when it goes uses all above.
  boost::asio::io_context io;
};

}  // namespace piserve::server::websocket
