// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "server/dispatch_observer.h"
#include "server/logging.h"

namespace piserve::server {

// Writes a line for each answer and each fault, and passes everything on.
// Answers with actions are told at debug level, the server's own failures at
// error, everything else at info.
class RequestLog : public DispatchObserver {
 public:
  // Both are borrowed and outlive it.
  RequestLog(Logger& log, DispatchObserver& next) : log_(log), next_(next) {}

  void OnAnswer(const Answer& answer) override;
  void OnWave(const WaveReport& report) override { next_.OnWave(report); }
  void OnFault(std::string_view device, FaultKind kind) override;

 private:
  Logger& log_;
  DispatchObserver& next_;
};

}  // namespace piserve::server
