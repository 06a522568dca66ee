// SPDX-License-Identifier: Apache-2.0
#include "server/metrics.h"

#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/error.h"
#include "prometheus/text_serializer.h"
#include "server/process_metrics.h"
#include "server/refusal.h"

namespace piserve::server {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

std::string Page(const Metrics& metrics) {
  return prometheus::TextSerializer().Serialize(metrics.registry()->Collect());
}

ModelFacts Facts(DeviceKind kind) {
  return {.policy = "libero",
          .policy_config = "pi0_libero",
          .model_digest = "abc",
          .preprocessing_checksum = "def",
          .backend = "fake",
          .precision = "float32",
          .device = kind == DeviceKind::kGpu ? "gpu0" : "cpu",
          .kind = kind,
          .load_time = absl::Seconds(2)};
}

// Everything that can happen, once.
void Exercise(Metrics& metrics, DeviceKind kind) {
  metrics.AddPolicy(Facts(kind));
  metrics.SetState(ServerState::kReady);
  metrics.SetWarmup(absl::Seconds(3));
  metrics.OnQueue({.rows = 2, .bytes = 77, .predicted = absl::Seconds(1)});
  metrics.OnLaunch(0, 3, 4, batching::LaunchReason::kIdle);
  metrics.OnWaveDone(0, 3, 4, absl::Milliseconds(30));
  metrics.Received(rpc::Method::kInfer);
  metrics.Parsed(rpc::Method::kInfer, absl::Microseconds(40));
  InferenceRequest request;
  InferenceReply reply;
  reply.stages = {{"decode", absl::Milliseconds(1)},
                  {"vision", absl::Milliseconds(2)}};
  metrics.OnAnswer({request, absl::OkStatus(), &reply, absl::Milliseconds(40),
                    absl::Milliseconds(900)});
  metrics.OnAnswer({request, Dropped(batching::DropReason::kExpired), nullptr,
                    absl::Seconds(5), absl::ZeroDuration()});
  metrics.OnAnswer({request, NonFiniteOutput(), nullptr, absl::Seconds(1),
                    absl::ZeroDuration()});
  metrics.Completed(rpc::Method::kInfer, absl::OkStatus(),
                    absl::Milliseconds(41));
  metrics.Sent(rpc::Method::kInfer, absl::Microseconds(60));
  metrics.OnWave({.device = Facts(kind).device,
                  .predicted = absl::Milliseconds(20),
                  .measured = absl::Milliseconds(30),
                  .busy = absl::Milliseconds(25),
                  .stages = reply.stages});
  metrics.OnFault("cpu", FaultKind::kHang);
  metrics.Received(rpc::Method::kInferStream);
  metrics.Completed(rpc::Method::kInferStream, UnknownPolicy("x"),
                    absl::Milliseconds(1));
}

TEST(MetricsTest, EveryMetricOfTheContractIsExportedWithItsHelp) {
  Metrics metrics;
  Exercise(metrics, DeviceKind::kGpu);
  metrics.AddGpu("gpu0", {.weights = 7e9, .total = 8e10},
                 {{.stage = "denoise", .rows = 8, .steps = "first"}});
  metrics.AddGpuEnergy("gpu0", 12.5);
  const std::string page = Page(metrics);
  for (const char* name : {"requests_received_total",
                           "requests_completed_total",
                           "requests_rejected_total",
                           "requests_dropped_total",
                           "request_seconds",
                           "stage_seconds",
                           "deadline_slack_seconds",
                           "queue_rows",
                           "queue_bytes",
                           "queue_predicted_seconds",
                           "inflight_requests",
                           "batch_rows",
                           "batch_padded_rows_total",
                           "batch_seconds",
                           "batch_launch_reason_total",
                           "gpu_busy_seconds_total",
                           "gpu_energy_joules_total",
                           "gpu_memory_bytes",
                           "stage_device_seconds",
                           "gpu_faults_total",
                           "outputs_withheld_total",
                           "predicted_error_ratio",
                           "ready",
                           "draining",
                           "graph_captured",
                           "model_load_seconds",
                           "warmup_seconds",
                           "build_info",
                           "model_info"}) {
    EXPECT_THAT(page, HasSubstr(std::string("# HELP piserve_") + name + " "));
  }
}

TEST(MetricsTest, ValuesAreInBaseUnits) {
  Metrics metrics;
  Exercise(metrics, DeviceKind::kCpu);
  const std::string page = Page(metrics);
  EXPECT_THAT(page, HasSubstr("piserve_queue_bytes 77"));
  EXPECT_THAT(page, HasSubstr("piserve_queue_predicted_seconds 1"));
  EXPECT_THAT(page, HasSubstr("piserve_warmup_seconds 3"));
  EXPECT_THAT(page, HasSubstr("piserve_batch_padded_rows_total"
                              "{device=\"cpu\",size=\"4\"} 1"));
  EXPECT_THAT(page, HasSubstr("piserve_stage_seconds_bucket{stage=\"parse\","
                              "le=\"5e-05\"} 1"));
  EXPECT_THAT(page, HasSubstr("piserve_batch_seconds_bucket{device=\"cpu\","
                              "size=\"4\",le=\"0.03\"} 1"));
  EXPECT_THAT(page, HasSubstr("piserve_requests_rejected_total"
                              "{reason=\"unknown_policy\"} 1"));
  EXPECT_THAT(page, HasSubstr("piserve_requests_dropped_total"
                              "{class=\"control\",reason=\"expired\"} 1"));
  EXPECT_THAT(page, HasSubstr("piserve_outputs_withheld_total"
                              "{reason=\"non_finite_output\"} 1"));
}

TEST(MetricsTest, AnAnswerIsLateWhereverThatIsFound) {
  Metrics metrics;
  metrics.Received(rpc::Method::kInfer);
  metrics.Completed(rpc::Method::kInfer,
                    DeadlineMissed(absl::Seconds(2), absl::Seconds(1)),
                    absl::Seconds(2));
  EXPECT_THAT(Page(metrics),
              HasSubstr("piserve_outputs_withheld_total{reason=\"late\"} 1"));
}

TEST(MetricsTest, ALaunchedWaveThatItsDeviceLosesHasFailed) {
  Metrics metrics;
  for (const absl::Status& status : {DeviceLost(), DeviceFault()}) {
    metrics.Received(rpc::Method::kInfer);
    metrics.Completed(rpc::Method::kInfer, status, absl::Seconds(1));
  }
  const std::string page = Page(metrics);
  for (const char* outcome : {"failed", "rejected"}) {
    EXPECT_THAT(page, HasSubstr(std::string("piserve_request_seconds_count"
                                            "{method=\"Infer\",outcome=\"") +
                                outcome + "\"} 1"));
  }
  EXPECT_THAT(page, HasSubstr("piserve_requests_rejected_total"
                              "{reason=\"device_fault\"} 1"));
}

TEST(MetricsTest, WhatWasLaunchedAndGivesNoAnswerHasFailed) {
  Metrics metrics;
  for (const absl::Status& status :
       {RowFailed(absl::UnknownError("")), AnswerLost(absl::UnknownError("")),
        NonFiniteOutput(),
        DeadlineMissed(absl::Seconds(2), absl::Seconds(1))}) {
    metrics.Completed(rpc::Method::kInfer, status, absl::Seconds(1));
  }
  EXPECT_THAT(Page(metrics),
              HasSubstr("piserve_request_seconds_count"
                        "{method=\"Infer\",outcome=\"failed\"} 4"));
}

TEST(MetricsTest, ErrorsOfTheServerAreCountedFromZero) {
  const Metrics metrics;
  for (const char* code :
       {"DEADLINE_EXCEEDED", "INTERNAL", "RESOURCE_EXHAUSTED", "UNAVAILABLE"}) {
    EXPECT_THAT(Page(metrics), HasSubstr(std::string("{code=\"") + code +
                                         "\",method=\"Infer\"} 0"));
  }
}

TEST(MetricsTest, NetworkStagesAreCountedByWaveOnly) {
  Metrics metrics;
  Exercise(metrics, DeviceKind::kCpu);
  const std::string page = Page(metrics);
  EXPECT_THAT(page, Not(HasSubstr("stage_seconds_count{stage=\"vision\"}")));
  EXPECT_THAT(page, HasSubstr("piserve_stage_device_seconds_count"
                              "{device=\"cpu\",stage=\"vision\"} 1"));
}

TEST(MetricsTest, GpuSeriesExistOnlyForGpus) {
  Metrics metrics;
  Exercise(metrics, DeviceKind::kCpu);
  for (const char* series : {"gpu_busy_seconds_total{", "gpu_energy_joules",
                             "gpu_memory_bytes{", "graph_captured{"}) {
    EXPECT_THAT(Page(metrics), Not(HasSubstr(series)));
  }
  Metrics gpu;
  Exercise(gpu, DeviceKind::kGpu);
  EXPECT_THAT(Page(gpu),
              HasSubstr("gpu_busy_seconds_total{device=\"gpu0\"} 0.025"));
}

// Two policies on a device of 80 GB, of which something else has 3 GB.
TEST(MetricsTest, MemoryOfAGpuAddsUpToAllOfIt) {
  Metrics metrics;
  metrics.AddGpu("gpu0",
                 {.weights = 7e9, .buffers = 2e9, .free = 68e9, .total = 80e9},
                 {});
  metrics.AddGpu("gpu0",
                 {.weights = 6e9, .buffers = 1e9, .free = 61e9, .total = 80e9},
                 {});
  const std::string page = Page(metrics);
  for (const auto& [kind, bytes] :
       {std::pair("weights", "13000000000"), std::pair("buffers", "3000000000"),
        std::pair("free", "61000000000"), std::pair("other", "3000000000")}) {
    EXPECT_THAT(page, HasSubstr(std::string("piserve_gpu_memory_bytes"
                                            "{device=\"gpu0\",kind=\"") +
                                kind + "\"} " + bytes + "\n"));
  }
}

// Prefixes of other cameras and prompts have graphs of their own.
TEST(MetricsTest, GraphsAreCounted) {
  const CapturedGraph vision = {.stage = "vision", .rows = 4, .steps = "none"};
  Metrics metrics;
  metrics.AddGpu(
      "gpu0", {},
      {vision, vision, {.stage = "denoise", .rows = 2, .steps = "all"}});
  const std::string page = Page(metrics);
  EXPECT_THAT(page, HasSubstr("piserve_graph_captured{size=\"4\","
                              "stage=\"vision\",steps=\"none\"} 2"));
  EXPECT_THAT(page, HasSubstr("piserve_graph_captured{size=\"2\","
                              "stage=\"denoise\",steps=\"all\"} 1"));
}

// 0 J would be a lie where nobody knows.
TEST(MetricsTest, EnergyIsExportedOnceItIsKnown) {
  const std::string series = "piserve_gpu_energy_joules_total{device=\"gpu0\"}";
  Metrics metrics;
  Exercise(metrics, DeviceKind::kGpu);
  EXPECT_THAT(Page(metrics), Not(HasSubstr(series)));
  metrics.AddGpuEnergy("gpu0", 0);
  EXPECT_THAT(Page(metrics), HasSubstr(series + " 0\n"));
  metrics.AddGpuEnergy("gpu0", 12.5);
  EXPECT_THAT(Page(metrics), HasSubstr(series + " 12.5\n"));
}

// The line before a series is its help, which says "1" too.
TEST(MetricsTest, StateIsOneOfReadyAndDraining) {
  Metrics metrics;
  EXPECT_THAT(Page(metrics), HasSubstr("\npiserve_ready 0"));
  metrics.SetState(ServerState::kReady);
  EXPECT_THAT(Page(metrics), HasSubstr("\npiserve_ready 1"));
  metrics.SetState(ServerState::kDraining);
  EXPECT_THAT(Page(metrics), HasSubstr("\npiserve_ready 0"));
  EXPECT_THAT(Page(metrics), HasSubstr("\npiserve_draining 1"));
}

TEST(MetricsTest, AFaultNeitherEndsADrainNorBeginsOne) {
  Metrics drained;
  drained.SetState(ServerState::kDraining);
  drained.SetState(ServerState::kFaulty);
  EXPECT_THAT(Page(drained), HasSubstr("\npiserve_draining 1"));
  Metrics served;
  served.SetState(ServerState::kReady);
  served.SetState(ServerState::kFaulty);
  EXPECT_THAT(Page(served), HasSubstr("\npiserve_ready 0"));
  EXPECT_THAT(Page(served), HasSubstr("\npiserve_draining 0"));
}

// Promise 8.
TEST(MetricsTest, CountersAddUpFromManyThreads) {
  Metrics metrics;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&metrics, t] {
      for (int i = 0; i < 500; ++i) {
        metrics.Received(rpc::Method::kInfer);
        if (t == 0 && i < 10) continue;  // stay in flight
        metrics.Completed(rpc::Method::kInfer,
                          i % 2 == 0 ? absl::OkStatus() : Draining(),
                          absl::Milliseconds(i));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  double completed = 0;
  double received = 0;
  double in_flight = 0;
  for (const auto& family : metrics.registry()->Collect()) {
    for (const auto& metric : family.metric) {
      if (family.name == "piserve_requests_completed_total") {
        completed += metric.counter.value;
      } else if (family.name == "piserve_requests_received_total") {
        received += metric.counter.value;
      } else if (family.name == "piserve_inflight_requests") {
        in_flight += metric.gauge.value;
      }
    }
  }
  EXPECT_EQ(received, 2000);
  EXPECT_EQ(in_flight, 10);
  EXPECT_EQ(received, completed + in_flight);
}

TEST(ProcessMetricsTest, TellsOfThisProcess) {
  bool memory = false;
  bool start = false;
  for (const auto& family : ProcessMetrics().Collect()) {
    ASSERT_EQ(family.metric.size(), 1u);
    if (family.name == "process_resident_memory_bytes") {
      memory = family.metric[0].gauge.value > 1e6;
    } else if (family.name == "process_start_time_seconds") {
      start = family.metric[0].gauge.value > 1.6e9;
    }
  }
  EXPECT_TRUE(memory);
  EXPECT_TRUE(start);
}

}  // namespace
}  // namespace piserve::server
