// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "google/protobuf/struct.pb.h"
#include "server/inference.h"
#include "server/websocket/value.h"

namespace piserve::server::websocket {

// The msgpack-numpy dialect of openpi's wire: an ndarray is a map with the
// binary keys __ndarray__, data, dtype and shape; a numpy scalar one with
// __npgeneric__, data and dtype.
// Source: openpi_client/msgpack_numpy.py; docs/pi0.md 5.2.

// Of a message: how deep maps and lists may lie in each other, how many values
// it may hold, how many sides an array may have, how long a key may be.
inline constexpr int kMaxDepth = 8;
inline constexpr int kMaxValues = 4096;
inline constexpr int kMaxSides = 8;
inline constexpr std::size_t kMaxKeyBytes = 64;

// The one map that `message` is, its arrays and scalars resolved. Borrows
// `message`. Memory is bounded by the limits above, whatever sizes the message
// states.
//
// INVALID_ARGUMENT (MALFORMED_MESSAGE) if the bytes are no msgpack, end early,
// go on behind the map, are not a map, go over a limit, have a key doubled or
// one that is neither str nor bytes, or hold an extension type;
// (BAD_ARRAY) if an array's dtype, shape and data do not fit each other.
absl::StatusOr<Map> DecodeMap(std::string_view message);

// The times of one request, as openpi's server reports them.
struct ReplyTimes {
  absl::Duration policy;  // the network alone
  absl::Duration server;  // from receipt to the answer
  // From one reply of the connection to the next, as of the request before.
  std::optional<absl::Duration> previous_total;
};

// {"actions": float64 [horizon, dim], "policy_timing": {"infer_ms"},
//  "server_timing": {"infer_ms", "prev_total_ms"}}
std::string EncodeReply(const InferenceReply& reply, const ReplyTimes& times);

// The first frame of a connection. Keys are sorted, numbers are float64.
std::string EncodeMetadata(const google::protobuf::Struct& metadata);

}  // namespace piserve::server::websocket
