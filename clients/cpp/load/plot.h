// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "clients/cpp/load/load_run.h"

namespace piserve::load {

// The gnuplot program that draws `result` to the PNG `path`, data included: the
// distribution of latency above, latency over time below, errors as crosses.
std::string PlotScript(const LoadResult& result, const std::string& title,
                       absl::Duration warmup, const std::string& path);

// Runs gnuplot on `script`. NOT_FOUND, with the package to install, if there is
// none; INTERNAL if it fails.
absl::Status RunGnuplot(const std::string& script);

}  // namespace piserve::load
