// SPDX-License-Identifier: Apache-2.0
#include "clients/cpp/cli/recorded.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <limits>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "clients/cpp/cli/observation_source.h"
#include "piserve/v1/recording.pb.h"

namespace piserve::client {
namespace {

namespace fs = std::filesystem;

std::vector<float> Floats(const v1::Array& array) {
  std::vector<float> values(array.data().size() / sizeof(float));
  std::memcpy(values.data(), array.data().data(),
              values.size() * sizeof(float));
  return values;
}

Noise ToNoise(const v1::Array& array) {
  Noise noise;
  if (array.shape_size() == 2) {
    noise.horizon = static_cast<int>(array.shape(0));
    noise.action_dim = static_cast<int>(array.shape(1));
  }
  noise.values = Floats(array);
  return noise;
}

ObservationIn ToObservation(const v1::ObservationRequest& from) {
  ObservationIn to;
  to.policy = from.policy();
  to.request_id = from.request_id();
  to.robot_id = from.robot_id();
  to.episode_id = from.episode_id();
  to.request_class = from.class_();
  if (from.has_prompt()) to.prompt = from.prompt();
  to.state.assign(from.state().begin(), from.state().end());
  for (const v1::Image& image : from.images()) {
    to.images.push_back({.name = image.name(),
                         .encoding = image.encoding(),
                         .width = static_cast<int>(image.width()),
                         .height = static_cast<int>(image.height()),
                         .data = image.data()});
  }
  if (from.has_noise()) to.start = ToNoise(from.noise());
  if (from.has_seed()) to.start = std::uint64_t{from.seed()};
  if (from.has_num_steps()) to.num_steps = from.num_steps();
  return to;
}

absl::StatusOr<RecordedCall> ReadOne(const std::string& path) {
  const auto bytes = ReadFile(path);
  if (!bytes.ok()) return bytes.status();
  v1::Recording recording;
  if (!recording.ParseFromString(*bytes) || !recording.has_observation()) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": want a recording of a piserve server"));
  }
  RecordedCall call;
  call.file = path;
  call.observation = ToObservation(recording.observation());
  if (recording.has_result()) {
    call.actions = Floats(recording.result().actions());
    call.model_digest = recording.result().model_digest();
  }
  return call;
}

}  // namespace

absl::StatusOr<std::vector<RecordedCall>> ReadRecordings(
    const std::string& path) {
  std::vector<std::string> files;
  std::error_code error;
  if (!fs::is_directory(path, error)) {
    files.push_back(path);
  } else {
    for (const auto& entry : fs::directory_iterator(path, error)) {
      if (entry.path().extension() == ".rec") files.push_back(entry.path());
    }
    std::sort(files.begin(), files.end());
  }
  if (files.empty()) {
    return absl::NotFoundError(absl::StrCat(path, ": got no .rec file"));
  }
  std::vector<RecordedCall> calls;
  for (const std::string& file : files) {
    auto call = ReadOne(file);
    if (!call.ok()) return call.status();
    calls.push_back(*std::move(call));
  }
  return calls;
}

double LargestDifference(const std::vector<float>& recorded,
                         const ActionChunk& chunk) {
  if (recorded.size() != chunk.values.size()) {
    return std::numeric_limits<double>::infinity();
  }
  double largest = 0;
  for (std::size_t i = 0; i < recorded.size(); ++i) {
    const double difference = std::abs(recorded[i] - chunk.values[i]);
    if (std::isnan(difference)) return std::numeric_limits<double>::infinity();
    largest = std::max(largest, difference);
  }
  return largest;
}

}  // namespace piserve::client
