// SPDX-License-Identifier: Apache-2.0
#include "server/page_chart.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace piserve::server {
namespace {

constexpr double kWidth = 600;
constexpr double kHeight = 120;

std::string Text(std::string_view text) { return std::string(text); }

double Highest(const std::vector<ChartLine>& lines) {
  double highest = 0;
  for (const ChartLine& line : lines) {
    for (const auto& value : line.values) {
      if (value) highest = std::max(highest, *value);
    }
  }
  return highest;
}

// A polyline for each run of values; a lone value is a dot.
std::string Polylines(const ChartLine& line, double top) {
  std::string out;
  std::string points;
  const std::size_t steps = std::max<std::size_t>(line.values.size(), 2) - 1;
  const auto flush = [&] {
    if (points.empty()) return;
    absl::StrAppend(&out, "<polyline class=", Text(line.css_class),
                    " points=\"", points, "\"/>");
    points.clear();
  };
  for (std::size_t i = 0; i < line.values.size(); ++i) {
    if (!line.values[i]) {
      flush();
      continue;
    }
    const double x = kWidth * static_cast<double>(i) / steps;
    const double y = kHeight * (1 - *line.values[i] / top);
    absl::StrAppendFormat(&points, "%.1f,%.1f ", x, y);
    if (points.find(' ') == points.size() - 1) {
      absl::StrAppendFormat(&points, "%.1f,%.1f ", x + 0.1, y);
    }
  }
  flush();
  return out;
}

}  // namespace

double NiceTop(double value) {
  if (value <= 0) return 1;
  const double power = std::pow(10, std::floor(std::log10(value)));
  for (const double step : {1.0, 2.0, 5.0}) {
    if (value <= step * power) return step * power;
  }
  return 10 * power;
}

std::string LineChart(std::string_view title, std::string_view unit,
                      std::string_view span,
                      const std::vector<ChartLine>& lines) {
  const double top = NiceTop(Highest(lines));
  std::string out = absl::StrCat("<section class=card><h2>", Text(title),
                                 "</h2><p class=legend>");
  for (const ChartLine& line : lines) {
    absl::StrAppend(&out, "<span class=", Text(line.css_class), ">",
                    Text(line.name), "</span>");
  }
  absl::StrAppendFormat(&out,
                        "</p><div class=chart><span class=top>%.15g %s</span>"
                        "<svg viewBox=\"0 -2 %g %g\" preserveAspectRatio=none "
                        "role=img aria-label=\"%s\">"
                        "<path class=scale d=\"M0 0H%gM0 %gH%gM0 %gH%g\"/>",
                        top, Text(unit), kWidth, kHeight + 4, Text(title),
                        kWidth, kHeight / 2, kWidth, kHeight, kWidth);
  for (const ChartLine& line : lines) {
    absl::StrAppend(&out, Polylines(line, top));
  }
  return absl::StrCat(out, "</svg><p class=axis><span>", Text(span),
                      " ago</span><span>now</span></p></div></section>\n");
}

}  // namespace piserve::server
