// SPDX-License-Identifier: Apache-2.0
// The composed server over real sockets, with a policy that is a puppet.
#include "server/server.h"

#include <atomic>
#include <filesystem>
#include <fstream>
#include <future>
#include <map>
#include <memory>
#include <sstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "grpcpp/create_channel.h"
#include "gtest/gtest.h"
#include "piserve/v1/policy.grpc.pb.h"
#include "tests/server/good_request.h"
#include "tests/server/http_get.h"
#include "tests/support/fake_host.h"
#include "tests/support/fake_policy.h"

namespace piserve::server {
namespace {

using piserve::testing::FakePolicy;
using piserve::testing::FakeVariant;
using piserve::testing::GoodRequest;
using piserve::testing::HttpGet;
using ::testing::HasSubstr;
using ::testing::StartsWith;

// Samples of a metrics page by name, summed over labels that contain `label`.
double Total(const std::string& page, const std::string& name,
             const std::string& label = "") {
  std::istringstream lines(page);
  std::string line;
  double total = 0;
  while (std::getline(lines, line)) {
    const std::string key = line.substr(0, line.find_first_of("{ "));
    if (key == name && line.find(label) != std::string::npos) {
      total += std::stod(line.substr(line.rfind(' ')));
    }
  }
  return total;
}

class ServerTest : public ::testing::Test {
 protected:
  static Server::Options Options() {
    Server::Options options;
    options.config.policies.emplace_back();
    options.config.policies.back().name = "libero";
    server::ListenerConfig& listeners = options.config.listeners;
    listeners.grpc = listeners.probe = "127.0.0.1:0";
    listeners.admin = listeners.http = "127.0.0.1:0";
    options.config.decode_workers = 2;
    options.config.logging.level = LogLevel::kError;
    return options;
  }

  // Runs a server whose policy is `fake`.
  void Start(FakePolicy::Options fake, Server::Options options = Options()) {
    to_host_ = std::make_unique<FakePolicy>(std::move(fake));
    policy_ = to_host_.get();
    options.factory = [this](const PolicyEntry& entry) {
      if (to_host_ == nullptr) {  // any but the first
        to_host_ =
            std::make_unique<FakePolicy>(FakePolicy::NoOp(FakeVariant()));
      } else {
        may_load_.get_future().wait();
      }
      return piserve::testing::HostOf(entry.name, std::move(to_host_),
                                      PISERVE_SOURCE_DIR);
    };
    options.log = &log_;
    options.ready = [this](const std::string& line) { ready_.set_value(line); };
    auto server = Server::Create(std::move(options));
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    stub_ = v1::PolicyService::NewStub(
        grpc::CreateChannel("127.0.0.1:" + std::to_string(server_->grpc_port()),
                            grpc::InsecureChannelCredentials()));
    run_ = std::async(std::launch::async, [this] { return server_->Run(); });
    if (load_at_once_) {
      may_load_.set_value();
      ready_line_ = ready_.get_future().get();
    }
  }

  void TearDown() override {
    if (server_ == nullptr) return;
    policy_->Release();
    server_->Drain();
    if (run_.valid()) run_.get().status().IgnoreError();
    server_.reset();
  }

  grpc::Status Infer(v1::InferResponse* response = nullptr) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() +
                         std::chrono::seconds(20));
    v1::InferResponse ignored;
    v1::InferRequest request = GoodRequest();
    request.mutable_observation()->set_policy(asked_for_);
    return stub_->Infer(&context, request,
                        response != nullptr ? response : &ignored);
  }

  // Starts, and returns once the policy hangs in the wave of a request, whose
  // status this is.
  std::future<grpc::Status> StartAndHang(Server::Options options = Options()) {
    FakePolicy::Options fake = FakePolicy::NoOp(FakeVariant());
    fake.act = [this](const SlotRow&, std::span<float>) {
      acted_ = true;
      return absl::OkStatus();
    };
    Start(std::move(fake), std::move(options));
    policy_->Hang();
    auto status = std::async(std::launch::async, [this] { return Infer(); });
    while (!acted_) std::this_thread::yield();
    return status;
  }

  std::string Get(const std::string& path) {
    return HttpGet(server_->http_port(), path);
  }

  bool load_at_once_ = true;
  std::string asked_for_;
  std::promise<void> may_load_;
  std::promise<std::string> ready_;
  std::string ready_line_;
  std::ostringstream log_;
  std::unique_ptr<FakePolicy> to_host_;
  FakePolicy* policy_ = nullptr;
  std::unique_ptr<Server> server_;
  std::unique_ptr<v1::PolicyService::Stub> stub_;
  std::future<absl::StatusOr<Exit>> run_;
  std::atomic<bool> acted_ = false;
};

TEST_F(ServerTest, IsAliveBeforeItIsReady) {
  load_at_once_ = false;
  Start(FakePolicy::NoOp(FakeVariant()));
  EXPECT_TRUE(server_->loading());
  EXPECT_THAT(Get("/healthz"), HasSubstr("WARMING_UP"));
  EXPECT_EQ(Infer().error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(Total(Get("/metrics"), "piserve_ready"), 0);
  may_load_.set_value();
  ready_.get_future().wait();
  EXPECT_FALSE(server_->loading());
  EXPECT_THAT(Get("/healthz"), StartsWith("HTTP/1.1 200"));
  EXPECT_TRUE(Infer().ok());
  EXPECT_EQ(Total(Get("/metrics"), "piserve_ready"), 1);
}

// A signal that comes while it is loading drops what was accepted.
TEST_F(ServerTest, NothingIsAcceptedWhileItIsLoading) {
  load_at_once_ = false;
  FakePolicy::Options fake = FakePolicy::NoOp(FakeVariant());
  std::atomic<bool> loading = false;
  fake.act = [&](const SlotRow&, std::span<float>) {
    if (server_->loading()) loading = true;
    return absl::OkStatus();
  };
  Start(std::move(fake));
  EXPECT_TRUE(server_->loading());
  std::thread robot([this] {
    while (!Infer().ok()) {
    }
  });
  may_load_.set_value();
  robot.join();
  EXPECT_FALSE(loading);
  EXPECT_FALSE(server_->loading());
}

TEST_F(ServerTest, SaysWhereItListens) {
  Server::Options options = Options();
  options.port_file = (std::filesystem::temp_directory_path() /
                       ("piserve_server_test_" + std::to_string(getpid())))
                          .string();
  const std::string path = options.port_file;
  Start(FakePolicy::NoOp(FakeVariant()), std::move(options));
  EXPECT_THAT(ready_line_, StartsWith("piserve ready grpc=127.0.0.1:" +
                                      std::to_string(server_->grpc_port())));
  std::ifstream file(path);
  std::map<std::string, int> ports;
  std::string name;
  int port = 0;
  while (file >> name >> port) ports[name] = port;
  std::filesystem::remove(path);
  EXPECT_EQ(ports["public"], server_->grpc_port());
  EXPECT_EQ(ports["probe"], server_->probe_port());
  EXPECT_EQ(ports["admin"], server_->admin_port());
  EXPECT_EQ(ports["http"], server_->http_port());
}

TEST_F(ServerTest, PolicyInfoDescribesWhatIsHosted) {
  Start(FakePolicy::NoOp(FakeVariant()));
  grpc::ClientContext context;
  v1::GetPolicyInfoResponse response;
  ASSERT_TRUE(
      stub_->GetPolicyInfo(&context, v1::GetPolicyInfoRequest(), &response)
          .ok());
  ASSERT_EQ(response.policies_size(), 1);
  const v1::PolicyInfo& info = response.policies(0);
  EXPECT_EQ(info.name(), "libero");
  EXPECT_EQ(info.policy_config(), "pi05_libero");
  EXPECT_EQ(info.action_horizon(), 10u);
  EXPECT_THAT(info.noise_shape(), ::testing::ElementsAre(10, 32));
  EXPECT_EQ(info.default_steps(), 10u);
  EXPECT_EQ(info.cameras_size(), 2);
  EXPECT_EQ(info.cameras(0).model_slot(), "base_0_rgb");
  EXPECT_FALSE(info.has_default_prompt());
  EXPECT_EQ(info.model_digest().size(), 64u);
  EXPECT_EQ(info.preprocessing_checksum().size(), 64u);
  EXPECT_EQ(info.tokenizer_sha256().size(), 64u);
}

TEST_F(ServerTest, PolicyThatCannotBeLoadedEndsTheRun) {
  Server::Options options = Options();
  options.log = &log_;
  options.factory = [](const PolicyEntry&) -> absl::StatusOr<HostedPolicy> {
    return absl::FailedPreconditionError("no weights");
  };
  auto server = Server::Create(std::move(options));
  ASSERT_TRUE(server.ok());
  EXPECT_THAT(std::string((*server)->Run().status().message()),
              HasSubstr("no weights"));
}

TEST_F(ServerTest, PlainTextForOthersIsRefused) {
  Server::Options options = Options();
  options.config.listeners.grpc = "0.0.0.0:0";
  EXPECT_EQ(Server::Create(std::move(options)).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_F(ServerTest, MissingCertificateIsNamed) {
  Server::Options options = Options();
  options.config.tls = TlsConfig{"/nowhere.crt", "/nowhere.key", ""};
  const absl::Status status = Server::Create(std::move(options)).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr("/nowhere.crt"));
}

// Promise 8, through the wire.
TEST_F(ServerTest, CountersAddUpAfterHammering) {
  FakePolicy::Options fake = FakePolicy::NoOp(FakeVariant());
  fake.duration = [](int) { return absl::Milliseconds(1); };
  Server::Options options = Options();
  options.config.limits.rows = 4;
  Start(std::move(fake), std::move(options));
  std::atomic<int> ok = 0;
  std::atomic<int> refused = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < 6; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 25; ++i) ++(Infer().ok() ? ok : refused);
    });
  }
  for (std::thread& thread : threads) thread.join();
  const std::string page = Get("/metrics");
  EXPECT_EQ(Total(page, "piserve_requests_received_total"), 150);
  EXPECT_EQ(Total(page, "piserve_requests_completed_total"), 150);
  EXPECT_EQ(Total(page, "piserve_inflight_requests"), 0);
  EXPECT_EQ(Total(page, "piserve_requests_completed_total", "code=\"OK\""), ok);
  EXPECT_EQ(Total(page, "piserve_batch_rows_sum"), ok);
  EXPECT_EQ(Total(page, "piserve_stage_seconds_count", "stage=\"gpu\""), ok);
  EXPECT_EQ(Total(page, "piserve_stage_seconds_count", "stage=\"parse\""), 150);
  EXPECT_EQ(Total(page, "piserve_requests_rejected_total"), refused);
  EXPECT_EQ(Total(page, "piserve_queue_rows"), 0);
  EXPECT_GT(Total(page, "piserve_connections"), 0);
}

TEST_F(ServerTest, AGpuIsToldOf) {
  FakePolicy::Options fake = FakePolicy::NoOp(FakeVariant());
  fake.device_facts = {
      .memory = {.weights = 7, .buffers = 2, .free = 10, .total = 20},
      .graphs = {{.stage = "prefill", .rows = 8, .steps = "none"}},
      .energy = [] { return 5e6; }};
  Start(std::move(fake));
  std::string page;
  do {
    page = Get("/metrics");
  } while (page.find("\npiserve_gpu_energy_joules_total{") == page.npos);
  EXPECT_EQ(Total(page, "piserve_gpu_energy_joules_total"), 0);  // so far
  EXPECT_EQ(Total(page, "piserve_gpu_memory_bytes", "device=\"cuda:0\""), 20);
  EXPECT_EQ(Total(page, "piserve_gpu_memory_bytes", "kind=\"weights\""), 7);
  EXPECT_EQ(Total(page, "piserve_graph_captured", "stage=\"prefill\""), 1);
}

TEST_F(ServerTest, ADriverThatHangsHoldsNobodyUp) {
  std::promise<void> hang;
  std::atomic<bool> asked = false;
  FakePolicy::Options fake = FakePolicy::NoOp(FakeVariant());
  fake.device_facts.emplace().energy = [&]() -> std::optional<double> {
    asked = true;
    hang.get_future().wait();
    return 0;
  };
  Start(std::move(fake));
  while (!asked) std::this_thread::yield();
  EXPECT_TRUE(Infer().ok());
  EXPECT_THAT(Get("/metrics"), HasSubstr("piserve_gpu_busy_seconds_total{"));
  EXPECT_THAT(Get("/"), StartsWith("HTTP/1.1 200"));
  server_->Drain();
  EXPECT_EQ(*run_.get(), Exit::kDrained);
  const auto ended = std::chrono::steady_clock::now();
  server_.reset();
  EXPECT_LT(std::chrono::steady_clock::now() - ended, std::chrono::seconds(2));
  hang.set_value();
}

// Promise 5.
TEST_F(ServerTest, DrainAnswersWhatWasAcceptedAndEndsWell) {
  std::future<grpc::Status> accepted = StartAndHang();
  server_->Drain();
  while (Total(Get("/metrics"), "piserve_draining") == 0) {
    std::this_thread::yield();
  }
  EXPECT_THAT(Get("/healthz"), HasSubstr("DRAINING"));
  EXPECT_EQ(Infer().error_code(), grpc::StatusCode::UNAVAILABLE);
  policy_->Release();
  EXPECT_TRUE(accepted.get().ok());
  const absl::StatusOr<Exit> exit = run_.get();
  ASSERT_TRUE(exit.ok());
  EXPECT_EQ(*exit, Exit::kDrained);
}

// Promises 5 and 6: the grace is over before the watchdog has found out.
TEST_F(ServerTest, ADeviceThatHangsInTheDrainDoesNotKeepTheRunFromEnding) {
  Server::Options options = Options();
  options.config.drain_grace = absl::Milliseconds(50);
  options.config.watchdog.floor = absl::Milliseconds(400);
  std::future<grpc::Status> lost = StartAndHang(std::move(options));
  server_->Drain();
  EXPECT_EQ(lost.get().error_code(), grpc::StatusCode::UNAVAILABLE);
  ASSERT_EQ(run_.wait_for(std::chrono::seconds(5)), std::future_status::ready);
  EXPECT_EQ(*run_.get(), Exit::kDeviceFault);
  EXPECT_EQ(Total(Get("/metrics"), "piserve_draining"), 1);
}

// Promise 6.
TEST_F(ServerTest, DeviceFaultEndsTheRunAtOnce) {
  Start(FakePolicy::NoOp(FakeVariant()));
  policy_->Break();
  ASSERT_EQ(run_.wait_for(std::chrono::seconds(5)), std::future_status::ready);
  EXPECT_EQ(*run_.get(), Exit::kDeviceFault);
  EXPECT_EQ(Total(Get("/metrics"), "piserve_ready"), 0);
  EXPECT_EQ(Total(Get("/metrics"), "piserve_gpu_faults_total"), 1);
}

TEST_F(ServerTest, HangingDeviceIsAnsweredForAndEndsTheRun) {
  Server::Options options = Options();
  options.config.watchdog.floor = absl::Milliseconds(100);
  std::future<grpc::Status> lost = StartAndHang(std::move(options));
  const grpc::Status status = lost.get();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_THAT(status.error_message(), HasSubstr("device"));
  ASSERT_EQ(run_.wait_for(std::chrono::seconds(5)), std::future_status::ready);
  EXPECT_EQ(*run_.get(), Exit::kDeviceFault);
}

// Promise 5 where one device is lost and another goes on: whoever destroys the
// server would wait for the first, so it tells of it.
TEST_F(ServerTest, DrainEndsWellBesideADeviceThatHangs) {
  Server::Options options = Options();
  options.config.watchdog.floor = absl::Milliseconds(100);
  asked_for_ = options.config.policies.front().name;
  options.config.policies.emplace_back().name = "well";
  EXPECT_EQ(StartAndHang(std::move(options)).get().error_code(),
            grpc::StatusCode::UNAVAILABLE);
  EXPECT_TRUE(server_->lost_device());
  asked_for_ = "well";
  EXPECT_TRUE(Infer().ok());
  server_->Drain();
  ASSERT_EQ(run_.wait_for(std::chrono::seconds(5)), std::future_status::ready);
  EXPECT_EQ(*run_.get(), Exit::kDrained);
}

}  // namespace
}  // namespace piserve::server
