// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "batching/observer.h"
#include "model/policy.h"
#include "prometheus/counter.h"
#include "prometheus/family.h"
#include "prometheus/gauge.h"
#include "prometheus/histogram.h"
#include "prometheus/registry.h"
#include "server/dispatch_observer.h"
#include "server/rpc/call_observer.h"

namespace piserve::server {

enum class ServerState { kWarming, kReady, kDraining, kFaulty };

enum class DeviceKind { kCpu, kGpu };

// A policy as the metrics name it. All of these come from the configuration or
// are computed; a client's string is never a label.
struct ModelFacts {
  std::string policy;
  std::string policy_config;
  std::string model_digest;
  std::string preprocessing_checksum;
  std::string backend;
  std::string precision;
  std::string device;
  DeviceKind kind = DeviceKind::kCpu;
  absl::Duration load_time;
};

// Every number that the server exports, with the question each answers in its
// help text (metrics.cc). Base units; prefix piserve_; labels are bounded.
//
// Series appear with the first thing they count, the important ones at 0 from
// the start. GPU series (gpu_busy_seconds_total, gpu_energy_joules_total,
// gpu_memory_bytes, graph_captured) exist only for devices that are GPUs.
//
// Thread-safe, except that AddPolicy and AddGpu come before the first request.
class Metrics : public batching::Observer,
                public rpc::CallObserver,
                public DispatchObserver {
 public:
  Metrics();

  // In the order of the batcher's executors.
  void AddPolicy(const ModelFacts& facts);

  void SetState(ServerState state);
  void SetWarmup(absl::Duration elapsed);

  // What one more policy on a GPU took and captured. Several add up; what is
  // free of the device, and what is neither theirs nor free, is as the last one
  // found it.
  void AddGpu(const std::string& device, const DeviceMemory& memory,
              const std::vector<CapturedGraph>& graphs);
  // The series begins with the first, which may be of 0 J.
  void AddGpuEnergy(const std::string& device, double joules);

  const std::shared_ptr<prometheus::Registry>& registry() const {
    return registry_;
  }

  // batching::Observer
  void OnQueue(const batching::QueueGauges& gauges) override;
  void OnLaunch(int executor, int rows, int size,
                batching::LaunchReason reason) override;
  void OnWaveDone(int executor, int rows, int size,
                  absl::Duration elapsed) override;

  // rpc::CallObserver
  void Received(rpc::Method method) override;
  void Completed(rpc::Method method, const absl::Status& status,
                 absl::Duration elapsed) override;
  void Parsed(rpc::Method method, absl::Duration elapsed) override;
  void Sent(rpc::Method method, absl::Duration elapsed) override;

  // DispatchObserver
  void OnAnswer(const Answer& answer) override;
  void OnWave(const WaveReport& report) override;
  void OnFault(std::string_view device, FaultKind kind) override;

 private:
  using Counters = prometheus::Family<prometheus::Counter>;
  using Gauges = prometheus::Family<prometheus::Gauge>;
  using Histograms = prometheus::Family<prometheus::Histogram>;

  Counters& CounterFamily(const char* name, const char* help);
  Gauges& GaugeFamily(const char* name, const char* help);
  Histograms& HistogramFamily(const char* name, const char* help);
  void ObserveStage(std::string_view stage, absl::Duration elapsed);

  const std::shared_ptr<prometheus::Registry> registry_;
  Counters& received_;
  Counters& completed_;
  Counters& rejected_;
  Counters& dropped_;
  Histograms& request_seconds_;
  Histograms& stage_seconds_;
  Histograms& slack_seconds_;
  prometheus::Gauge& queue_rows_;
  prometheus::Gauge& queue_bytes_;
  prometheus::Gauge& queue_predicted_seconds_;
  prometheus::Gauge& inflight_;
  Histograms& batch_rows_;
  Counters& padded_rows_;
  Histograms& batch_seconds_;
  Counters& launch_reason_;
  Counters& gpu_busy_seconds_;
  Counters& gpu_energy_joules_;
  Gauges& gpu_memory_bytes_;
  Histograms& device_stage_seconds_;
  Counters& faults_;
  Counters& withheld_;
  Histograms& predicted_error_ratio_;
  prometheus::Gauge& ready_;
  prometheus::Gauge& draining_;
  Gauges& graph_captured_;
  Gauges& model_load_seconds_;
  prometheus::Gauge& warmup_seconds_;
  Gauges& build_info_;
  Gauges& model_info_;
  std::vector<std::string> devices_;  // by executor
  std::set<std::string> gpus_;
};

}  // namespace piserve::server
