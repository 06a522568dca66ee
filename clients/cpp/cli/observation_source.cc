// SPDX-License-Identifier: Apache-2.0
#include "clients/cpp/cli/observation_source.h"

#include <algorithm>
#include <cstring>
#include <fstream>
#include <sstream>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "clients/cpp/piserve/observation_check.h"

namespace piserve::client {
namespace {

constexpr char kFallbackPrompt[] = "do something";

absl::Status BadImage(absl::string_view argument) {
  return absl::InvalidArgumentError(
      absl::StrCat("--image: got '", argument,
                   "', want NAME=FILE of a JPEG or PNG, or "
                   "NAME=FILE@WIDTHxHEIGHT of raw RGB8"));
}

// Takes "@WIDTHxHEIGHT" off the end of `path`, if it is there.
bool TakeSize(std::string* path, ImageIn* image) {
  const std::size_t at = path->rfind('@');
  if (at == std::string::npos) return false;
  const std::vector<std::string> sides =
      absl::StrSplit(path->substr(at + 1), 'x');
  if (sides.size() != 2 || !absl::SimpleAtoi(sides[0], &image->width) ||
      !absl::SimpleAtoi(sides[1], &image->height)) {
    return false;
  }
  path->resize(at);
  return true;
}

absl::StatusOr<std::vector<double>> ParseState(
    const std::vector<std::string>& words, int size) {
  std::vector<double> state;
  for (const std::string& word : words) {
    double value = 0;
    if (!absl::SimpleAtod(word, &value)) {
      return absl::InvalidArgumentError(
          absl::StrCat("--state: got '", word, "', want a number"));
    }
    state.push_back(value);
  }
  if (state.empty()) state.resize(size);
  return state;
}

}  // namespace

absl::StatusOr<std::string> ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    return absl::NotFoundError(absl::StrCat(path, ": ", std::strerror(errno)));
  }
  std::ostringstream content;
  file >> content.rdbuf();
  if (!file.eof()) {  // a folder, say
    return absl::InternalError(absl::StrCat(path, ": cannot be read"));
  }
  return std::move(content).str();
}

absl::StatusOr<ImageIn> ReadImage(absl::string_view argument) {
  const std::vector<std::string> parts =
      absl::StrSplit(argument, absl::MaxSplits('=', 1));
  if (parts.size() != 2) return BadImage(argument);
  ImageIn image;
  image.name = parts[0];
  std::string path = parts[1];
  const bool raw = TakeSize(&path, &image);
  auto data = ReadFile(path);
  if (!data.ok()) return data.status();
  if (raw) {
    image.encoding = v1::IMAGE_ENCODING_RGB8;
  } else if (absl::StartsWith(*data, "\xff\xd8\xff")) {
    image.encoding = v1::IMAGE_ENCODING_JPEG;
  } else if (absl::StartsWith(*data, "\x89PNG\r\n")) {
    image.encoding = v1::IMAGE_ENCODING_PNG;
  } else {
    return BadImage(argument);
  }
  image.data = *std::move(data);
  return image;
}

ImageIn TestPattern(const std::string& name, int width, int height,
                    std::uint64_t variation) {
  ImageIn image;
  image.name = name;
  image.width = width;
  image.height = height;
  std::string pixels;
  pixels.reserve(static_cast<std::size_t>(3) * width * height);
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) {
      pixels.push_back(static_cast<char>(x + 37 * variation));
      pixels.push_back(static_cast<char>(y + 101 * variation));
      pixels.push_back(static_cast<char>((x ^ y) + (variation >> 8)));
    }
  }
  image.data = std::move(pixels);
  return image;
}

absl::StatusOr<Noise> ReadNoise(const std::string& path,
                                const v1::PolicyInfo& info) {
  const auto data = ReadFile(path);
  if (!data.ok()) return data.status();
  Noise noise;
  noise.horizon = info.noise_shape_size() > 0 ? info.noise_shape(0) : 0;
  noise.action_dim = info.noise_shape_size() > 1 ? info.noise_shape(1) : 0;
  noise.values.resize(static_cast<std::size_t>(noise.horizon) *
                      noise.action_dim);
  const std::size_t want = noise.values.size() * sizeof(float);
  if (data->size() != want) {
    return absl::InvalidArgumentError(absl::StrCat(
        path, ": got ", data->size(), " bytes, want ", want, " (float32 [",
        noise.horizon, ", ", noise.action_dim, "])"));
  }
  std::memcpy(noise.values.data(), data->data(), want);
  return noise;
}

absl::StatusOr<ObservationIn> MakeObservation(const v1::PolicyInfo& info,
                                              const ObservationSpec& spec) {
  ObservationIn observation;
  observation.policy = info.name();
  observation.prompt = spec.prompt;
  if (!spec.prompt.has_value() && !info.has_default_prompt()) {
    observation.prompt = kFallbackPrompt;
  }
  auto state = ParseState(spec.state, StateSize(info));
  if (!state.ok()) return state.status();
  observation.state = *std::move(state);
  for (const std::string& argument : spec.images) {
    auto image = ReadImage(argument);
    if (!image.ok()) return image.status();
    observation.images.push_back(*std::move(image));
  }
  std::uint64_t variation = 16 * spec.variation;
  for (const v1::Camera& camera : info.cameras()) {
    ++variation;
    const bool given = std::any_of(
        observation.images.begin(), observation.images.end(),
        [&](const ImageIn& image) { return image.name == camera.name(); });
    if (given || camera.use() == v1::CAMERA_USE_IGNORED) continue;
    observation.images.push_back(TestPattern(camera.name(), spec.pattern_width,
                                             spec.pattern_height, variation));
  }
  return observation;
}

}  // namespace piserve::client
