// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace piserve::server {

// One line of a chart. A value at each step, oldest first; nothing where there
// was nothing to measure.
struct ChartLine {
  std::string_view name;
  std::string_view css_class;  // one of the page's colours: a, b, c
  std::vector<std::optional<double>> values;
};

// Lines over time as HTML with an inline SVG: title, legend, the top of the
// scale (in `unit`) and both ends of the time axis. All lines have the same
// number of values; `span` names the time they cover, "5 min".
std::string LineChart(std::string_view title, std::string_view unit,
                      std::string_view span,
                      const std::vector<ChartLine>& lines);

// The smallest of 1, 2, 5 times a power of ten that is at least `value`; 1 for
// what is not above 0.
double NiceTop(double value);

}  // namespace piserve::server
