// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "absl/status/status.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/io/zero_copy_stream.h"

namespace piserve::server::rpc {

// Messages in one repeated field.
inline constexpr int kMaxElements = 64;

// Walks the bytes of a message before it is parsed, and refuses what the parser
// would take too readily, or refuse without saying why. INVALID_ARGUMENT with
// the field's path, relative to the observation where it is inside one:
//
//   UNKNOWN_FIELD      a field that this server does not know: the contract
//                      says that what is not acted on is never ignored
//   NOT_UTF8           a string that is not UTF-8
//   DOUBLED_FIELD      a single message given twice, or two of a oneof
//   TOO_MANY           more than kMaxElements messages in one repeated field: a
//                      message in memory is up to 40 times its bytes
//   MALFORMED_MESSAGE  not protobuf
//
// `request_id` becomes the observation's, where it was met before a fault; so a
// refusal can still be told apart from others on its stream.
//
// Takes time in proportion to the fields, not to the bytes of the images.
absl::Status CheckWire(google::protobuf::io::ZeroCopyInputStream& input,
                       const google::protobuf::Descriptor& message,
                       std::string* request_id);

}  // namespace piserve::server::rpc
