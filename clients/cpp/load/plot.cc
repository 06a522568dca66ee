// SPDX-License-Identifier: Apache-2.0
#include "clients/cpp/load/plot.h"

#include <sys/wait.h>

#include <algorithm>
#include <cstddef>
#include <cstdio>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"

namespace piserve::load {
namespace {

// More than a picture of 1200 px shows.
constexpr std::size_t kCdfPoints = 2000;
constexpr std::size_t kSeriesPoints = 20000;
constexpr int kCommandNotFound = 127;  // of the shell

constexpr char kLayout[] = R"(set terminal pngcairo size 1200,900 font ',11'
set output '%s'
set multiplot layout 2,1 title '%s' noenhanced
set grid
set key off
set logscale x
set xtics (0.1,0.2,0.5,1,2,5,10,20,50,100,200,500,1000,2000,5000,10000,20000)
set xlabel 'latency from the intended send time, ms'
set ylabel 'answers within, %%'
set yrange [0:100]
set xrange [%g:%g]
plot $cdf using 1:2 with lines linewidth 2 linecolor '#1f5fa8'
unset logscale x
set xtics autofreq
set yrange [0:%g]
set xrange [0:%g]
set key top right
set xlabel 'intended send time since the start, s'
set ylabel 'latency, ms'
plot $ok using 1:2 with points pointtype 7 pointsize 0.3 \
       linecolor '#1f5fa8' title 'OK', \
     $error using 1:2 with points pointtype 2 pointsize 1.2 linewidth 2 \
       linecolor '#c0392b' title 'error'
)";

// Inside single quotes gnuplot knows one escape only.
std::string Quoted(const std::string& text) {
  return absl::StrReplaceAll(text, {{"'", "''"}, {"\n", " "}});
}

// A named block of data; never empty, because gnuplot refuses that. Ranges are
// given, because it finds none in a block without numbers.
std::string Block(const std::string& name, const std::string& lines) {
  return absl::StrCat("$", name, " << EOD\n", lines.empty() ? "NaN NaN\n" : "",
                      lines, "EOD\n");
}

// `ms` ascending.
std::string Cdf(const std::vector<double>& ms) {
  const std::size_t step = std::max<std::size_t>(1, ms.size() / kCdfPoints);
  std::string lines;
  for (std::size_t i = 0; i < ms.size(); i += step) {
    absl::StrAppendFormat(&lines, "%.4f %.4f\n", ms[i],
                          100.0 * (i + 1) / ms.size());
  }
  if (!ms.empty()) absl::StrAppendFormat(&lines, "%.4f 100\n", ms.back());
  return lines;
}

}  // namespace

std::string PlotScript(const LoadResult& result, const std::string& title,
                       absl::Duration warmup, const std::string& path) {
  std::vector<double> ok_ms;
  double max_ms = 1;
  double max_s = 1;
  std::string ok;
  std::string errors;
  const std::size_t step =
      std::max<std::size_t>(1, result.samples.size() / kSeriesPoints);
  for (std::size_t i = 0; i < result.samples.size(); ++i) {
    const Sample& sample = result.samples[i];
    const double ms = absl::ToDoubleMilliseconds(sample.latency());
    max_ms = std::max(max_ms, ms);
    max_s = std::max(max_s, absl::ToDoubleSeconds(sample.intended));
    if (sample.status.ok() && sample.intended >= warmup) ok_ms.push_back(ms);
    if (sample.status.ok() && i % step != 0) continue;  // errors: all of them
    absl::StrAppendFormat(sample.status.ok() ? &ok : &errors, "%.4f %.4f\n",
                          absl::ToDoubleSeconds(sample.intended), ms);
  }
  std::sort(ok_ms.begin(), ok_ms.end());
  const double low = ok_ms.empty() ? 0.1 : 0.9 * ok_ms.front();
  const double high = ok_ms.empty() ? 1.0 : 1.1 * ok_ms.back();
  return absl::StrCat(Block("cdf", Cdf(ok_ms)), Block("ok", ok),
                      Block("error", errors),
                      absl::StrFormat(kLayout, Quoted(path), Quoted(title), low,
                                      high, 1.05 * max_ms, max_s));
}

absl::Status RunGnuplot(const std::string& script) {
  std::FILE* gnuplot = popen(
      "command -v gnuplot >/dev/null || exit 127; "
      "exec gnuplot",
      "w");
  if (gnuplot == nullptr) {
    return absl::InternalError("gnuplot: the shell cannot be started");
  }
  std::fwrite(script.data(), 1, script.size(), gnuplot);
  const int status = pclose(gnuplot);
  if (WIFEXITED(status) && WEXITSTATUS(status) == kCommandNotFound) {
    return absl::NotFoundError(
        "gnuplot: not found; install the package gnuplot-nox");
  }
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
    return absl::InternalError(
        absl::StrCat("gnuplot: ended with status ", status));
  }
  return absl::OkStatus();
}

}  // namespace piserve::load
