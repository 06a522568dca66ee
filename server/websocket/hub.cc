// SPDX-License-Identifier: Apache-2.0
#include "server/websocket/hub.h"

#include "server/websocket/session.h"

namespace piserve::server::websocket {

Hub::Hub(const ListenerOptions& options_in, const Backends& backends_in)
    : options(options_in), backends(backends_in) {}

Hub::~Hub() = default;

void Hub::Add(Session* session) {
  batching::MutexLock lock(mutex_);
  sessions_.insert(session);
}

void Hub::Remove(Session* session) {
  batching::MutexLock lock(mutex_);
  sessions_.erase(session);
  if (sessions_.empty()) changed_.NotifyAll();
}

int Hub::sessions() const {
  batching::MutexLock lock(mutex_);
  return static_cast<int>(sessions_.size());
}

std::vector<std::shared_ptr<Session>> Hub::Sessions() const {
  std::vector<std::shared_ptr<Session>> live;
  batching::MutexLock lock(mutex_);
  for (Session* session : sessions_) {
    // Null for one that is waiting in Remove. The others are let go of by the
    // caller, without the lock.
    if (auto held = session->weak_from_this().lock()) {
      live.push_back(std::move(held));
    }
  }
  return live;
}

void Hub::CallBegan() {
  batching::MutexLock lock(mutex_);
  ++calls_;
}

void Hub::CallEnded() {
  batching::MutexLock lock(mutex_);
  if (--calls_ == 0) changed_.NotifyAll();
}

bool Hub::WaitNoSessions(absl::Duration timeout) {
  const absl::Time until = backends.clock.Now() + timeout;
  batching::MutexLock lock(mutex_);
  while (!sessions_.empty()) {
    const absl::Duration left = until - backends.clock.Now();
    if (left <= absl::ZeroDuration()) return false;
    changed_.WaitFor(mutex_, left);
  }
  return true;
}

void Hub::WaitNoCalls() {
  batching::MutexLock lock(mutex_);
  while (calls_ > 0) changed_.Wait(mutex_);
}

}  // namespace piserve::server::websocket
