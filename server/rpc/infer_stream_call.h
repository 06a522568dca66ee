// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "batching/mutex.h"
#include "grpcpp/support/byte_buffer.h"
#include "grpcpp/support/server_callback.h"
#include "server/inference.h"
#include "server/rpc/policy_service.h"

namespace piserve::server::rpc {

// Requests on one stream that wait for their answer.
inline constexpr int kMaxInFlight = 64;

// One InferStream. Deletes itself when gRPC is done with it.
//
// Life: Finish is called only when no request is outstanding or being taken, no
// write is under way, and the client is done (half-closed, gone) or the server
// drains. Until then the object lives. Only reactions start reads, and gRPC
// keeps the object during a reaction; a completion decides under one lock that
// its request is no longer outstanding and what it does next. So nobody counts
// references.
//
// Memory: at most kMaxInFlight requests and kMaxPending messages in all; then
// nothing more is read until the client takes its answers.
class InferStreamCall final
    : public grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer> {
 public:
  // Both borrowed until OnDone.
  InferStreamCall(PolicyService& service, grpc::CallbackServerContext& context);

  // Call once, from the service's method.
  void Run();

  // Ends the stream as soon as nothing is outstanding. Thread-safe; the caller
  // sees to it that OnDone has not run.
  void Drain();

  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

 private:
  // Outstanding requests and unsent answers.
  static constexpr int kMaxPending = 2 * kMaxInFlight;

  struct Request {
    std::string id = {};
    absl::Time received = {};
    absl::Duration parse = {};
  };
  // An answer behind others. Its request ends, for the observer, when it is
  // handed to gRPC or dropped.
  struct Unsent {
    Request request;
    absl::Status status;
    grpc::ByteBuffer bytes;
    absl::Time ready;
    // Given under this deadline; zero: no deadline.
    absl::Duration served = absl::ZeroDuration();
  };

  // What the thread that holds the lock must do after letting it go.
  struct Next {
    grpc::ByteBuffer* write = nullptr;
    std::optional<absl::Status> finish = {};

    bool any() const { return write != nullptr || finish.has_value(); }
  };

  // False once the stream is finished: its status is the answer then, and a
  // request that starts now would outlive the object.
  bool MayTake();
  void Take(grpc::ByteBuffer& bytes);
  absl::StatusOr<InferenceRequest> Read(grpc::ByteBuffer& bytes,
                                        Request& request);
  // INVALID_ARGUMENT for an id in flight, RESOURCE_EXHAUSTED beyond the limit.
  absl::Status Register(const std::string& id);
  void Start(InferenceRequest inference, Request request);
  void Complete(const Request& request, absl::StatusOr<InferenceReply> reply);
  Unsent Answer(const Request& request, absl::Status status,
                const v1::InferStreamResponse& response) const;
  Unsent Refusal(const Request& request, const absl::Status& status) const;
  // Queues `answer`, or ends its request if nobody is there to read it.
  void Queue(Unsent answer) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Makes an answer that grew old behind others a refusal, and reports the end
  // of its request. Once for each.
  void Conclude(Unsent& answer) const;
  // All but the one being written.
  void DropUnsent() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  void ReadNext();  // from reactions only
  Next DecideNext() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Without the lock; may be the object's last act.
  void Do(const Next& next);
  void Advance();

  PolicyService& service_;
  grpc::CallbackServerContext& context_;
  Identity identity_;
  grpc::ByteBuffer incoming_;  // touched by reads only

  batching::Mutex mutex_;
  // Outstanding requests; the value is empty until Inference gave it.
  std::unordered_map<std::string, Inference::Cancel> in_flight_
      ABSL_GUARDED_BY(mutex_);
  std::deque<Unsent> unsent_ ABSL_GUARDED_BY(mutex_);
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  // From the start of a read until its message has been taken.
  bool reading_ ABSL_GUARDED_BY(mutex_) = false;
  // While a message is on its way from incoming_ to in_flight_ or unsent_.
  bool taking_ ABSL_GUARDED_BY(mutex_) = false;
  bool reads_ended_ ABSL_GUARDED_BY(mutex_) = false;
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  bool draining_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace piserve::server::rpc
