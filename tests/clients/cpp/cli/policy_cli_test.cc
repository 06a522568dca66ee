// SPDX-License-Identifier: Apache-2.0
// Runs the programs as a user does, against a server in this process.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <atomic>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <string>

#include "grpcpp/health_check_service_interface.h"
#include "grpcpp/server_builder.h"
#include "piserve/admin/v1/admin.grpc.pb.h"
#include "tests/clients/cpp/fake_service.h"

namespace piserve::client {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

struct Outcome {
  int exit_code = 0;
  std::string output;  // stdout and stderr
};

Outcome RunProgram(const std::string& command) {
  Outcome outcome;
  std::FILE* pipe = popen((command + " 2>&1").c_str(), "r");
  char buffer[4096];
  std::size_t count = 0;
  while ((count = std::fread(buffer, 1, sizeof buffer, pipe)) > 0) {
    outcome.output.append(buffer, count);
  }
  outcome.exit_code = WEXITSTATUS(pclose(pipe));
  return outcome;
}

class Programs : public ::testing::Test {
 protected:
  static void SetUpTestSuite() { grpc::EnableDefaultHealthCheckService(true); }

  Outcome Cli(const std::string& words) {
    return RunProgram(std::string(POLICY_CLI) +
                      " --address=" + service_.address() + " " + words);
  }
  Outcome Load(const std::string& words) {
    return RunProgram(std::string(POLICY_LOAD) +
                      " --address=" + service_.address() +
                      " --warmup=0 --duration=300ms " + words);
  }

  FakeService service_;
};

TEST_F(Programs, InfoShowsCamerasAndState) {
  const Outcome outcome = Cli("info");
  EXPECT_EQ(outcome.exit_code, 0) << outcome.output;
  EXPECT_THAT(outcome.output,
              AllOf(HasSubstr("wrist"), HasSubstr("optional"),
                    HasSubstr("gripper"), HasSubstr("digest-1")));
}

TEST_F(Programs, InfoAsJson) {
  const auto json = nlohmann::json::parse(Cli("info --json").output);
  EXPECT_EQ(json["policies"][0]["name"], "fake");
}

TEST_F(Programs, ACredentialThatMayUseNoPolicyIsToldSo) {
  service_.hides_policy = true;
  const Outcome outcome = Cli("infer");
  EXPECT_NE(outcome.exit_code, 0);
  EXPECT_THAT(outcome.output,
              HasSubstr("no policy here that this credential may use"));
}

TEST_F(Programs, InferPrintsTheChunk) {
  const Outcome outcome = Cli("infer --state=1,2,3 --seed=7 --steps=4");
  EXPECT_EQ(outcome.exit_code, 0) << outcome.output;
  EXPECT_THAT(outcome.output, HasSubstr("actions [2, 3] of fake"));
  const v1::ObservationRequest sent = service_.requests().back().observation();
  EXPECT_EQ(sent.seed(), 7u);
  EXPECT_EQ(sent.num_steps(), 4u);
  EXPECT_EQ(sent.state(2), 3);
}

TEST_F(Programs, HelpIsAWordOfItsOwn) {
  EXPECT_THAT(Cli("help").output, HasSubstr("Exit code"));
  ASSERT_THAT(Cli("infer --prompt help").output, HasSubstr("actions [2, 3]"));
  EXPECT_EQ(service_.requests().back().observation().prompt(), "help");
}

TEST_F(Programs, InferAsJson) {
  const Outcome outcome = Cli("infer --json");
  const auto json = nlohmann::json::parse(outcome.output);
  EXPECT_EQ(json["actions"][1][2], 5);
}

TEST_F(Programs, HealthSaysServing) {
  const Outcome outcome = Cli("health");
  EXPECT_EQ(outcome.exit_code, 0) << outcome.output;
  EXPECT_EQ(outcome.output, "SERVING\n");
}

class FakeAdmin final : public admin::v1::AdminService::Service {
 public:
  FakeAdmin() {
    int port = 0;
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(),
                             &port);
    builder.RegisterService(this);
    server_ = builder.BuildAndStart();
    flag = " --admin_address=127.0.0.1:" + std::to_string(port) + " ";
  }
  ~FakeAdmin() override { server_->Shutdown(); }

  grpc::Status Drain(grpc::ServerContext*, const admin::v1::DrainRequest*,
                     admin::v1::DrainResponse*) override {
    ++drains;
    return grpc::Status::OK;
  }
  grpc::Status SetLogLevel(grpc::ServerContext*,
                           const admin::v1::SetLogLevelRequest* request,
                           admin::v1::SetLogLevelResponse* response) override {
    response->set_previous(level);
    level = request->level();
    return grpc::Status::OK;
  }

  std::string flag;
  std::atomic<int> drains = 0;
  std::atomic<admin::v1::LogLevel> level = admin::v1::LOG_LEVEL_INFO;

 private:
  std::unique_ptr<grpc::Server> server_;
};

TEST_F(Programs, AnOperatorDrainsAndSetsTheLogLevel) {
  FakeAdmin admin;
  const Outcome level = Cli("log-level debug" + admin.flag);
  EXPECT_EQ(level.exit_code, 0);
  EXPECT_EQ(level.output, "info\n");
  EXPECT_EQ(admin.level, admin::v1::LOG_LEVEL_DEBUG);
  EXPECT_EQ(Cli("log-level warn --json" + admin.flag).output,
            "{\"previous\": \"debug\"}\n");
  EXPECT_EQ(admin.drains, 0);
  const Outcome drain = Cli("drain" + admin.flag);
  EXPECT_EQ(drain.exit_code, 0);
  EXPECT_EQ(drain.output, "DRAINING\n");
  EXPECT_EQ(admin.drains, 1);
}

TEST_F(Programs, OnlyALogLevelThatThereIsIsSent) {
  FakeAdmin admin;
  for (const char* words : {"log-level loud", "log-level unspecified"}) {
    const Outcome outcome = Cli(words + admin.flag);
    EXPECT_EQ(outcome.exit_code, 1) << words;
    EXPECT_THAT(outcome.output, HasSubstr("want debug, info, warn or error"));
  }
  EXPECT_EQ(Cli("log-level" + admin.flag).exit_code, 1);
  EXPECT_EQ(Cli("drain now" + admin.flag).exit_code, 1);
  EXPECT_EQ(admin.level, admin::v1::LOG_LEVEL_INFO);
  EXPECT_EQ(admin.drains, 0);
}

TEST_F(Programs, EachOutcomeHasItsExitCode) {
  EXPECT_EQ(Cli("").exit_code, 1);
  EXPECT_EQ(Cli("infer --no_such_flag").exit_code, 1);
  EXPECT_EQ(Cli("infer --image=base=/nowhere").exit_code, 1);
  EXPECT_EQ(Cli("infer --help").exit_code, 0);
  service_.on_infer = [](auto...) {
    return grpc::Status(grpc::StatusCode::INTERNAL, "broken");
  };
  EXPECT_EQ(Cli("infer").exit_code, 2);
  EXPECT_EQ(Cli("infer --state=1").exit_code, 2);
  service_.on_infer = [](auto...) {
    return grpc::Status(grpc::StatusCode::DEADLINE_EXCEEDED, "late");
  };
  EXPECT_EQ(Cli("infer").exit_code, 4);
  service_.Stop();
  EXPECT_EQ(Cli("health").exit_code, 3);
  EXPECT_EQ(Cli("drain --admin_address=" + service_.address()).exit_code, 3);
}

TEST_F(Programs, FlagsOfTlsWithoutItAreRefused) {
  for (const char* flag :
       {"--tls_name=robot", "--tls_key=/dev/null", "--tls --tls_key=/dev/null",
        "--tls --tls_cert=/dev/null"}) {
    const Outcome outcome = Cli(std::string("health ") + flag);
    EXPECT_EQ(outcome.exit_code, 1) << flag;
    EXPECT_THAT(outcome.output, HasSubstr("want --tls")) << flag;
  }
}

TEST_F(Programs, ARefusalIsPrintedWithItsField) {
  const Outcome outcome = Cli("infer --state=1");
  EXPECT_THAT(outcome.output, AllOf(HasSubstr("INVALID_ARGUMENT"),
                                    HasSubstr("got 1 values, want 3"),
                                    HasSubstr("field: state")));
}

TEST_F(Programs, LoadReportsAsJson) {
  const Outcome outcome = Load("--robots=2 --rate=50 --json=-");
  ASSERT_EQ(outcome.exit_code, 0) << outcome.output;
  const auto json = nlohmann::json::parse(outcome.output);
  EXPECT_EQ(json["sent"], 30);
  EXPECT_EQ(json["statuses"]["OK"], 30);
  EXPECT_EQ(json["lost"], 0);
}

TEST_F(Programs, TheWarmUpIsInNoFigureOfTheReport) {
  service_.on_infer = [](grpc::ServerContext*, const v1::InferRequest& request,
                         v1::InferResponse* response) {
    *response->mutable_result() =
        FakeResult(request.observation().request_id());
    response->mutable_result()->add_stages()->set_stage("gpu");
    return grpc::Status::OK;
  };
  const Outcome outcome = Load("--robots=2 --rate=50 --json=- --warmup=200ms");
  ASSERT_EQ(outcome.exit_code, 0) << outcome.output;
  const auto json = nlohmann::json::parse(outcome.output);
  EXPECT_EQ(json["sent"], 50);
  EXPECT_EQ(json["latency_ms"]["count"], 30);
  EXPECT_EQ(json["stage_ms"]["gpu"]["count"], 30);
}

TEST_F(Programs, LoadRefusesRobotsThatItCannotTellApart) {
  const Outcome outcome = Load("--robots=2 --verify=alone");
  EXPECT_EQ(outcome.exit_code, 2);
  EXPECT_THAT(outcome.output, HasSubstr("tell them apart"));
}

TEST_F(Programs, LoadTellsAWrongFlagFromARefusal) {
  service_.info.add_noise_shape(2);
  service_.info.add_noise_shape(3);
  EXPECT_EQ(Load("--verify=bogus").exit_code, 1);
  EXPECT_EQ(Load("--verify=hash --width=100").exit_code, 1);
  EXPECT_EQ(Load("--recording=/nowhere").exit_code, 1);
  EXPECT_EQ(Load("--recording=/nowhere --verify=alone").exit_code, 1);
}

TEST_F(Programs, LoadTellsWhenNothingWasAnswered) {
  service_.on_infer = [](auto...) {
    return grpc::Status(grpc::StatusCode::INTERNAL, "broken");
  };
  const Outcome outcome = Load("--robots=1 --rate=20");
  EXPECT_EQ(outcome.exit_code, 2);
  EXPECT_THAT(outcome.output, HasSubstr("INTERNAL"));
}

TEST_F(Programs, LoadTellsOfAWrongAnswerAndOfAReportNotWritten) {
  std::atomic<float> first = 0;
  service_.on_infer = [&](grpc::ServerContext*, const v1::InferRequest& request,
                          v1::InferResponse* response) {
    v1::InferResult* result = response->mutable_result();
    *result = FakeResult(request.observation().request_id());
    const float value = first.exchange(1);
    result->mutable_actions()->mutable_data()->replace(
        0, 4, reinterpret_cast<const char*>(&value), 4);
    return grpc::Status::OK;
  };
  const Outcome outcome =
      Load("--robots=1 --rate=20 --verify=alone --json=/nowhere/load.json");
  EXPECT_EQ(outcome.exit_code, 5) << outcome.output;
  EXPECT_THAT(outcome.output, HasSubstr("cannot be written"));
}

TEST_F(Programs, LoadChecksItsFlags) {
  EXPECT_EQ(Load("--loop=round").exit_code, 1);
  EXPECT_EQ(Load("--rate=0").exit_code, 1);
  EXPECT_EQ(Load("--robots=0").exit_code, 1);
  EXPECT_EQ(Load("--help").exit_code, 0);
}

TEST_F(Programs, LoadRefusesARunWithoutAnEnd) {
  for (const char* flag : {"--rate=inf", "--rate=nan", "--rate=1e300",
                           "--duration=inf", "--warmup=inf", "--timeout=inf"}) {
    EXPECT_EQ(Load(flag).exit_code, 1) << flag;
  }
  EXPECT_EQ(Load("--loop=closed --rate=nan").exit_code, 1);
}

}  // namespace
}  // namespace piserve::client
