// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "prometheus/client_metric.h"
#include "server/metrics_history.h"

namespace piserve::server {

// One self-contained HTML page for people: what is served, whether it is ready,
// latency, waves, queue and refusals of the last minute, and charts of all of
// `history`. Made of nothing but the metrics; asks for no other file, and for
// itself every 2 s. `history` is not empty, its last one is now.
std::string StatusPage(const MetricsSnapshots& history,
                       const absl::Status& availability);

// The value below which `part` (0 to 1) of the observations lie, interpolated
// inside its bucket as Prometheus does; the last finite bound if it is above
// all. Nothing without observations.
std::optional<double> Quantile(const prometheus::ClientMetric& histogram,
                               double part);

}  // namespace piserve::server
