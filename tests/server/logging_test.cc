// SPDX-License-Identifier: Apache-2.0
#include "server/logging.h"

#include <memory>
#include <sstream>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/error.h"
#include "nlohmann/json.hpp"
#include "server/request_log.h"

namespace piserve::server {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::MatchesRegex;
using ::testing::Not;

constexpr char kHostile[] = "a\"}\n{\"level\":\"fake\x1b[2J\xff\\";

// What a logger of this configuration writes.
template <typename Say>
std::string Written(LogFormat format, LogLevel level, Say say) {
  std::ostringstream out;
  {
    Logger log({level, format}, &out);
    say(log);
  }
  return out.str();
}

TEST(LoggerTest, TextLineHasTimeLevelMessageAndFields) {
  const std::string line =
      Written(LogFormat::kText, LogLevel::kInfo, [](Logger& log) {
        log.Log(LogLevel::kWarn, "queue full",
                {{"request_id", "r-1"}, {"rows", std::int64_t{128}}});
      });
  EXPECT_THAT(line, MatchesRegex("[0-9-]+T[0-9:.]+Z warning queue full "
                                 "request_id=\"r-1\" rows=128\n"));
}

TEST(LoggerTest, JsonLineIsOneObject) {
  const std::string line =
      Written(LogFormat::kJson, LogLevel::kInfo, [](Logger& log) {
        log.Log(LogLevel::kInfo, "loaded",
                {{"policy", "libero"}, {"seconds", 1.5}});
      });
  const auto json = nlohmann::json::parse(line);
  EXPECT_EQ(json["message"], "loaded");
  EXPECT_EQ(json["level"], "info");
  EXPECT_EQ(json["policy"], "libero");
  EXPECT_EQ(json["seconds"], 1.5);
  EXPECT_THAT(json["time"].get<std::string>(), EndsWith("Z"));
}

TEST(LoggerTest, ClientsStringCannotForgeALineOrAField) {
  for (const LogFormat format : {LogFormat::kText, LogFormat::kJson}) {
    const std::string text = Written(format, LogLevel::kInfo, [](Logger& log) {
      log.Log(LogLevel::kInfo, "request", {{"request_id", kHostile}});
    });
    EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 1);
    EXPECT_EQ(text.find('\x1b'), std::string::npos);
    EXPECT_EQ(text.find('\xff'), std::string::npos);
    if (format == LogFormat::kJson) {
      const auto json = nlohmann::json::parse(text);
      EXPECT_EQ(json["level"], "info");
      EXPECT_THAT(json["request_id"].get<std::string>(), HasSubstr("fake"));
    }
  }
}

TEST(LoggerTest, FormatCharactersAreText) {
  const std::string line =
      Written(LogFormat::kText, LogLevel::kInfo, [](Logger& log) {
        log.Log(LogLevel::kInfo, "{} %v %s", {{"request_id", "{0} %n"}});
      });
  EXPECT_THAT(line, HasSubstr("{} %v %s request_id=\"{0} %n\""));
}

TEST(LoggerTest, LevelDecidesAndCanChange) {
  const std::string lines =
      Written(LogFormat::kText, LogLevel::kWarn, [](Logger& log) {
        log.Log(LogLevel::kInfo, "hidden");
        EXPECT_EQ(log.SetLevel(LogLevel::kDebug), LogLevel::kWarn);
        log.Log(LogLevel::kDebug, "shown");
      });
  EXPECT_THAT(lines, Not(HasSubstr("hidden")));
  EXPECT_THAT(lines, HasSubstr("shown"));
}

TEST(LoggerTest, LongTextIsCut) {
  EXPECT_EQ(EscapeForLog(std::string(10000, 'x')).size(), 256);
}

TEST(RequestLogTest, RefusalIsToldWithTheRequestsIdAndReason) {
  DispatchObserver nobody;
  InferenceRequest request;
  request.request_id = "r-7";
  request.traceparent = "00-ab-cd-01";
  const absl::Status refused =
      WithReason(absl::AbortedError("a newer one came"), "SUPERSEDED");
  const absl::Status fine;
  const std::string lines =
      Written(LogFormat::kText, LogLevel::kInfo, [&](Logger& log) {
        RequestLog request_log(log, nobody);
        request_log.OnAnswer({request, refused, nullptr, absl::Seconds(1), {}});
        request_log.OnAnswer({request, fine, nullptr, absl::Seconds(1), {}});
      });
  EXPECT_EQ(std::count(lines.begin(), lines.end(), '\n'), 1);
  EXPECT_THAT(lines, HasSubstr("request_id=\"r-7\""));
  EXPECT_THAT(lines, HasSubstr("traceparent=\"00-ab-cd-01\""));
  EXPECT_THAT(lines, HasSubstr("code=\"ABORTED\" reason=\"SUPERSEDED\""));
}

}  // namespace
}  // namespace piserve::server
