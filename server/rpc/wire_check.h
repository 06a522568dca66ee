// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/status/status.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/io/zero_copy_stream.h"

namespace piserve::server::rpc {

// Walks the bytes of a message before it is parsed, and refuses what the parser
// would accept too readily or refuse without saying why. INVALID_ARGUMENT with
// the field's path, relative to the observation where it is inside one:
//
//   UNKNOWN_FIELD      a field that this server does not know: the contract
//                      says that what is not acted on is never ignored
//   NOT_UTF8           a string that is not UTF-8
//   TOO_MANY           more than kMaxElements messages in one repeated field: a
//                      message in memory is up to 40 times its bytes, so that
//                      is where memory would grow
//   MALFORMED_MESSAGE  not protobuf, or nested deeper than the contract is
//
// Takes time in proportion to the fields, not to the bytes of the images.
absl::Status CheckWire(google::protobuf::io::ZeroCopyInputStream& input,
                       const google::protobuf::Descriptor& message);

inline constexpr int kMaxElements = 64;

}  // namespace piserve::server::rpc
