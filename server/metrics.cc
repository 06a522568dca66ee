// SPDX-License-Identifier: Apache-2.0
#include "server/metrics.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "model/error.h"
#include "server/refusal.h"
#include "server/version.h"

namespace piserve::server {
namespace {

using prometheus::Histogram;
using Buckets = Histogram::BucketBoundaries;

const Buckets& LatencyBuckets() {
  static const Buckets& buckets = *new Buckets{
      0.001, 0.002, 0.003,  0.005, 0.0065, 0.008, 0.01, 0.013, 0.016, 0.02,
      0.025, 0.03,  0.0333, 0.04,  0.05,   0.065, 0.08, 0.1,   0.13,  0.16,
      0.2,   0.25,  0.3,    0.4,   0.5,    0.65,  0.8,  1,     2,     5};
  return buckets;
}

const Buckets& StageBuckets() {
  static const Buckets& buckets = *[] {
    auto* all = new Buckets{0.00005, 0.0001, 0.0002, 0.0005};
    all->insert(all->end(), LatencyBuckets().begin(), LatencyBuckets().end());
    return all;
  }();
  return buckets;
}

const Buckets& SlackBuckets() {
  static const Buckets& buckets =
      *new Buckets{-1,   -0.1, -0.01, 0,   0.002, 0.005, 0.01, 0.02,
                   0.05, 0.1,  0.2,   0.5, 1,     2,     5,    30};
  return buckets;
}

const Buckets& RowBuckets() {
  static const Buckets& buckets = *new Buckets{1, 2, 4, 8, 16, 32, 64, 128};
  return buckets;
}

const Buckets& RatioBuckets() {
  static const Buckets& buckets =
      *new Buckets{0.25, 0.5, 0.8, 0.9, 0.95, 1, 1.05, 1.1, 1.25, 1.5, 2, 4};
  return buckets;
}

const char* Name(rpc::Method method) {
  switch (method) {
    case rpc::Method::kInfer:
      return "Infer";
    case rpc::Method::kInferStream:
      return "InferStream";
    case rpc::Method::kGetPolicyInfo:
      return "GetPolicyInfo";
    case rpc::Method::kWebsocketInfer:
      return "WebsocketInfer";
  }
  return "unknown";
}

const char* Name(batching::Class priority) {
  switch (priority) {
    case batching::Class::kControl:
      return "control";
    case batching::Class::kEvaluation:
      return "evaluation";
    case batching::Class::kBulk:
      return "bulk";
  }
  return "unknown";
}

const char* Name(batching::LaunchReason reason) {
  switch (reason) {
    case batching::LaunchReason::kFull:
      return "full";
    case batching::LaunchReason::kDeadline:
      return "deadline";
    case batching::LaunchReason::kIdle:
      return "idle";
    case batching::LaunchReason::kAhead:
      return "ahead";
    case batching::LaunchReason::kDrain:
      return "drain";
  }
  return "unknown";
}

const char* Name(FaultKind kind) {
  return kind == FaultKind::kHang ? "hang" : "device";
}

// Stages of the network are a wave's, not a request's: they have a metric of
// their own.
bool IsNetworkStage(std::string_view stage) {
  return stage == "vision" || stage == "prefill" || stage == "denoise";
}

// Answers and the server's own errors, which objectives are made of: a rate
// misses the first error of a series that begins with it.
constexpr const char* kCodesOfObjectives[] = {
    "OK", "DEADLINE_EXCEEDED", "INTERNAL", "RESOURCE_EXHAUSTED", "UNAVAILABLE"};

// How a request that carries `reason` ended.
const char* Outcome(const absl::Status& status, const std::string& reason) {
  if (status.ok()) return "ok";
  if (IsDropReason(reason)) return "dropped";
  if (IsFailure(status)) return "failed";
  return "rejected";
}

std::string ReasonLabel(const absl::Status& status) {
  return absl::AsciiStrToLower(
      ReasonOf(status).value_or(absl::StatusCodeToString(status.code())));
}

}  // namespace

Metrics::Counters& Metrics::CounterFamily(const char* name, const char* help) {
  return prometheus::BuildCounter()
      .Name(std::string("piserve_") + name)
      .Help(help)
      .Register(*registry_);
}

Metrics::Gauges& Metrics::GaugeFamily(const char* name, const char* help) {
  return prometheus::BuildGauge()
      .Name(std::string("piserve_") + name)
      .Help(help)
      .Register(*registry_);
}

Metrics::Histograms& Metrics::HistogramFamily(const char* name,
                                              const char* help) {
  return prometheus::BuildHistogram()
      .Name(std::string("piserve_") + name)
      .Help(help)
      .Register(*registry_);
}

Metrics::Metrics()
    : registry_(std::make_shared<prometheus::Registry>()),
      received_(CounterFamily("requests_received_total",
                              "Requests that reached the service; a message "
                              "of a stream is one.")),
      completed_(CounterFamily(
          "requests_completed_total",
          "Final answers by gRPC status; received less in flight.")),
      rejected_(CounterFamily("requests_rejected_total",
                              "Requests refused before they were accepted.")),
      dropped_(CounterFamily("requests_dropped_total",
                             "Accepted requests that ended in the queue.")),
      request_seconds_(HistogramFamily(
          "request_seconds", "From receipt to the answer handed to the wire.")),
      stage_seconds_(HistogramFamily(
          "stage_seconds", "Time of a request in each stage of the server.")),
      slack_seconds_(HistogramFamily(
          "deadline_slack_seconds",
          "Left of the deadline when the answer was ready; below 0: late.")),
      queue_rows_(GaugeFamily("queue_rows",
                              "Rows accepted and not launched, those being "
                              "prepared included.")
                      .Add({})),
      queue_bytes_(
          GaugeFamily("queue_bytes", "Bytes held for unanswered requests.")
              .Add({})),
      queue_predicted_seconds_(
          GaugeFamily("queue_predicted_seconds",
                      "Until the last waiting row would be answered.")
              .Add({})),
      inflight_(GaugeFamily("inflight_requests",
                            "Requests received and not answered.")
                    .Add({})),
      batch_rows_(HistogramFamily("batch_rows", "Rows of a launched wave.")),
      padded_rows_(CounterFamily("batch_padded_rows_total",
                                 "Rows computed for nobody because a wave was "
                                 "smaller than its size.")),
      batch_seconds_(
          HistogramFamily("batch_seconds", "Device time of a wave.")),
      launch_reason_(CounterFamily("batch_launch_reason_total",
                                   "Why waves were launched when they were.")),
      gpu_busy_seconds_(CounterFamily("gpu_busy_seconds_total",
                                      "Time that a GPU was running waves.")),
      gpu_energy_joules_(
          CounterFamily("gpu_energy_joules_total",
                        "Energy that a GPU used, whoever used it.")),
      gpu_memory_bytes_(
          GaugeFamily("gpu_memory_bytes",
                      "Memory of a GPU by use when its policies were ready.")),
      device_stage_seconds_(
          HistogramFamily("stage_device_seconds",
                          "Time of a wave in each stage of the network.")),
      faults_(CounterFamily("gpu_faults_total",
                            "Devices taken out because they failed or hung.")),
      withheld_(CounterFamily("outputs_withheld_total",
                              "Computed actions that were not sent.")),
      predicted_error_ratio_(HistogramFamily(
          "predicted_error_ratio",
          "Measured over predicted time of a wave and of others' turns beside "
          "it.")),
      ready_(GaugeFamily("ready", "1 while requests are taken.").Add({})),
      draining_(GaugeFamily("draining", "1 once shutdown has begun.").Add({})),
      graph_captured_(GaugeFamily("graph_captured", "Captured graphs.")),
      model_load_seconds_(
          GaugeFamily("model_load_seconds", "Time to load a policy.")),
      warmup_seconds_(GaugeFamily("warmup_seconds",
                                  "From the start of the process until ready.")
                          .Add({})),
      build_info_(GaugeFamily("build_info", "Always 1; what is running.")),
      model_info_(
          GaugeFamily("model_info", "Always 1; what is being served.")) {
  build_info_.Add({{"version", kVersion}, {"compiler", kCompiler}}).Set(1);
  for (const rpc::Method method :
       {rpc::Method::kInfer, rpc::Method::kInferStream,
        rpc::Method::kGetPolicyInfo, rpc::Method::kWebsocketInfer}) {
    received_.Add({{"method", Name(method)}});
    for (const char* code : kCodesOfObjectives) {
      completed_.Add({{"method", Name(method)}, {"code", code}});
    }
  }
  for (const char* reason : {"non_finite_output", "late"}) {
    withheld_.Add({{"reason", reason}});
  }
}

void Metrics::AddPolicy(const ModelFacts& facts) {
  devices_.push_back(facts.device);
  model_info_
      .Add({{"policy", facts.policy},
            {"policy_config", facts.policy_config},
            {"model_digest", facts.model_digest},
            {"preprocessing_checksum", facts.preprocessing_checksum},
            {"backend", facts.backend},
            {"precision", facts.precision},
            {"device", facts.device}})
      .Set(1);
  model_load_seconds_.Add({{"policy", facts.policy}})
      .Set(absl::ToDoubleSeconds(facts.load_time));
  if (facts.kind == DeviceKind::kGpu) {
    gpus_.insert(facts.device);
    gpu_busy_seconds_.Add({{"device", facts.device}});
  }
}

void Metrics::SetState(ServerState state) {
  ready_.Set(state == ServerState::kReady ? 1 : 0);
  // Never back: a drain that a fault cuts short is one still.
  if (state == ServerState::kDraining) draining_.Set(1);
}

void Metrics::SetWarmup(absl::Duration elapsed) {
  warmup_seconds_.Set(absl::ToDoubleSeconds(elapsed));
}

void Metrics::AddGpu(const std::string& device, const DeviceMemory& memory,
                     const std::vector<CapturedGraph>& graphs) {
  const auto bytes = [&](const char* kind) -> prometheus::Gauge& {
    return gpu_memory_bytes_.Add({{"device", device}, {"kind", kind}});
  };
  bytes("weights").Increment(memory.weights);
  bytes("buffers").Increment(memory.buffers);
  bytes("free").Set(memory.free);
  bytes("other").Set(memory.total - memory.free - bytes("weights").Value() -
                     bytes("buffers").Value());
  for (const CapturedGraph& graph : graphs) {
    graph_captured_
        .Add({{"stage", graph.stage},
              {"size", std::to_string(graph.rows)},
              {"steps", graph.steps}})
        .Increment();
  }
}

void Metrics::AddGpuEnergy(const std::string& device, double joules) {
  gpu_energy_joules_.Add({{"device", device}}).Increment(joules);
}

void Metrics::OnQueue(const batching::QueueGauges& gauges) {
  queue_rows_.Set(gauges.rows);
  queue_bytes_.Set(static_cast<double>(gauges.bytes));
  queue_predicted_seconds_.Set(absl::ToDoubleSeconds(gauges.predicted));
}

void Metrics::OnLaunch(int executor, int rows, int size,
                       batching::LaunchReason reason) {
  const std::string& device = devices_[executor];
  batch_rows_.Add({{"device", device}}, RowBuckets()).Observe(rows);
  padded_rows_.Add({{"device", device}, {"size", std::to_string(size)}})
      .Increment(size - rows);
  launch_reason_.Add({{"device", device}, {"reason", Name(reason)}})
      .Increment();
}

void Metrics::OnWaveDone(int executor, int /*rows*/, int size,
                         absl::Duration elapsed) {
  batch_seconds_
      .Add({{"device", devices_[executor]}, {"size", std::to_string(size)}},
           LatencyBuckets())
      .Observe(absl::ToDoubleSeconds(elapsed));
}

void Metrics::Received(rpc::Method method) {
  received_.Add({{"method", Name(method)}}).Increment();
  inflight_.Increment();
}

void Metrics::Completed(rpc::Method method, const absl::Status& status,
                        absl::Duration elapsed) {
  const std::string reason = ReasonOf(status).value_or("");
  const std::string outcome = Outcome(status, reason);
  completed_
      .Add({{"method", Name(method)},
            {"code", absl::StatusCodeToString(status.code())}})
      .Increment();
  if (outcome == "rejected") {
    rejected_.Add({{"reason", ReasonLabel(status)}}).Increment();
  }
  // Not in OnAnswer: an answer may grow old behind another one, on its way out.
  if (reason == "LATE") withheld_.Add({{"reason", "late"}}).Increment();
  request_seconds_
      .Add({{"method", Name(method)}, {"outcome", outcome}}, LatencyBuckets())
      .Observe(absl::ToDoubleSeconds(elapsed));
  inflight_.Decrement();
}

void Metrics::Parsed(rpc::Method, absl::Duration elapsed) {
  ObserveStage("parse", elapsed);
}

void Metrics::Sent(rpc::Method, absl::Duration elapsed) {
  ObserveStage("send", elapsed);
}

void Metrics::ObserveStage(std::string_view stage, absl::Duration elapsed) {
  stage_seconds_.Add({{"stage", std::string(stage)}}, StageBuckets())
      .Observe(absl::ToDoubleSeconds(elapsed));
}

void Metrics::OnAnswer(const Answer& answer) {
  const std::string priority = Name(answer.request.priority);
  const std::string reason = ReasonOf(answer.status).value_or("");
  if (IsDropReason(reason)) {
    dropped_
        .Add({{"reason", absl::AsciiStrToLower(reason)}, {"class", priority}})
        .Increment();
  }
  if (reason == "NON_FINITE_OUTPUT") {
    withheld_.Add({{"reason", "non_finite_output"}}).Increment();
  }
  if (answer.reply == nullptr && reason != "LATE") return;
  slack_seconds_.Add({{"class", priority}}, SlackBuckets())
      .Observe(absl::ToDoubleSeconds(answer.slack));
  if (answer.reply == nullptr) return;
  for (const StageDuration& stage : answer.reply->stages) {
    if (!IsNetworkStage(stage.stage)) {
      ObserveStage(stage.stage, stage.duration);
    }
  }
}

void Metrics::OnWave(const WaveReport& report) {
  const std::string device(report.device);
  for (const StageDuration& stage : report.stages) {
    if (IsNetworkStage(stage.stage)) {
      device_stage_seconds_
          .Add({{"device", device}, {"stage", stage.stage}}, StageBuckets())
          .Observe(absl::ToDoubleSeconds(stage.duration));
    }
  }
  if (gpus_.contains(device)) {
    gpu_busy_seconds_.Add({{"device", device}})
        .Increment(absl::ToDoubleSeconds(report.busy));
  }
  if (report.predicted > absl::ZeroDuration()) {
    predicted_error_ratio_.Add({{"device", device}}, RatioBuckets())
        .Observe(absl::FDivDuration(report.measured, report.predicted));
  }
}

void Metrics::OnFault(std::string_view device, FaultKind kind) {
  faults_.Add({{"device", std::string(device)}, {"kind", Name(kind)}})
      .Increment();
}

}  // namespace piserve::server
