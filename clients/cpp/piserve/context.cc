// SPDX-License-Identifier: Apache-2.0
#include "clients/cpp/piserve/context.h"

#include "absl/strings/str_cat.h"

namespace piserve::client {

std::chrono::system_clock::time_point GrpcDeadline(absl::Duration left) {
  return std::chrono::system_clock::now() + absl::ToChronoMicroseconds(left);
}

void SetCredential(const std::string& api_key, grpc::ClientContext* context) {
  if (api_key.empty()) return;
  context->AddMetadata("authorization", absl::StrCat("Bearer ", api_key));
}

std::optional<std::string> Pushback(const grpc::ClientContext& context) {
  const auto& trailers = context.GetServerTrailingMetadata();
  const auto found = trailers.find("grpc-retry-pushback-ms");
  if (found == trailers.end()) return std::nullopt;
  return std::string(found->second.data(), found->second.size());
}

}  // namespace piserve::client
