// SPDX-License-Identifier: Apache-2.0
#include "server/websocket/handshake.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/strip.h"
#include "model/error.h"
#include "server/websocket/msgpack_codec.h"

namespace piserve::server::websocket {
namespace {

// "NAME" of "/NAME/?query".
std::string NameIn(absl::string_view target) {
  target = target.substr(0, target.find('?'));
  absl::ConsumePrefix(&target, "/");
  absl::ConsumeSuffix(&target, "/");
  return std::string(target);
}

absl::StatusOr<v1::PolicyInfo> FindPolicy(const Backends& backends,
                                          const std::string& target) {
  std::string name = NameIn(target);
  if (name.empty()) name = backends.directory.DefaultPolicy();
  if (name.empty()) {
    return WithReason(
        absl::NotFoundError(
            "path: got none, want /NAME of one of the policies hosted"),
        "POLICY_REQUIRED");
  }
  auto response = backends.directory.Describe(name);
  if (!response.ok()) return response.status();
  return std::move(*response->mutable_policies(0));
}

}  // namespace

absl::StatusOr<Welcome> Judge(const Backends& backends,
                              const ConnectRequest& request) {
  if (request.origin.has_value()) {
    return WithReason(
        absl::PermissionDeniedError("got an Origin header, want none: pages in "
                                    "a browser may not drive robots"),
        "ORIGIN_NOT_ALLOWED");
  }
  std::optional<absl::string_view> credential;
  if (request.authorization.has_value()) credential = *request.authorization;
  const auto identity = backends.authenticator.Authenticate(credential);
  if (!identity.ok()) return identity.status();
  if (absl::Status s = backends.directory.Availability(); !s.ok()) return s;
  const auto info = FindPolicy(backends, request.target);
  if (!info.ok()) return info.status();
  if (absl::Status s = rpc::Authorize(*identity, info->name(), ""); !s.ok()) {
    return s;
  }
  auto reader = ObservationReader::Create(*info);
  if (!reader.ok()) return reader.status();
  return Welcome{.identity = identity->name,
                 .reader = *std::move(reader),
                 .metadata = EncodeMetadata(info->metadata())};
}

int HttpStatusOf(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return 200;
    case absl::StatusCode::kInvalidArgument:
      return 400;
    case absl::StatusCode::kUnauthenticated:
      return 401;
    case absl::StatusCode::kPermissionDenied:
      return 403;
    case absl::StatusCode::kNotFound:
      return 404;
    case absl::StatusCode::kFailedPrecondition:
      return 501;
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kResourceExhausted:
      return 503;
    default:
      return 500;
  }
}

}  // namespace piserve::server::websocket
