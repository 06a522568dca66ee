// SPDX-License-Identifier: Apache-2.0
#include "clients/cpp/load/transport.h"

#include <chrono>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "clients/cpp/piserve/codec.h"
#include "clients/cpp/piserve/context.h"
#include "clients/cpp/piserve/infer_stub.h"

namespace piserve::load {
namespace {

class UnaryTransport final : public Transport {
 public:
  UnaryTransport(std::shared_ptr<grpc::Channel> channel, std::string api_key)
      : stub_(std::move(channel)), api_key_(std::move(api_key)) {}

  ~UnaryTransport() override {
    const auto idle = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return in_flight_ == 0;
    };
    absl::MutexLock lock(&mutex_);
    mutex_.Await(absl::Condition(&idle));
  }

  void Send(const client::ObservationIn& observation, absl::Duration timeout,
            Done done) override {
    auto* call = new PendingCall;
    call->request_id = observation.request_id;
    call->done = std::move(done);
    call->context.set_deadline(client::GrpcDeadline(timeout));
    client::SetCredential(api_key_, &call->context);
    call->request =
        client::EncodeRequest(observation, std::chrono::steady_clock::now());
    {
      absl::MutexLock lock(&mutex_);
      ++in_flight_;
    }
    stub_.Start(
        &call->request, &call->context, &call->response,
        [this, call](const absl::Status& status) { Finish(call, status); });
  }

 private:
  struct PendingCall {
    grpc::ClientContext context;
    grpc::ByteBuffer request;
    v1::InferResponse response;
    std::string request_id;
    Done done;
  };

  // The call is gone before the destructor goes on: its context holds the
  // channel, which no thread of gRPC's may be the last to let go of.
  void Finish(PendingCall* call, const absl::Status& status) {
    if (status.ok()) {
      call->done(
          client::DecodeResult(call->response.result(), call->request_id));
    } else {
      call->done(status);
    }
    delete call;
    absl::MutexLock lock(&mutex_);
    --in_flight_;
  }

  client::InferStub stub_;
  const std::string api_key_;
  absl::Mutex mutex_;
  int in_flight_ ABSL_GUARDED_BY(mutex_) = 0;
};

class StreamTransport final : public Transport {
 public:
  StreamTransport(std::shared_ptr<client::PolicyClient> client,
                  std::unique_ptr<client::PolicyStream> stream)
      : client_(std::move(client)), stream_(std::move(stream)) {}

  void Send(const client::ObservationIn& observation, absl::Duration timeout,
            Done done) override {
    stream_->Send(observation, {.timeout = timeout}, std::move(done));
  }

  std::uint64_t dropped_replies() const override {
    return stream_->dropped_replies();
  }

 private:
  const std::shared_ptr<client::PolicyClient> client_;
  const std::unique_ptr<client::PolicyStream> stream_;
};

absl::StatusOr<std::unique_ptr<Transport>> MakeStream(
    std::shared_ptr<client::PolicyClient> client) {
  auto stream = client->OpenStream();
  if (!stream.ok()) return stream.status();
  return std::make_unique<StreamTransport>(std::move(client),
                                           *std::move(stream));
}

}  // namespace

absl::StatusOr<std::vector<std::unique_ptr<Transport>>> MakeTransports(
    const client::Options& options, Call call, Connections connections,
    int robots) {
  std::vector<std::unique_ptr<Transport>> transports;
  std::shared_ptr<grpc::Channel> channel;
  std::shared_ptr<client::PolicyClient> client;
  for (int robot = 0; robot < robots; ++robot) {
    const bool connect = robot == 0 || connections == Connections::kOwn;
    if (call == Call::kUnary) {
      if (connect) {
        auto made = client::MakeChannel(options);
        if (!made.ok()) return made.status();
        channel = *std::move(made);
      }
      transports.push_back(
          std::make_unique<UnaryTransport>(channel, options.api_key));
      continue;
    }
    if (connect) {
      auto made = client::PolicyClient::Connect(options);
      if (!made.ok()) return made.status();
      client = *std::move(made);
    }
    auto transport = MakeStream(client);
    if (!transport.ok()) return transport.status();
    transports.push_back(*std::move(transport));
  }
  return transports;
}

}  // namespace piserve::load
