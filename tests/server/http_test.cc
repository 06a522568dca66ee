// SPDX-License-Identifier: Apache-2.0
#include "server/http.h"

#include <atomic>
#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/process_metrics.h"
#include "server/refusal.h"
#include "tests/server/http_get.h"
#include "tests/server/loopback.h"

namespace piserve::server {
namespace {

using piserve::testing::HttpExchange;
using piserve::testing::HttpGet;
using ::testing::AllOf;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

class HttpServerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto http = HttpServer::Create(
        {.address = "127.0.0.1:0",
         .metrics = {std::make_shared<PolledGauge>("piserve_x", "An x.",
                                                   [] { return 7; }),
                     std::make_shared<ProcessMetrics>()},
         .availability = [this] {
           return ready_ ? absl::OkStatus() : WarmingUp();
         }});
    ASSERT_TRUE(http.ok()) << http.status();
    http_ = *std::move(http);
  }

  std::string Get(const std::string& path) {
    return HttpGet(http_->port(), path);
  }

  std::atomic<bool> ready_ = true;
  std::unique_ptr<HttpServer> http_;
};

TEST_F(HttpServerTest, MetricsComeFromEverySource) {
  const std::string page = Get("/metrics");
  EXPECT_THAT(page, StartsWith("HTTP/1.1 200 OK\r\n"));
  EXPECT_THAT(page, HasSubstr("text/plain; version=0.0.4"));
  EXPECT_THAT(page, HasSubstr("# HELP piserve_x An x.\n"));
  EXPECT_THAT(page, HasSubstr("piserve_x 7\n"));
  EXPECT_THAT(page, HasSubstr("process_resident_memory_bytes"));
}

TEST_F(HttpServerTest, HealthFollowsAvailability) {
  EXPECT_THAT(Get("/healthz"), StartsWith("HTTP/1.1 200 OK\r\n"));
  ready_ = false;
  const std::string ill = Get("/healthz");
  EXPECT_THAT(ill, StartsWith("HTTP/1.1 503 "));
  EXPECT_THAT(ill, HasSubstr("WARMING_UP\n"));
}

TEST_F(HttpServerTest, RootIsAPageForPeople) {
  const std::string page = Get("/");
  EXPECT_THAT(page, HasSubstr("text/html"));
  EXPECT_THAT(page, HasSubstr("<html"));
  EXPECT_THAT(page, HasSubstr("</html>"));
}

TEST_F(HttpServerTest, NothingElseIsThere) {
  for (const char* path : {"/metrics/", "/etc/passwd", "/../../etc/passwd",
                           "/healthz/x", "/%2e%2e/x"}) {
    EXPECT_THAT(Get(path), Not(StartsWith("HTTP/1.1 200"))) << path;
  }
}

TEST_F(HttpServerTest, OtherMethodsChangeNothing) {
  for (const char* method : {"POST", "PUT", "DELETE", "PATCH", "TRACE"}) {
    EXPECT_THAT(
        HttpExchange(http_->port(),
                     std::string(method) +
                         " /metrics HTTP/1.1\r\nHost: localhost\r\n"
                         "Content-Length: 0\r\nConnection: close\r\n\r\n"),
        Not(StartsWith("HTTP/1.1 200")))
        << method;
  }
}

// Load balancers probe so.
TEST_F(HttpServerTest, HeadIsGetWithoutABody) {
  const auto head = [this](const std::string& path) {
    return HttpExchange(
        http_->port(), "HEAD " + path + " HTTP/1.1\r\nHost: localhost\r\n\r\n");
  };
  EXPECT_THAT(head("/healthz"),
              AllOf(StartsWith("HTTP/1.1 200 OK\r\n"),
                    HasSubstr("Content-Length: 3\r\n"), EndsWith("\r\n\r\n")));
  ready_ = false;
  EXPECT_THAT(head("/healthz"), StartsWith("HTTP/1.1 503 "));
  EXPECT_THAT(head("/nowhere"), StartsWith("HTTP/1.1 404 "));
}

TEST_F(HttpServerTest, ConnectionsThatSayNothingDoNotHoldUpAProbe) {
  std::vector<int> silent;
  for (int i = 0; i < 8; ++i) {
    silent.push_back(ConnectToLoopback(http_->port()));
    ASSERT_GE(silent.back(), 0);
  }
  const auto before = std::chrono::steady_clock::now();
  EXPECT_THAT(Get("/healthz"), StartsWith("HTTP/1.1 200 OK\r\n"));
  EXPECT_LT(std::chrono::steady_clock::now() - before, std::chrono::seconds(1));
  for (const int fd : silent) close(fd);
}

TEST_F(HttpServerTest, TakenPortIsRefused) {
  const std::string address = "127.0.0.1:" + std::to_string(http_->port());
  const auto second = HttpServer::Create(
      {.address = address, .metrics = {}, .availability = [] {
         return absl::OkStatus();
       }});
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(second.status().message()),
              AllOf(HasSubstr(address), HasSubstr("in use")));
}

}  // namespace
}  // namespace piserve::server
