// SPDX-License-Identifier: Apache-2.0
#include "clients/cpp/load/report.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "clients/cpp/cli/table.h"
#include "clients/cpp/piserve/status.h"

namespace piserve::load {
namespace {

using Json = nlohmann::ordered_json;

std::string StatusName(const absl::Status& status) {
  const std::string code = absl::StatusCodeToString(status.code());
  const std::string reason = client::ErrorReason(status);
  return reason.empty() ? code : absl::StrCat(code, "/", reason);
}

std::vector<std::string> Row(const std::string& name, const Distribution& d) {
  const auto ms = [](double value) { return absl::StrFormat("%.2f", value); };
  return {name,       absl::StrCat(d.count),
          ms(d.p50),  ms(d.p90),
          ms(d.p95),  ms(d.p99),
          ms(d.p999), ms(d.max),
          ms(d.mean)};
}

Json ToJson(const Distribution& d) {
  return {{"count", d.count}, {"p50", d.p50},  {"p90", d.p90},
          {"p95", d.p95},     {"p99", d.p99},  {"p99.9", d.p999},
          {"max", d.max},     {"mean", d.mean}};
}

}  // namespace

Report MakeReport(const LoadResult& result, const std::string& title,
                  absl::Duration warmup, absl::Duration end, bool verified) {
  Report report;
  report.title = title;
  report.verified = verified;
  std::vector<double> ok;
  std::vector<double> all;
  std::vector<double> lag;
  std::vector<int> wave_rows;
  double graph_rows = 0;
  for (const Sample& sample : result.samples) {
    if (sample.intended < warmup) continue;
    all.push_back(absl::ToDoubleMilliseconds(sample.latency()));
    lag.push_back(absl::ToDoubleMilliseconds(sample.sent - sample.intended));
    ++report.statuses[StatusName(sample.status)];
    if (!sample.status.ok()) continue;
    ok.push_back(all.back());
    wave_rows.push_back(sample.wave_rows);
    graph_rows += sample.graph_rows;
    report.max_wave_rows = std::max(report.max_wave_rows, sample.wave_rows);
  }
  // Answers of an overload go on after the last send.
  const absl::Duration measured = std::max(end, result.wall) - warmup;
  report.seconds = absl::ToDoubleSeconds(measured);
  report.offered_hz = all.size() / absl::ToDoubleSeconds(end - warmup);
  report.achieved_hz = ok.size() / report.seconds;
  report.mean_wave_rows = MeanWaveRows(wave_rows);
  report.mean_graph_rows = ok.empty() ? 0 : graph_rows / ok.size();
  report.ok_ms = Describe(std::move(ok));
  report.all_ms = Describe(std::move(all));
  report.lag_ms = Describe(std::move(lag));
  for (const auto& [stage, ms] : result.stage_ms) {
    report.stage_ms[stage] = Describe(ms);
  }
  report.sent = result.sent;
  report.lost = result.lost;
  report.dropped = result.dropped;
  report.right = result.right;
  report.wrong = result.wrong;
  return report;
}

std::string ReportText(const Report& report) {
  const std::vector<std::string> head = {"ms",  "count", "p50", "p90", "p95",
                                         "p99", "p99.9", "max", "mean"};
  client::Table latency(head);
  latency.Add(Row("answered OK", report.ok_ms));
  latency.Add(Row("all answers", report.all_ms));
  latency.Add(Row("sent late by", report.lag_ms));
  client::Table statuses({"status", "count"});
  for (const auto& [name, count] : report.statuses) {
    statuses.Add({name, absl::StrCat(count)});
  }
  client::Table stages(head);
  for (const auto& [stage, ms] : report.stage_ms) {
    stages.Add(Row(stage, ms));
  }
  std::string text = absl::StrCat(
      report.title, "\n\n",
      absl::StrFormat("offered %.1f Hz, answered OK %.1f Hz, over %.1f s\n\n",
                      report.offered_hz, report.achieved_hz, report.seconds),
      "latency, from the intended send time\n", latency.ToString(2), "\n",
      statuses.ToString(2), "\nstages of the server\n", stages.ToString(2),
      absl::StrFormat("\nrows a wave: mean %.2f, most %d; computed for a "
                      "request's wave: mean %.2f\n",
                      report.mean_wave_rows, report.max_wave_rows,
                      report.mean_graph_rows),
      absl::StrFormat("in the whole run: %d sent, %d lost, %d dropped",
                      report.sent, report.lost, report.dropped));
  if (report.verified) {
    absl::StrAppend(&text, ", ", report.right, " right, ", report.wrong,
                    " wrong");
  }
  return text + "\n";
}

std::string ReportJson(const Report& report) {
  Json json = {{"title", report.title},
               {"seconds", report.seconds},
               {"offered_hz", report.offered_hz},
               {"achieved_hz", report.achieved_hz},
               {"latency_ms", ToJson(report.ok_ms)},
               {"latency_all_ms", ToJson(report.all_ms)},
               {"send_lag_ms", ToJson(report.lag_ms)},
               {"statuses", report.statuses},
               {"mean_wave_rows", report.mean_wave_rows},
               {"max_wave_rows", report.max_wave_rows},
               {"mean_graph_rows", report.mean_graph_rows},
               {"sent", report.sent},
               {"lost", report.lost},
               {"dropped", report.dropped}};
  json["stage_ms"] = Json::object();
  for (const auto& [stage, ms] : report.stage_ms) {
    json["stage_ms"][stage] = ToJson(ms);
  }
  if (report.verified) {
    json["right"] = report.right;
    json["wrong"] = report.wrong;
  }
  return json.dump(2) + "\n";
}

}  // namespace piserve::load
