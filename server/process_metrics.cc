// SPDX-License-Identifier: Apache-2.0
#include "server/process_metrics.h"

#include <sys/resource.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <optional>
#include <sstream>
#include <system_error>
#include <utility>

#include "prometheus/metric_family.h"

namespace piserve::server {
namespace {

using prometheus::MetricFamily;
using prometheus::MetricType;

MetricFamily Single(std::string name, std::string help, MetricType type,
                    double value) {
  prometheus::ClientMetric metric;
  if (type == MetricType::Counter) {
    metric.counter.value = value;
  } else {
    metric.gauge.value = value;
  }
  MetricFamily family;
  family.name = std::move(name);
  family.help = std::move(help);
  family.type = type;
  family.metric.push_back(std::move(metric));
  return family;
}

// Of /proc/self/stat, as proc(5) numbers them.
struct ProcessStat {
  double cpu_ticks = 0;       // fields 14 and 15
  double threads = 0;         // 20
  double start_ticks = 0;     // 22, since boot
  double virtual_bytes = 0;   // 23
  double resident_pages = 0;  // 24
};

std::optional<ProcessStat> ReadStat() {
  std::ifstream file("/proc/self/stat");
  std::string text;
  if (!std::getline(file, text)) return std::nullopt;
  const std::size_t name_end = text.rfind(')');  // the name may hold anything
  if (name_end == std::string::npos) return std::nullopt;
  std::istringstream fields(text.substr(name_end + 1));
  std::string state;
  fields >> state;
  double value[25] = {};
  for (int i = 4; i <= 24; ++i) fields >> value[i];
  if (!fields) return std::nullopt;
  return ProcessStat{value[14] + value[15], value[20], value[22], value[23],
                     value[24]};
}

std::optional<double> BootTime() {
  std::ifstream file("/proc/stat");
  std::string key;
  while (file >> key) {
    double seconds = 0;
    if (key == "btime" && file >> seconds) return seconds;
    std::getline(file, key);
  }
  return std::nullopt;
}

std::optional<double> OpenDescriptors() {
  std::error_code error;
  std::filesystem::directory_iterator it("/proc/self/fd", error);
  if (error) return std::nullopt;
  double count = 0;
  for (const auto& entry : it) {
    (void)entry;
    ++count;
  }
  return count;
}

void AddStat(const ProcessStat& stat, std::vector<MetricFamily>& out) {
  const double ticks = static_cast<double>(sysconf(_SC_CLK_TCK));
  const double page = static_cast<double>(sysconf(_SC_PAGESIZE));
  out.push_back(Single("process_cpu_seconds_total",
                       "User and system time of the process.",
                       MetricType::Counter, stat.cpu_ticks / ticks));
  out.push_back(Single("process_threads", "Threads of the process.",
                       MetricType::Gauge, stat.threads));
  out.push_back(Single("process_virtual_memory_bytes", "Virtual memory.",
                       MetricType::Gauge, stat.virtual_bytes));
  out.push_back(Single("process_resident_memory_bytes", "Resident memory.",
                       MetricType::Gauge, stat.resident_pages * page));
  if (const auto boot = BootTime()) {
    out.push_back(Single("process_start_time_seconds",
                         "Start of the process since the epoch.",
                         MetricType::Gauge, *boot + stat.start_ticks / ticks));
  }
}

}  // namespace

PolledGauge::PolledGauge(std::string name, std::string help,
                         std::function<double()> value)
    : name_(std::move(name)),
      help_(std::move(help)),
      value_(std::move(value)) {}

std::vector<MetricFamily> PolledGauge::Collect() const {
  return {Single(name_, help_, MetricType::Gauge, value_())};
}

std::vector<MetricFamily> ProcessMetrics::Collect() const {
  std::vector<MetricFamily> out;
  if (const auto stat = ReadStat()) AddStat(*stat, out);
  if (const auto open = OpenDescriptors()) {
    out.push_back(Single("process_open_fds", "Open file descriptors.",
                         MetricType::Gauge, *open));
  }
  rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    out.push_back(Single("process_max_fds", "Most file descriptors allowed.",
                         MetricType::Gauge,
                         static_cast<double>(limit.rlim_cur)));
  }
  return out;
}

}  // namespace piserve::server
