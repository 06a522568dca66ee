// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "prometheus/metric_family.h"

namespace piserve::server {

// One self-contained HTML page: what is served, whether it is ready, the queue,
// and where the time goes. Reads nothing but the metrics; reloads itself.
std::string StatusPage(const std::vector<prometheus::MetricFamily>& metrics,
                       const absl::Status& availability);

// The value below which `part` (0 to 1) of the observations lie, interpolated
// inside its bucket as Prometheus does; the last finite bound if it is above
// all. Nothing without observations.
std::optional<double> Quantile(const prometheus::ClientMetric& histogram,
                               double part);

}  // namespace piserve::server
