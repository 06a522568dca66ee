// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "grpcpp/client_context.h"
#include "grpcpp/support/client_callback.h"
#include "piserve/v1/policy.grpc.pb.h"

namespace piserve::client {

// One InferStream call, from its first message to its end. Must outlive on_end,
// which may not destroy it: it holds the channel, and gRPC joins its threads
// when the last holder of a channel goes. Thread-safe.
class StreamConnection final
    : public grpc::ClientBidiReactor<v1::InferStreamRequest,
                                     v1::InferStreamResponse> {
 public:
  struct Events {
    std::function<void(const v1::InferStreamResponse&)> on_reply;
    // Exactly once, and last.
    std::function<void(StreamConnection*, const absl::Status&)> on_end;
  };

  // Events fire on threads of gRPC's, possibly before this returns.
  static std::unique_ptr<StreamConnection> Start(v1::PolicyService::Stub* stub,
                                                 const std::string& api_key,
                                                 Events events);

  // Queues a message; never blocks. Of a broken call it is dropped.
  void Write(v1::InferStreamRequest request);

  // True once nothing can be written any more; on_end follows.
  bool broken() {
    absl::MutexLock lock(&mutex_);
    return broken_;
  }

  // Takes a message back; false if it has been handed to gRPC.
  bool Withdraw(const std::string& request_id);

  void Cancel() { context_.TryCancel(); }

  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override;
  void OnDone(const grpc::Status& status) override;

 private:
  explicit StreamConnection(Events events) : events_(std::move(events)) {}

  // Hands the front of the queue to gRPC, if no other message is on its way.
  void WriteNext();
  void Break();

  Events events_;
  grpc::ClientContext context_;
  v1::InferStreamResponse response_;  // of the read under way
  v1::InferStreamRequest request_;    // of the write under way
  absl::Mutex mutex_;
  std::deque<v1::InferStreamRequest> queue_ ABSL_GUARDED_BY(mutex_);
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool broken_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace piserve::client
