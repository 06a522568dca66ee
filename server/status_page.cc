// SPDX-License-Identifier: Apache-2.0
#include "server/status_page.h"

#include <cmath>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "model/error.h"

namespace piserve::server {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;

constexpr char kHead[] = R"html(<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>piserve</title>
<meta http-equiv="refresh" content="5">
<style>
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:60rem;
padding:0 1rem;color:#1c2430;background:#fff}
h1{font-size:1.4rem}h2{font-size:1.05rem;margin-top:2rem}
table{border-collapse:collapse;width:100%}
td,th{text-align:left;padding:.25rem .75rem .25rem 0;
border-bottom:1px solid #dde3ea}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}
.ok{color:#0a6b2d}.no{color:#a3161a}
@media(prefers-color-scheme:dark){body{color:#dfe6ee;background:#12171d}
td,th{border-color:#2b3540}.ok{color:#5ccf86}.no{color:#ff8a8a}}
</style></head><body>
)html";

std::string Escape(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '&':
        out += "&amp;";
        break;
      case '"':
        out += "&quot;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

std::string Label(const ClientMetric& metric, std::string_view name) {
  for (const auto& label : metric.label) {
    if (label.name == name) return label.value;
  }
  return "";
}

const std::vector<ClientMetric>& Series(
    const std::vector<MetricFamily>& metrics, std::string_view name) {
  static const auto& none = *new std::vector<ClientMetric>();
  for (const MetricFamily& family : metrics) {
    if (family.name == name) return family.metric;
  }
  return none;
}

double GaugeValue(const std::vector<MetricFamily>& metrics,
                  std::string_view name) {
  const auto& series = Series(metrics, name);
  return series.empty() ? 0 : series.front().gauge.value;
}

std::string Cell(std::string_view text) {
  return absl::StrCat("<td>", Escape(text), "</td>");
}

std::string Number(double value) {
  return absl::StrFormat("<td class=n>%.15g</td>", value);
}

std::string Milliseconds(std::optional<double> seconds) {
  return seconds ? absl::StrFormat("<td class=n>%.2f</td>", *seconds * 1e3)
                 : "<td class=n>–</td>";
}

std::string Quantiles(const ClientMetric& metric) {
  return absl::StrCat(
      Number(static_cast<double>(metric.histogram.sample_count)),
      Milliseconds(Quantile(metric, 0.5)), Milliseconds(Quantile(metric, 0.9)),
      Milliseconds(Quantile(metric, 0.99)));
}

constexpr char kQuantileHead[] =
    "<th class=n>count<th class=n>p50 ms<th class=n>p90 ms<th class=n>p99 ms";

std::string Header(const std::vector<MetricFamily>& metrics,
                   const absl::Status& availability) {
  const auto& build = Series(metrics, "piserve_build_info");
  const std::string version =
      build.empty() ? "" : Label(build.front(), "version");
  const std::string state =
      availability.ok()
          ? "<span class=ok>ready</span>"
          : absl::StrCat("<span class=no>not ready: ",
                         Escape(ReasonOf(availability).value_or("?")),
                         "</span>");
  return absl::StrCat("<h1>piserve ", Escape(version), " – ", state, "</h1>\n");
}

std::string Policies(const std::vector<MetricFamily>& metrics) {
  std::string out =
      "<h2>Policies</h2><table><tr><th>name<th>configuration<th>backend"
      "<th>precision<th>device<th>model digest</tr>\n";
  for (const ClientMetric& m : Series(metrics, "piserve_model_info")) {
    absl::StrAppend(&out, "<tr>", Cell(Label(m, "policy")),
                    Cell(Label(m, "policy_config")), Cell(Label(m, "backend")),
                    Cell(Label(m, "precision")), Cell(Label(m, "device")),
                    Cell(Label(m, "model_digest").substr(0, 16)), "</tr>\n");
  }
  return out + "</table>\n";
}

std::string Queue(const std::vector<MetricFamily>& metrics) {
  std::string out = "<h2>Now</h2><table>\n";
  const auto row = [&](const char* what, double value) {
    absl::StrAppend(&out, "<tr>", Cell(what), Number(value), "</tr>\n");
  };
  row("requests in flight", GaugeValue(metrics, "piserve_inflight_requests"));
  row("rows waiting", GaugeValue(metrics, "piserve_queue_rows"));
  row("bytes held", GaugeValue(metrics, "piserve_queue_bytes"));
  row("predicted queue, ms",
      GaugeValue(metrics, "piserve_queue_predicted_seconds") * 1e3);
  row("connections", GaugeValue(metrics, "piserve_connections"));
  return out + "</table>\n";
}

std::string Requests(const std::vector<MetricFamily>& metrics) {
  std::string out =
      absl::StrCat("<h2>Requests</h2><table><tr><th>method<th>outcome",
                   kQuantileHead, "</tr>\n");
  for (const ClientMetric& m : Series(metrics, "piserve_request_seconds")) {
    absl::StrAppend(&out, "<tr>", Cell(Label(m, "method")),
                    Cell(Label(m, "outcome")), Quantiles(m), "</tr>\n");
  }
  return out + "</table>\n";
}

std::string Stages(const std::vector<MetricFamily>& metrics) {
  std::string out = absl::StrCat("<h2>Stages</h2><table><tr><th>stage",
                                 kQuantileHead, "</tr>\n");
  for (const ClientMetric& m : Series(metrics, "piserve_stage_seconds")) {
    absl::StrAppend(&out, "<tr>", Cell(Label(m, "stage")), Quantiles(m),
                    "</tr>\n");
  }
  return out + "</table>\n";
}

std::string Refusals(const std::vector<MetricFamily>& metrics) {
  std::string out =
      "<h2>Refused, dropped, withheld</h2><table><tr><th>what<th>reason"
      "<th class=n>count</tr>\n";
  const auto rows = [&](const char* what, const char* name) {
    for (const ClientMetric& m : Series(metrics, name)) {
      absl::StrAppend(&out, "<tr>", Cell(what), Cell(Label(m, "reason")),
                      Number(m.counter.value), "</tr>\n");
    }
  };
  rows("refused", "piserve_requests_rejected_total");
  rows("dropped", "piserve_requests_dropped_total");
  rows("withheld", "piserve_outputs_withheld_total");
  return out + "</table>\n";
}

}  // namespace

std::optional<double> Quantile(const ClientMetric& metric, double part) {
  const auto& histogram = metric.histogram;
  if (histogram.sample_count == 0) return std::nullopt;
  const double rank = part * static_cast<double>(histogram.sample_count);
  double low_bound = 0;
  double low_count = 0;
  for (const auto& bucket : histogram.bucket) {
    const double count = static_cast<double>(bucket.cumulative_count);
    if (count >= rank && count > low_count) {
      if (std::isinf(bucket.upper_bound)) return low_bound;
      return low_bound + (bucket.upper_bound - low_bound) * (rank - low_count) /
                             (count - low_count);
    }
    if (!std::isinf(bucket.upper_bound)) low_bound = bucket.upper_bound;
    low_count = count;
  }
  return low_bound;
}

std::string StatusPage(const std::vector<MetricFamily>& metrics,
                       const absl::Status& availability) {
  return absl::StrCat(kHead, Header(metrics, availability), Policies(metrics),
                      Queue(metrics), Requests(metrics), Stages(metrics),
                      Refusals(metrics),
                      "<p><a href=\"/metrics\">/metrics</a> has every number."
                      "</p></body></html>\n");
}

}  // namespace piserve::server
