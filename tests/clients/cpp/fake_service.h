// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "clients/cpp/piserve/client.h"
#include "clients/cpp/piserve/clock.h"
#include "clients/cpp/piserve/observation.h"
#include "google/protobuf/message.h"
#include "grpcpp/server.h"
#include "grpcpp/server_context.h"
#include "piserve/v1/policy.grpc.pb.h"

namespace piserve::client {

// Moves only when told to, or when somebody sleeps by it.
class FakeClock final : public Clock {
 public:
  TimePoint Now() override {
    std::lock_guard<std::mutex> lock(mutex_);
    return now_;
  }
  void SleepFor(absl::Duration duration) override {
    std::lock_guard<std::mutex> lock(mutex_);
    sleeps_.push_back(duration);
    now_ += absl::ToChronoNanoseconds(duration);
  }
  void Advance(absl::Duration duration) {
    std::lock_guard<std::mutex> lock(mutex_);
    now_ += absl::ToChronoNanoseconds(duration);
  }
  std::vector<absl::Duration> sleeps() {
    std::lock_guard<std::mutex> lock(mutex_);
    return sleeps_;
  }

 private:
  std::mutex mutex_;
  TimePoint now_ = TimePoint(std::chrono::hours(1));
  std::vector<absl::Duration> sleeps_;
};

// A server in this process that answers as the test says: policy "fake" with
// the cameras "base" (required) and "wrist" (optional), a state of 2 and 1
// dimensions, and chunks of [2, 3].
class FakeService final : public v1::PolicyService::Service {
 public:
  using Stream =
      grpc::ServerReaderWriter<v1::InferStreamResponse, v1::InferStreamRequest>;

  FakeService();
  ~FakeService() override;

  // Ends the calls at once and stops listening.
  void Stop();
  // Listens on the port of the first time.
  void Start();

  std::string address() const;

  // Set before the calls they answer.
  std::function<grpc::Status(grpc::ServerContext*, const v1::InferRequest&,
                             v1::InferResponse*)>
      on_infer;
  std::function<grpc::Status(Stream*)> on_stream;
  bool hides_policy = false;  // from GetPolicyInfo
  v1::PolicyInfo info;

  // Of each Infer so far.
  std::vector<v1::InferRequest> requests();
  std::vector<absl::Duration> budgets();  // to the call's deadline
  std::vector<std::string> credentials();
  int info_calls();

  grpc::Status Infer(grpc::ServerContext* context,
                     const v1::InferRequest* request,
                     v1::InferResponse* response) override;
  grpc::Status InferStream(grpc::ServerContext* context,
                           Stream* stream) override;
  grpc::Status GetPolicyInfo(grpc::ServerContext* context,
                             const v1::GetPolicyInfoRequest* request,
                             v1::GetPolicyInfoResponse* response) override;

 private:
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
  std::mutex mutex_;
  std::vector<v1::InferRequest> requests_;
  std::vector<absl::Duration> budgets_;
  std::vector<std::string> credentials_;
  int info_calls_ = 0;
};

// What the fake service takes.
ObservationIn FakeObservation();

// A chunk [2, 3] of 0, 1, ... 5 in answer to `request_id`.
v1::InferResult FakeResult(const std::string& request_id);

// A refusal with details, as the server makes them.
grpc::Status Refusal(
    grpc::StatusCode code, const std::string& message,
    const std::vector<const google::protobuf::Message*>& details);
grpc::Status RefusalWithRetry(grpc::StatusCode code, absl::Duration delay);

}  // namespace piserve::client
