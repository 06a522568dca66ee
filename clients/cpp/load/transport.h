// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "clients/cpp/piserve/client.h"
#include "clients/cpp/piserve/observation.h"

namespace piserve::load {

enum class Call { kUnary, kStream };
enum class Connections { kOwn, kShared };

// A robot's way to the server. Nothing is retried: a load run counts what the
// server said first.
class Transport {
 public:
  // Fires exactly once, on any thread; must not block.
  using Done = std::function<void(absl::StatusOr<client::ActionChunk>)>;

  // Every Done has fired when this returns.
  virtual ~Transport() = default;

  // Never blocks; keeps nothing of `observation`.
  virtual void Send(const client::ObservationIn& observation,
                    absl::Duration timeout, Done done) = 0;

  // Answers that nobody waited for any more.
  virtual std::uint64_t dropped_replies() const { return 0; }
};

// One for each robot. Own connections are separate TCP connections; on a shared
// one every robot still has a stream of its own.
absl::StatusOr<std::vector<std::unique_ptr<Transport>>> MakeTransports(
    const client::Options& options, Call call, Connections connections,
    int robots);

}  // namespace piserve::load
