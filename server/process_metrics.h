// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "prometheus/collectable.h"

namespace piserve::server {

// A number that is asked for when somebody looks, instead of being kept.
class PolledGauge : public prometheus::Collectable {
 public:
  // `value` is called from any thread.
  PolledGauge(std::string name, std::string help,
              std::function<double()> value);

  std::vector<prometheus::MetricFamily> Collect() const override;

 private:
  const std::string name_;
  const std::string help_;
  const std::function<double()> value_;
};

// The usual process_* metrics (CPU seconds, memory, descriptors, threads, start
// time) from /proc. Those that cannot be read are left out.
class ProcessMetrics : public prometheus::Collectable {
 public:
  std::vector<prometheus::MetricFamily> Collect() const override;
};

}  // namespace piserve::server
