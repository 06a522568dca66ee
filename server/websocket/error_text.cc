// SPDX-License-Identifier: Apache-2.0
#include "server/websocket/error_text.h"

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "model/error.h"
#include "server/public_message.h"

namespace piserve::server::websocket {

std::string ErrorText(const absl::Status& status) {
  std::string text = absl::StatusCodeToString(status.code());
  if (const auto reason = ReasonOf(status)) {
    absl::StrAppend(&text, " (", *reason, ")");
  }
  absl::StrAppend(&text, ": ", PublicMessage(status));
  const auto after = RetryAfterOf(status);
  if (!after.has_value()) return text;
  if (*after > absl::ZeroDuration()) {
    absl::StrAppend(
        &text, "; try again after ",
        absl::FormatDuration(absl::Ceil(*after, absl::Milliseconds(1))));
  } else {
    absl::StrAppend(&text, "; try another server");
  }
  return text;
}

}  // namespace piserve::server::websocket
