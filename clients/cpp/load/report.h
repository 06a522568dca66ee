// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <string>

#include "absl/time/time.h"
#include "clients/cpp/load/load_run.h"
#include "clients/cpp/load/statistics.h"

namespace piserve::load {

// What a run came to. Requests meant to be sent before the end of the warm-up
// are verified but not counted here.
struct Report {
  std::string title;       // the run in one line
  double seconds = 0;      // that were measured
  double offered_hz = 0;   // requests that fell due, in all robots together
  double achieved_hz = 0;  // answered OK
  Distribution ok_ms;      // latency of OK answers, from the intended send time
  Distribution all_ms;     // of all answers
  Distribution lag_ms;     // how late the generator itself sent
  std::map<std::string, int> statuses;  // "OK", "CODE" or "CODE/REASON"
  std::map<std::string, Distribution> stage_ms;
  double mean_wave_rows = 0;
  int max_wave_rows = 0;
  double mean_graph_rows = 0;  // over requests
  // Of the whole run, warm-up included.
  std::uint64_t sent = 0;
  std::uint64_t lost = 0;
  std::uint64_t dropped = 0;
  bool verified = false;
  std::uint64_t right = 0;
  std::uint64_t wrong = 0;
};

Report MakeReport(const LoadResult& result, const std::string& title,
                  absl::Duration warmup, absl::Duration end, bool verified);

std::string ReportText(const Report& report);
std::string ReportJson(const Report& report);

}  // namespace piserve::load
