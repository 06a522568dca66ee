// SPDX-License-Identifier: Apache-2.0
#include "server/address.h"

#include <arpa/inet.h>

#include <cstddef>

#include "absl/algorithm/container.h"
#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace piserve::server {

absl::StatusOr<HostPort> ParseAddress(absl::string_view address) {
  const auto bad = [&] {
    return absl::InvalidArgumentError(
        absl::StrCat("got \"", absl::CHexEscape(address),
                     "\", want host:port with an IP address or localhost"));
  };
  const std::size_t colon = address.rfind(':');
  if (colon == absl::string_view::npos) return bad();
  absl::string_view host = address.substr(0, colon);
  const absl::string_view digits = address.substr(colon + 1);
  HostPort out;
  if (digits.empty() || digits.size() > 5 ||
      !absl::c_all_of(digits, absl::ascii_isdigit) ||
      !absl::SimpleAtoi(digits, &out.port) || out.port > 65535) {
    return bad();
  }
  const bool bracketed =
      absl::ConsumePrefix(&host, "[") && absl::ConsumeSuffix(&host, "]");
  out.host = std::string(host);
  in_addr v4;
  in6_addr v6;
  const bool good = bracketed
                        ? inet_pton(AF_INET6, out.host.c_str(), &v6) == 1
                        : out.host == "localhost" ||
                              inet_pton(AF_INET, out.host.c_str(), &v4) == 1;
  if (!good) return bad();
  return out;
}

bool IsLoopback(const HostPort& address) {
  in_addr v4;
  if (inet_pton(AF_INET, address.host.c_str(), &v4) == 1) {
    return (ntohl(v4.s_addr) >> 24) == 127;
  }
  return address.host == "::1" || address.host == "localhost";
}

}  // namespace piserve::server
