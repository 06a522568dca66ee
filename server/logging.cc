// SPDX-License-Identifier: Apache-2.0
#include "server/logging.h"

#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "spdlog/async.h"
#include "spdlog/async_logger.h"
#include "spdlog/pattern_formatter.h"
#include "spdlog/sinks/ostream_sink.h"
#include "spdlog/sinks/stdout_sinks.h"

namespace piserve::server {
namespace {

constexpr std::size_t kQueueLines = 8192;
constexpr std::size_t kMaxTextBytes = 256;
constexpr char kTextPattern[] = "%Y-%m-%dT%H:%M:%S.%eZ %l %v";
constexpr char kJsonPattern[] =
    R"({"time":"%Y-%m-%dT%H:%M:%S.%eZ","level":"%l",%v})";

spdlog::level::level_enum ToSpdlog(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return spdlog::level::debug;
    case LogLevel::kInfo:
      return spdlog::level::info;
    case LogLevel::kWarn:
      return spdlog::level::warn;
    case LogLevel::kError:
      break;
  }
  return spdlog::level::err;
}

LogLevel FromSpdlog(spdlog::level::level_enum level) {
  switch (level) {
    case spdlog::level::debug:
      return LogLevel::kDebug;
    case spdlog::level::info:
      return LogLevel::kInfo;
    case spdlog::level::warn:
      return LogLevel::kWarn;
    default:
      return LogLevel::kError;
  }
}

std::string Quoted(absl::string_view text) {
  return absl::StrCat("\"", EscapeForLog(text), "\"");
}

std::string ValueOf(const LogField& field) {
  if (const auto* text = std::get_if<absl::string_view>(&field.value)) {
    return Quoted(*text);
  }
  if (const auto* number = std::get_if<std::int64_t>(&field.value)) {
    return absl::StrCat(*number);
  }
  return absl::StrFormat("%.6g", std::get<double>(field.value));
}

std::string TextLine(absl::string_view message,
                     std::initializer_list<LogField> fields) {
  std::string line = EscapeForLog(message);
  for (const LogField& field : fields) {
    absl::StrAppend(&line, " ", field.key, "=", ValueOf(field));
  }
  return line;
}

std::string JsonLine(absl::string_view message,
                     std::initializer_list<LogField> fields) {
  std::string line = absl::StrCat("\"message\":", Quoted(message));
  for (const LogField& field : fields) {
    absl::StrAppend(&line, ",\"", field.key, "\":", ValueOf(field));
  }
  return line;
}

}  // namespace

std::string EscapeForLog(absl::string_view text) {
  std::string out;
  for (const char c : text.substr(0, kMaxTextBytes)) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (absl::ascii_isprint(c)) {
      out += c;
    } else {
      absl::StrAppendFormat(&out, "\\u%04x", static_cast<unsigned char>(c));
    }
  }
  return out;
}

Logger::Logger(const LoggingConfig& config, std::ostream* out)
    : format_(config.format),
      writer_(std::make_shared<spdlog::details::thread_pool>(kQueueLines, 1)) {
  spdlog::sink_ptr sink;
  if (out != nullptr) {
    sink = std::make_shared<spdlog::sinks::ostream_sink_mt>(*out, true);
  } else {
    sink = std::make_shared<spdlog::sinks::stderr_sink_mt>();
  }
  logger_ = std::make_shared<spdlog::async_logger>(
      "piserve", std::move(sink), writer_,
      spdlog::async_overflow_policy::overrun_oldest);
  logger_->set_formatter(std::make_unique<spdlog::pattern_formatter>(
      format_ == LogFormat::kJson ? kJsonPattern : kTextPattern,
      spdlog::pattern_time_type::utc));
  logger_->set_level(ToSpdlog(config.level));
}

Logger::~Logger() = default;

void Logger::Log(LogLevel level, absl::string_view message,
                 std::initializer_list<LogField> fields) {
  if (!Wants(level)) return;
  logger_->log(ToSpdlog(level), format_ == LogFormat::kJson
                                    ? JsonLine(message, fields)
                                    : TextLine(message, fields));
}

bool Logger::Wants(LogLevel level) const {
  return logger_->should_log(ToSpdlog(level));
}

LogLevel Logger::SetLevel(LogLevel level) {
  const LogLevel before = FromSpdlog(logger_->level());
  logger_->set_level(ToSpdlog(level));
  return before;
}

}  // namespace piserve::server
