// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "prometheus/metric_family.h"

namespace piserve::server {

using MetricFilter = std::function<bool(const prometheus::ClientMetric&)>;

// The value of a label; empty if there is none of that name.
std::string LabelOf(const prometheus::ClientMetric& metric,
                    std::string_view name);

// The series of a metric; none if there is no such metric.
const std::vector<prometheus::ClientMetric>& SeriesOf(
    const std::vector<prometheus::MetricFamily>& metrics,
    std::string_view name);

// Sum of the counters and gauges of a metric.
double SumOf(const std::vector<prometheus::MetricFamily>& metrics,
             std::string_view name);

// The histograms of a metric that `filter` takes, added up. They must have the
// same buckets.
prometheus::ClientMetric HistogramOf(
    const std::vector<prometheus::MetricFamily>& metrics, std::string_view name,
    const MetricFilter& filter);

}  // namespace piserve::server
