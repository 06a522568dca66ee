// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "clients/cpp/piserve/observation.h"
#include "piserve/v1/policy.pb.h"

namespace piserve::client {

// The whole file. NOT_FOUND or INTERNAL with its name.
absl::StatusOr<std::string> ReadFile(const std::string& path);

// Reads `NAME=FILE`: JPEG and PNG, told by their first bytes, are sent as they
// are. `NAME=FILE@WIDTHxHEIGHT` is raw RGB8.
absl::StatusOr<ImageIn> ReadImage(absl::string_view argument);

// RGB8 of moving colour bands; different for every `variation`, equal for equal
// arguments.
ImageIn TestPattern(const std::string& name, int width, int height,
                    std::uint64_t variation);

// Noise of the policy's shape from a file of little-endian float32.
// INVALID_ARGUMENT if its size does not fit.
absl::StatusOr<Noise> ReadNoise(const std::string& path,
                                const v1::PolicyInfo& info);

struct ObservationSpec {
  std::vector<std::string> images;    // as ReadImage takes them
  std::vector<std::string> state;     // numbers; empty: zeros
  std::optional<std::string> prompt;  // absent: the default one
  int pattern_width = 224;            // px, for cameras without a file
  int pattern_height = 224;
  std::uint64_t variation = 0;  // of the test patterns
};

// An observation that fits `info`: the files of `spec`, and a test pattern for
// every other camera the policy takes (in the order of `info`). A policy
// without a default prompt gets "do something" where `spec` has none.
absl::StatusOr<ObservationIn> MakeObservation(const v1::PolicyInfo& info,
                                              const ObservationSpec& spec);

}  // namespace piserve::client
