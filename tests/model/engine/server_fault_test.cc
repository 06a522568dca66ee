// SPDX-License-Identifier: Apache-2.0
// What a robot and an operator see when the only device of a server fails or
// hangs. The server is a process of its own, which a death test makes; the
// robot is in the test's process.
#include <ATen/cuda/CUDAContextLight.h>
#include <grpcpp/create_channel.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <future>
#include <map>
#include <memory>
#include <string>
#include <thread>

#include "absl/flags/declare.h"
#include "absl/flags/flag.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "piserve/v1/policy.grpc.pb.h"
#include "server/run.h"
#include "tests/model/engine/device_faults.h"
#include "tests/server/good_request.h"
#include "tests/server/http_get.h"

ABSL_DECLARE_FLAG(std::string, port_file);

namespace piserve::engine {
namespace {

constexpr absl::Duration kPatience = absl::Minutes(2);  // for a start
constexpr char kFolder[] = "PISERVE_FAULT_TEST_FOLDER";

enum class Fault { kTrap, kHang };

// Files by which the two processes wait for each other; the server's process
// inherits the name of their folder.
std::string File(const std::string& name) {
  if (std::getenv(kFolder) == nullptr) {
    std::string folder = ::testing::TempDir() + "/fault_XXXXXX";
    setenv(kFolder, mkdtemp(folder.data()), 1);
  }
  return std::string(std::getenv(kFolder)) + "/" + name;
}

void Touch(const std::string& name) { std::ofstream(File(name)) << "\n"; }

bool Exists(const std::string& name) {
  return std::filesystem::exists(File(name));
}

// False if that took too long or the server has ended meanwhile.
bool WaitUntil(const std::function<bool()>& done) {
  const absl::Time start = absl::Now();
  while (!done()) {
    if (Exists("ended") || absl::Now() - start > kPatience) return false;
    absl::SleepFor(absl::Milliseconds(2));
  }
  return true;
}

bool WaitFor(const std::string& name) {
  return WaitUntil([&] { return Exists(name); });
}

// ------------------------------------------------------- the server's process

server::Config TinyServer() {
  const std::string golden = PISERVE_SOURCE_DIR "/tests/golden/";
  server::PolicyEntry entry;
  entry.name = "libero";
  entry.policy_config = "pi0_libero";
  entry.weights = server::CheckpointWeights{golden + "tiny_pi0"};
  entry.norm_stats =
      golden + "tiny_pi0/assets/physical-intelligence/libero/norm_stats.json";
  entry.tokenizer = golden + "tokenizer/tiny.model";
  entry.step_counts = {10};
  entry.batch_sizes = {1};
  entry.backend = server::Backend::kEngine;
  server::Config config;
  config.policies.push_back(std::move(entry));
  server::ListenerConfig& listeners = config.listeners;
  listeners.grpc = listeners.probe = "127.0.0.1:0";
  listeners.admin = listeners.http = "127.0.0.1:0";
  config.decode_workers = 2;
  return config;
}

// Loses the device when told. What holds it is never destroyed: nothing can be
// given back.
void Break(Fault fault) {
  if (!WaitFor("hold")) return;
  auto* blockade = new Blockade;
  Touch("held");
  if (fault == Fault::kTrap && WaitFor("trap")) blockade->Trap();
}

[[noreturn]] void Serve(Fault fault) {
  absl::SetFlag(&FLAGS_port_file, File("ports"));
  std::thread(Break, fault).detach();
  std::_Exit(
      server::RunServer("engine_fault_test", TinyServer(), server::LoadPolicy));
}

// ---------------------------------------------------------------- the robot's

class Robot {
 public:
  // Waits until the server listens.
  Robot() {
    WaitFor("ports");
    std::ifstream file(File("ports"));
    std::string name;
    for (int port = 0; file >> name >> port;) ports_[name] = port;
    stub_ = v1::PolicyService::NewStub(
        grpc::CreateChannel("127.0.0.1:" + std::to_string(ports_["public"]),
                            grpc::InsecureChannelCredentials()));
  }

  grpc::Status Infer() {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() +
                         std::chrono::seconds(10));
    v1::InferResponse response;
    return stub_->Infer(&context, piserve::testing::GoodRequest(), &response);
  }

  bool Ready() {
    return StatusLine(ports_["http"]).find("200") != std::string::npos;
  }

 private:
  // The head's first line; empty once nobody listens.
  static std::string StatusLine(int port) {
    const std::string response = piserve::testing::HttpGet(port, "/healthz");
    return response.substr(0, response.find('\r'));
  }

  std::map<std::string, int> ports_;
  std::unique_ptr<v1::PolicyService::Stub> stub_;
};

struct Seen {
  bool served = false;    // before the fault
  absl::Time fault;       // when the device was lost
  grpc::Status answer;    // to a request meanwhile
  absl::Duration waited;  // for it
  bool ready = true;      // still, a second after the fault
};

Seen AskThroughA(Fault fault) {
  Seen seen;
  Robot robot;
  seen.served = WaitUntil([&] { return robot.Ready(); }) && robot.Infer().ok();
  Touch("hold");
  WaitFor("held");
  seen.fault = absl::Now();
  auto answer = std::async(std::launch::async, [&] { return robot.Infer(); });
  if (fault == Fault::kTrap) Touch("trap");
  seen.answer = answer.get();
  seen.waited = absl::Now() - seen.fault;
  do {
    seen.ready = robot.Ready();
  } while (seen.ready && absl::Now() - seen.fault < absl::Seconds(1));
  return seen;
}

class ServerFaultTest : public ::testing::TestWithParam<Fault> {
 protected:
  void SetUp() override {
    if (!at::cuda::is_available()) GTEST_SKIP() << "no CUDA device here";
    ::testing::GTEST_FLAG(death_test_style) = "threadsafe";
  }
};

TEST_P(ServerFaultTest, IsAnsweredForAndEndsTheProcessWithinFiveSeconds) {
  std::future<Seen> robot;
  if (!::testing::internal::InDeathTestChild()) {
    unsetenv(kFolder);
    File("");  // made before the server's process
    robot = std::async(std::launch::async, AskThroughA, GetParam());
  }
  EXPECT_EXIT(Serve(GetParam()), ::testing::ExitedWithCode(2), "");
  const absl::Time ended = absl::Now();
  Touch("ended");
  const Seen seen = robot.get();
  EXPECT_TRUE(seen.served);
  EXPECT_EQ(seen.answer.error_code(), grpc::StatusCode::UNAVAILABLE)
      << seen.answer.error_message();
  EXPECT_LT(seen.waited, absl::Seconds(1));
  EXPECT_FALSE(seen.ready);
  EXPECT_LT(ended - seen.fault, absl::Seconds(5));
  std::printf("answered after %.0f ms, ended after %.0f ms\n",
              absl::ToDoubleMilliseconds(seen.waited),
              absl::ToDoubleMilliseconds(ended - seen.fault));
  std::filesystem::remove_all(File(""));
}

INSTANTIATE_TEST_SUITE_P(Faults, ServerFaultTest,
                         ::testing::Values(Fault::kTrap, Fault::kHang),
                         [](const auto& info) {
                           return info.param == Fault::kTrap ? "Trap" : "Hang";
                         });

}  // namespace
}  // namespace piserve::engine
