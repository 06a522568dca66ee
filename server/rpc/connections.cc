// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/connections.h"

#include <algorithm>
#include <string>

#include "absl/strings/numbers.h"
#include "google/protobuf/struct.pb.h"
#include "google/protobuf/util/json_util.h"
#include "grpc/grpc.h"
#include "grpc/support/alloc.h"

namespace piserve::server::rpc {
namespace {

using google::protobuf::Struct;
using google::protobuf::Value;

constexpr int kPage = 1000;

// Takes over `json`, which gRPC allocated; null becomes an empty object.
Struct ParseJson(char* json) {
  Struct parsed;
  if (json == nullptr) return parsed;
  const bool ok =
      google::protobuf::util::JsonStringToMessage(json, &parsed).ok();
  gpr_free(json);
  return ok ? parsed : Struct();
}

// null, which reads as an empty list, an empty object and so on, if absent.
const Value& Get(const Struct& object, const char* key) {
  const auto it = object.fields().find(key);
  return it == object.fields().end() ? Value::default_instance() : it->second;
}

// 64-bit numbers are strings in protobuf's JSON.
std::int64_t IdIn(const Struct& object, const char* key) {
  std::int64_t id = 0;
  return absl::SimpleAtoi(Get(object, key).string_value(), &id) ? id : 0;
}

}  // namespace

std::int64_t NewestServerId() {
  std::int64_t newest = 0;
  while (true) {
    const Struct page = ParseJson(grpc_channelz_get_servers(newest + 1));
    const auto& servers = Get(page, "server").list_value().values();
    for (const Value& server : servers) {
      const Value& ref = Get(server.struct_value(), "ref");
      newest = std::max(newest, IdIn(ref.struct_value(), "serverId"));
    }
    if (servers.empty() || Get(page, "end").bool_value()) return newest;
  }
}

int CountConnections(std::int64_t server_id) {
  int count = 0;
  std::int64_t last = 0;
  while (true) {
    const Struct page =
        ParseJson(grpc_channelz_get_server_sockets(server_id, last + 1, kPage));
    const auto& sockets = Get(page, "socketRef").list_value().values();
    for (const Value& socket : sockets) {
      last = std::max(last, IdIn(socket.struct_value(), "socketId"));
    }
    count += sockets.size();
    if (sockets.empty() || Get(page, "end").bool_value()) return count;
  }
}

}  // namespace piserve::server::rpc
