// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "server/config.h"

namespace piserve::server {

// When a wave that is still running counts as hung.
struct HangLimit {
  double factor = 10;    // times the prediction,
  absl::Duration floor;  // and this on top,
  // but no more than this, or half the prediction more where that is longer.
  absl::Duration most = absl::InfiniteDuration();

  // Of a wave that was predicted to take this long, with what others' waves
  // take of the device meanwhile.
  absl::Duration After(absl::Duration predicted) const;
};

// A policy's, by its Capabilities::backend: a GPU that hangs must be out within
// a second, however large the wave; a CPU that others use too may take its
// time. A floor of the operator's own is not limited.
HangLimit HangLimitOf(const WatchdogConfig& config, absl::string_view backend);

}  // namespace piserve::server
