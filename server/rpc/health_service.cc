// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/health_service.h"

#include <optional>
#include <utility>

namespace piserve::server::rpc {

using grpc::health::v1::HealthCheckRequest;
using grpc::health::v1::HealthCheckResponse;

namespace {

// Longer than any name that is Set.
constexpr std::size_t kMaxNameBytes = 256;

}  // namespace

// One Watch. Deletes itself when gRPC is done with it. Its fields are guarded
// by the service's mutex; it leaves the service's set before it goes.
class HealthWatch final : public grpc::ServerWriteReactor<HealthCheckResponse> {
 public:
  HealthWatch(HealthService& service, std::string name)
      : service_(service), name_(std::move(name)) {}

  const std::string& name() const { return name_; }

  // Instead of everything else. Hold the service's mutex.
  void Refuse(const grpc::Status& status) {
    finished_ = true;
    Finish(status);
  }

  // Sends `status` once what is being written is written. Only the newest
  // counts. Hold the service's mutex.
  void Update(HealthService::Status status) {
    if (status == sent_ && !wanted_.has_value()) return;
    wanted_ = status;
    Advance();
  }

  // Hold the service's mutex.
  void End() {
    ending_ = true;
    Advance();
  }

  void OnWriteDone(bool ok) override {
    batching::MutexLock lock(service_.mutex_);
    writing_ = false;
    if (!ok) ending_ = true;
    Advance();
  }

  void OnCancel() override {
    batching::MutexLock lock(service_.mutex_);
    ending_ = true;
    wanted_.reset();
    Advance();
  }

  void OnDone() override {
    service_.Unregister(this);
    delete this;
  }

 private:
  // Reactions never run inside StartWrite or Finish, so the lock may be held.
  void Advance() {
    if (writing_ || finished_) return;
    if (wanted_.has_value() && *wanted_ != sent_) {
      sent_ = *std::exchange(wanted_, std::nullopt);
      writing_ = true;
      message_.set_status(*sent_);
      StartWrite(&message_);
    } else if (ending_) {
      finished_ = true;
      Finish(grpc::Status(grpc::StatusCode::UNAVAILABLE,
                          "the server is shutting down"));
    } else {
      wanted_.reset();
    }
  }

  HealthService& service_;
  const std::string name_;
  HealthCheckResponse message_;
  std::optional<HealthService::Status> sent_;
  std::optional<HealthService::Status> wanted_;
  bool writing_ = false;
  bool ending_ = false;
  bool finished_ = false;
};

void HealthService::Set(absl::string_view service, Serving serving) {
  const Status status = serving == Serving::kYes
                            ? HealthCheckResponse::SERVING
                            : HealthCheckResponse::NOT_SERVING;
  const std::string name(service);
  batching::MutexLock lock(mutex_);
  services_[name] = status;
  for (HealthWatch* watch : watches_) {
    if (watch->name() == name) watch->Update(status);
  }
}

void HealthService::EndWatches() {
  batching::MutexLock lock(mutex_);
  ended_ = true;
  for (HealthWatch* watch : watches_) {
    watch->Update(HealthCheckResponse::NOT_SERVING);
    watch->End();
  }
}

grpc::ServerUnaryReactor* HealthService::Check(
    grpc::CallbackServerContext* context, const HealthCheckRequest* request,
    HealthCheckResponse* response) {
  auto* reactor = context->DefaultReactor();
  batching::MutexLock lock(mutex_);
  const Status status = StatusOf(request->service());
  if (status == HealthCheckResponse::SERVICE_UNKNOWN) {
    reactor->Finish(
        grpc::Status(grpc::StatusCode::NOT_FOUND, "unknown service"));
  } else {
    response->set_status(status);
    reactor->Finish(grpc::Status::OK);
  }
  return reactor;
}

grpc::ServerWriteReactor<HealthCheckResponse>* HealthService::Watch(
    grpc::CallbackServerContext*, const HealthCheckRequest* request) {
  if (request->service().size() > kMaxNameBytes) {
    auto* refused = new HealthWatch(*this, "");
    batching::MutexLock lock(mutex_);
    refused->Refuse({grpc::StatusCode::INVALID_ARGUMENT,
                     "service: want at most 256 bytes"});
    return refused;
  }
  auto* watch = new HealthWatch(*this, request->service());
  Register(watch);
  return watch;
}

void HealthService::Register(HealthWatch* watch) {
  batching::MutexLock lock(mutex_);
  watches_.insert(watch);
  watch->Update(ended_ ? HealthCheckResponse::NOT_SERVING
                       : StatusOf(watch->name()));
  if (ended_) watch->End();
}

void HealthService::Unregister(HealthWatch* watch) {
  batching::MutexLock lock(mutex_);
  watches_.erase(watch);
}

HealthService::Status HealthService::StatusOf(
    const std::string& service) const {
  const auto it = services_.find(service);
  return it == services_.end() ? HealthCheckResponse::SERVICE_UNKNOWN
                               : it->second;
}

}  // namespace piserve::server::rpc
