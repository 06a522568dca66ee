// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace piserve::server::rpc {

// channelz's number of the gRPC server of this process that was built last; 0
// if there is none. The server must have been built with
// GRPC_ARG_ENABLE_CHANNELZ. (Its listening sockets do not tell: for port 0
// channelz shows the 0.)
std::int64_t NewestServerId();

// Open connections to the server of that number.
int CountConnections(std::int64_t server_id);

}  // namespace piserve::server::rpc
