// SPDX-License-Identifier: Apache-2.0
#include "server/metric_series.h"

namespace piserve::server {

using prometheus::ClientMetric;
using prometheus::MetricFamily;

std::string LabelOf(const ClientMetric& metric, std::string_view name) {
  for (const auto& label : metric.label) {
    if (label.name == name) return label.value;
  }
  return "";
}

const std::vector<ClientMetric>& SeriesOf(
    const std::vector<MetricFamily>& metrics, std::string_view name) {
  static const auto& none = *new std::vector<ClientMetric>();
  for (const MetricFamily& family : metrics) {
    if (family.name == name) return family.metric;
  }
  return none;
}

double SumOf(const std::vector<MetricFamily>& metrics, std::string_view name) {
  double sum = 0;
  for (const ClientMetric& metric : SeriesOf(metrics, name)) {
    sum += metric.counter.value + metric.gauge.value;
  }
  return sum;
}

ClientMetric HistogramOf(const std::vector<MetricFamily>& metrics,
                         std::string_view name, const MetricFilter& filter) {
  ClientMetric sum;
  for (const ClientMetric& metric : SeriesOf(metrics, name)) {
    if (!filter(metric)) continue;
    const auto& histogram = metric.histogram;
    sum.histogram.sample_count += histogram.sample_count;
    sum.histogram.sample_sum += histogram.sample_sum;
    if (sum.histogram.bucket.empty()) {
      sum.histogram.bucket = histogram.bucket;
      continue;
    }
    for (std::size_t i = 0; i < histogram.bucket.size(); ++i) {
      sum.histogram.bucket.at(i).cumulative_count +=
          histogram.bucket[i].cumulative_count;
    }
  }
  return sum;
}

}  // namespace piserve::server
