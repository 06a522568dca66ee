// SPDX-License-Identifier: Apache-2.0
#include "server/status_page.h"

#include <algorithm>
#include <cmath>
#include <string_view>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/time.h"
#include "model/error.h"
#include "server/metric_series.h"
#include "server/page_chart.h"
#include "server/status_page_head.h"

namespace piserve::server {
namespace {

using prometheus::ClientMetric;
using Families = std::vector<prometheus::MetricFamily>;

constexpr absl::Duration kWindow = absl::Minutes(1);

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

// A number with as many digits as matter, as "12.3<span>ms</span>".
std::string Amount(double value, std::string_view unit) {
  const int digits = value >= 100 || value == std::floor(value) ? 0
                     : value >= 10                              ? 1
                                                                : 2;
  return absl::StrFormat("%.*f<span>%s</span>", digits, value,
                         std::string(unit));
}

std::string Milliseconds(std::optional<double> seconds) {
  if (!seconds) return "–";
  const double ms = *seconds * 1e3;
  return absl::StrFormat("%.*f", ms >= 100 ? 0 : ms >= 10 ? 1 : 2, ms);
}

std::string Cell(std::string_view text) {
  return absl::StrCat("<td>", Escape(text), "</td>");
}

std::string NumberCell(const std::string& text) {
  return absl::StrCat("<td class=n>", text, "</td>");
}

std::string Count(double value) { return absl::StrFormat("%.0f", value); }

// A bar of this part of the column; none for nothing, or for nothing's part.
std::string Bar(double part) {
  if (!(part > 0)) return "<td class=bar></td>";
  return absl::StrFormat("<td class=bar><i style=\"width:%.1f%%\"></i></td>",
                         100 * std::min(part, 1.0));
}

bool IsInference(const ClientMetric& metric) {
  return LabelOf(metric, "method") != "GetPolicyInfo";
}

bool IsAnswered(const ClientMetric& metric) {
  return IsInference(metric) && LabelOf(metric, "outcome") == "ok";
}

bool IsFailed(const ClientMetric& metric) {
  return IsInference(metric) && LabelOf(metric, "outcome") != "ok";
}

bool Any(const ClientMetric&) { return true; }

ClientMetric Requests(const Families& metrics, const MetricFilter& filter) {
  return HistogramOf(metrics, "piserve_request_seconds", filter);
}

double SamplesOf(const ClientMetric& metric) {
  return static_cast<double>(metric.histogram.sample_count);
}

// What happened in the last minute, or since the oldest snapshot.
struct Recent {
  Families metrics;
  absl::Duration span;

  double PerSecond(double count) const {
    return count / std::max(absl::ToDoubleSeconds(span), 0.001);
  }
};

Recent RecentOf(const MetricsSnapshots& history) {
  const MetricsSnapshot& now = *history.back();
  const MetricsSnapshot* before = history.front().get();
  for (const auto& snapshot : history) {
    if (now.time - snapshot->time >= kWindow) before = snapshot.get();
  }
  return {Since(before->metrics, now.metrics), now.time - before->time};
}

std::string SpanName(absl::Duration span) {
  const double seconds = absl::ToDoubleSeconds(span);
  return seconds < 100 ? absl::StrFormat("%.0f s", seconds)
                       : absl::StrFormat("%.0f min", seconds / 60);
}

std::string Header(const Families& now, const absl::Status& availability) {
  const auto& build = SeriesOf(now, "piserve_build_info");
  const std::string version =
      build.empty()
          ? ""
          : absl::StrCat("version ", Escape(LabelOf(build.front(), "version")),
                         ", gcc ", Escape(LabelOf(build.front(), "compiler")));
  const std::string state =
      availability.ok()
          ? "<span class=pill>ready</span>"
          : absl::StrCat("<span class=\"pill no\">not ready: ",
                         Escape(ReasonOf(availability).value_or("?")),
                         "</span>");
  return absl::StrCat("<header><h1>piserve</h1>", state, "<small>", version,
                      "</small></header>\n");
}

std::string Tile(std::string_view name, const std::string& value,
                 std::string_view mark = "") {
  return absl::StrCat("<div class=\"tile", std::string(mark), "\"><small>",
                      std::string(name), "</small><b>", value, "</b></div>");
}

std::string Tiles(const Recent& recent, const Families& now) {
  const ClientMetric answered = Requests(recent.metrics, IsAnswered);
  const double failed = SamplesOf(Requests(recent.metrics, IsFailed));
  const double all = SamplesOf(answered) + failed;
  const auto time = [&](double part) {
    return absl::StrCat(Milliseconds(Quantile(answered, part)),
                        "<span>ms</span>");
  };
  return absl::StrCat(
      "<div class=tiles>",
      Tile("answered", Amount(recent.PerSecond(SamplesOf(answered)), "/s")),
      Tile("latency p50", time(0.5)), Tile("latency p99", time(0.99)),
      Tile("not answered", Amount(all > 0 ? 100 * failed / all : 0, "%"),
           failed > 0 ? " bad" : ""),
      Tile("in flight", Count(SumOf(now, "piserve_inflight_requests"))),
      Tile("rows waiting", Count(SumOf(now, "piserve_queue_rows"))),
      "</div>\n");
}

// One value for each step of the history.
template <typename F>
std::vector<std::optional<double>> EachStep(const MetricsSnapshots& history,
                                            F value) {
  std::vector<std::optional<double>> out;
  for (std::size_t i = 1; i < history.size(); ++i) {
    const Recent step{Since(history[i - 1]->metrics, history[i]->metrics),
                      history[i]->time - history[i - 1]->time};
    out.push_back(value(step));
  }
  return out;
}

std::string Charts(const MetricsSnapshots& history) {
  const auto latency = [&](double part) {
    return EachStep(history, [part](const Recent& step) {
      std::optional<double> seconds =
          Quantile(Requests(step.metrics, IsAnswered), part);
      if (seconds) *seconds *= 1e3;
      return seconds;
    });
  };
  const auto rate = [&](const MetricFilter& filter) {
    return EachStep(history, [&filter](const Recent& step) {
      return std::optional<double>(
          step.PerSecond(SamplesOf(Requests(step.metrics, filter))));
    });
  };
  const std::string span =
      SpanName(history.back()->time - history.front()->time);
  return LineChart("Latency of answers", "ms", span,
                   {{"p50", "a", latency(0.5)}, {"p99", "b", latency(0.99)}}) +
         LineChart("Requests", "/s", span,
                   {{"answered", "a", rate(IsAnswered)},
                    {"refused, dropped, failed", "c", rate(IsFailed)}});
}

std::string TableHead(std::string_view title, std::string_view span,
                      std::string_view columns) {
  return absl::StrCat("<section class=card><h2>", std::string(title),
                      " <small>", std::string(span), "</small></h2><table><tr>",
                      std::string(columns), "</tr>\n");
}

constexpr char kTableEnd[] = "</table></section>\n";

// Stages in the order in which a request goes through them.
std::vector<std::string> StagesOf(const Families& metrics) {
  static constexpr std::string_view kOrder[] = {
      "parse", "decode", "queue", "form", "h2d", "gpu", "d2h", "post", "send"};
  std::vector<std::string> out;
  for (const std::string_view stage : kOrder) {
    for (const auto& m : SeriesOf(metrics, "piserve_stage_seconds")) {
      if (LabelOf(m, "stage") == stage) out.emplace_back(stage);
    }
  }
  return out;
}

std::string Stages(const Recent& recent) {
  std::string out =
      TableHead("Where the time goes", "ms, last " + SpanName(recent.span),
                "<th>stage<th>share<th class=n>p50"
                "<th class=n>p90<th class=n>p99");
  const double all = HistogramOf(recent.metrics, "piserve_stage_seconds", Any)
                         .histogram.sample_sum;
  for (const std::string& stage : StagesOf(recent.metrics)) {
    const ClientMetric times = HistogramOf(
        recent.metrics, "piserve_stage_seconds",
        [&](const ClientMetric& m) { return LabelOf(m, "stage") == stage; });
    absl::StrAppend(&out, "<tr>", Cell(stage),
                    Bar(times.histogram.sample_sum / all));
    for (const double part : {0.5, 0.9, 0.99}) {
      absl::StrAppend(&out, NumberCell(Milliseconds(Quantile(times, part))));
    }
    out += "</tr>\n";
  }
  return out + kTableEnd;
}

// "3–4" for the bucket that ends at 4.
std::string BucketName(double low, double high) {
  if (std::isinf(high)) return absl::StrFormat("> %g", low);
  return low + 1 >= high ? absl::StrFormat("%g", high)
                         : absl::StrFormat("%g–%g", low + 1, high);
}

std::string Waves(const Recent& recent) {
  const ClientMetric rows =
      HistogramOf(recent.metrics, "piserve_batch_rows", Any);
  const double waves = SamplesOf(rows);
  const double sum = rows.histogram.sample_sum;
  const double padded =
      SumOf(recent.metrics, "piserve_batch_padded_rows_total");
  std::string span = "last " + SpanName(recent.span);
  if (waves > 0) {
    absl::StrAppendFormat(&span, "; mean %.1f rows, %.0f %% padding",
                          sum / waves, 100 * padded / (sum + padded));
  }
  std::string out =
      TableHead("Waves by rows", span, "<th>rows<th>share<th class=n>waves");
  double low = 0;
  double below = 0;
  for (const auto& bucket : rows.histogram.bucket) {
    const double here = static_cast<double>(bucket.cumulative_count) - below;
    if (here > 0 || !std::isinf(bucket.upper_bound)) {
      absl::StrAppend(&out, "<tr>", Cell(BucketName(low, bucket.upper_bound)),
                      Bar(here / waves), NumberCell(Count(here)), "</tr>\n");
    }
    below += here;
    low = bucket.upper_bound;
  }
  return out + kTableEnd;
}

std::string Queue(const Families& now) {
  std::string out = TableHead("Queue", "now", "");
  const auto row = [&](const char* what, const std::string& value) {
    absl::StrAppend(&out, "<tr>", Cell(what), NumberCell(value), "</tr>\n");
  };
  row("rows waiting", Count(SumOf(now, "piserve_queue_rows")));
  row("predicted wait, ms",
      Milliseconds(SumOf(now, "piserve_queue_predicted_seconds")));
  row("held, MiB",
      absl::StrFormat("%.1f", SumOf(now, "piserve_queue_bytes") / (1 << 20)));
  row("requests in flight", Count(SumOf(now, "piserve_inflight_requests")));
  row("connections", Count(SumOf(now, "piserve_connections")));
  return out + kTableEnd;
}

std::string Outcomes(const Recent& recent, const Families& now) {
  std::string out =
      TableHead("Refused, dropped, withheld", "",
                absl::StrCat("<th>what<th>why<th class=n>last ",
                             SpanName(recent.span), "<th class=n>in all"));
  bool any = false;
  const auto rows = [&](const char* what, const char* name) {
    const auto& all = SeriesOf(now, name);
    const auto& last = SeriesOf(recent.metrics, name);
    for (std::size_t i = 0; i < all.size(); ++i) {
      if (all[i].counter.value == 0) continue;
      any = true;
      absl::StrAppend(&out, "<tr>", Cell(what), Cell(LabelOf(all[i], "reason")),
                      NumberCell(Count(last[i].counter.value)),
                      NumberCell(Count(all[i].counter.value)), "</tr>\n");
    }
  };
  rows("refused", "piserve_requests_rejected_total");
  rows("dropped", "piserve_requests_dropped_total");
  rows("withheld", "piserve_outputs_withheld_total");
  if (!any) out += "<tr><td colspan=4><p class=none>none</p></td></tr>\n";
  return out + kTableEnd;
}

std::string Policies(const Families& now) {
  std::string out =
      "<section class=\"card wide models\"><h2>Policies</h2><table><tr>"
      "<th>name<th>configuration<th>backend<th>precision<th>device"
      "<th>model digest</tr>\n";
  for (const ClientMetric& m : SeriesOf(now, "piserve_model_info")) {
    absl::StrAppend(&out, "<tr>", Cell(LabelOf(m, "policy")),
                    Cell(LabelOf(m, "policy_config")),
                    Cell(LabelOf(m, "backend")), Cell(LabelOf(m, "precision")),
                    Cell(LabelOf(m, "device")), "<td><code>",
                    Escape(LabelOf(m, "model_digest").substr(0, 16)),
                    "</code></td></tr>\n");
  }
  return out + kTableEnd;
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

std::string StatusPage(const MetricsSnapshots& history,
                       const absl::Status& availability) {
  const Families& now = history.back()->metrics;
  const Recent recent = RecentOf(history);
  return absl::StrCat(
      kPageHead, "<main>", Header(now, availability), Tiles(recent, now),
      "<div class=grid>", Charts(history), Stages(recent), Waves(recent),
      Queue(now), Outcomes(recent, now), Policies(now),
      "</div><footer>Numbers without another word are of the last ",
      SpanName(recent.span),
      "; <a href=\"/metrics\">/metrics</a> has them all.</footer></main>",
      kPageScript, "</body></html>\n");
}

}  // namespace piserve::server
