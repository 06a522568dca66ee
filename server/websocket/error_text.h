// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "absl/status/status.h"

namespace piserve::server::websocket {

// What a client reads in place of openpi's traceback, valid UTF-8 of some 600
// bytes at most:
//
//   INVALID_ARGUMENT (STATE_LENGTH): observation/state: got shape [7], want [8]
//   RESOURCE_EXHAUSTED (QUEUE_FULL): the queue is full in rows; try again after
//   12ms
std::string ErrorText(const absl::Status& status);

}  // namespace piserve::server::websocket
