// SPDX-License-Identifier: Apache-2.0
#include "clients/cpp/piserve/stream_connection.h"

#include <algorithm>
#include <utility>

#include "clients/cpp/piserve/context.h"
#include "clients/cpp/piserve/status.h"

namespace piserve::client {

std::unique_ptr<StreamConnection> StreamConnection::Start(
    v1::PolicyService::Stub* stub, const std::string& api_key, Events events) {
  std::unique_ptr<StreamConnection> connection(
      new StreamConnection(std::move(events)));
  SetCredential(api_key, &connection->context_);
  stub->async()->InferStream(&connection->context_, connection.get());
  // Writes come from outside of the reactor: OnDone waits until Break has let
  // go of this hold.
  connection->AddHold();
  connection->StartRead(&connection->response_);
  connection->StartCall();
  return connection;
}

void StreamConnection::Write(v1::InferStreamRequest request) {
  {
    absl::MutexLock lock(&mutex_);
    if (broken_) return;
    queue_.push_back(std::move(request));
  }
  WriteNext();
}

void StreamConnection::WriteNext() {
  {
    absl::MutexLock lock(&mutex_);
    if (writing_ || broken_ || queue_.empty()) return;
    writing_ = true;
    request_ = std::move(queue_.front());
    queue_.pop_front();
  }
  StartWrite(&request_);
}

bool StreamConnection::Withdraw(const std::string& request_id) {
  absl::MutexLock lock(&mutex_);
  const auto found = std::find_if(
      queue_.begin(), queue_.end(), [&](const v1::InferStreamRequest& request) {
        return request.observation().request_id() == request_id;
      });
  if (found == queue_.end()) return false;
  queue_.erase(found);
  return true;
}

void StreamConnection::OnReadDone(bool ok) {
  if (!ok) return Break();
  events_.on_reply(response_);
  StartRead(&response_);
}

void StreamConnection::OnWriteDone(bool ok) {
  bool release = false;
  {
    absl::MutexLock lock(&mutex_);
    writing_ = false;
    release = broken_;
  }
  if (release) return RemoveHold();
  if (ok) WriteNext();
}

void StreamConnection::Break() {
  bool release = false;
  {
    absl::MutexLock lock(&mutex_);
    broken_ = true;
    queue_.clear();
    release = !writing_;
  }
  if (release) RemoveHold();
}

void StreamConnection::OnDone(const grpc::Status& status) {
  // From on_end on, the owner may destroy this.
  const Events events = std::move(events_);
  events.on_end(this, FromGrpc(status));
}

}  // namespace piserve::client
