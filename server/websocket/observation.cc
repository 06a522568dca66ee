// SPDX-License-Identifier: Apache-2.0
#include "server/websocket/observation.h"

#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "model/error.h"
#include "server/websocket/msgpack_codec.h"
#include "server/websocket/ndarray.h"

namespace piserve::server::websocket {
namespace {

constexpr char kLiberoCamera[] = "observation/image";
constexpr char kDroidCamera[] = "observation/exterior_image_1_left";
constexpr char kAlohaCamera[] = "cam_high";
constexpr char kLiberoState[] = "observation/state";
constexpr char kAlohaState[] = "state";
constexpr char kDroidJoints[] = "observation/joint_position";
constexpr char kDroidGripper[] = "observation/gripper_position";
constexpr char kAlohaImages[] = "images";

// More than any robot has.
constexpr std::size_t kMaxNumbers = 1024;

absl::StatusOr<const Value*> Need(const Map& map, const char* key) {
  if (const Value* value = Find(map, key)) return value;
  return InvalidField(
      key, "KEY_MISSING",
      absl::StrCat(
          "missing, got the keys ",
          absl::StrJoin(map, ", ", [](std::string* out, const Entry& entry) {
            out->append(ShownKey(entry.key));
          })));
}

absl::Status WrongLength(absl::string_view key,
                         const std::vector<std::size_t>& shape,
                         std::size_t want) {
  return InvalidField(key, "STATE_LENGTH",
                      absl::StrCat("got shape [", absl::StrJoin(shape, ", "),
                                   "], want [", want, "]"));
}

absl::StatusOr<Numbers> NeedNumbers(const Map& map, const char* key) {
  const auto value = Need(map, key);
  if (!value.ok()) return value.status();
  return ToNumbers(**value, kMaxNumbers, key);
}

// Bytes of a picture file, an addition to openpi, go as they are.
absl::StatusOr<ImageView> EncodedImage(std::string_view bytes,
                                       absl::string_view field) {
  const absl::string_view start(bytes.data(), bytes.size());
  ImageView view;
  view.data = bytes;
  if (absl::StartsWith(start, "\xff\xd8")) {
    view.encoding = ImageEncoding::kJpeg;
    return view;
  }
  if (absl::StartsWith(start, "\x89PNG")) {
    view.encoding = ImageEncoding::kPng;
    return view;
  }
  return InvalidField(field, "IMAGE_TYPE",
                      "got bytes that are neither JPEG nor PNG");
}

// `converted` keeps what had to be converted.
absl::StatusOr<ImageView> ReadImage(
    const Value& value, Layout layout, const std::string& field,
    std::vector<std::vector<std::uint8_t>>& converted) {
  if (const auto* bytes = std::get_if<Bytes>(&value.of)) {
    return EncodedImage(bytes->bytes, field);
  }
  const auto* array = std::get_if<NdArray>(&value.of);
  if (array == nullptr) {
    return InvalidField(
        field, "IMAGE_TYPE",
        absl::StrCat("got ", Describe(value), ", want an array"));
  }
  auto pixels = ToPixels(*array, layout, field);
  if (!pixels.ok()) return pixels.status();
  converted.push_back(std::move(pixels->converted));
  ImageView view;
  view.width = pixels->width;
  view.height = pixels->height;
  view.data = pixels->data;
  return view;
}

absl::Status BadPrompt(const Value& value) {
  return InvalidField("prompt", "PROMPT_TYPE",
                      absl::StrCat("got ", Describe(value),
                                   ", want str, or no such key for the "
                                   "policy's default"));
}

}  // namespace

// What a request borrows beside the message.
struct ObservationReader::Storage {
  std::shared_ptr<const void> message;
  std::shared_ptr<const v1::PolicyInfo> info;
  std::vector<std::vector<std::uint8_t>> images;
  std::string prompt;
};

absl::StatusOr<ObservationReader> ObservationReader::Create(
    const v1::PolicyInfo& info) {
  for (const v1::Camera& camera : info.cameras()) {
    for (const auto& [name, robot] : {std::pair{kLiberoCamera, Robot::kLibero},
                                      {kDroidCamera, Robot::kDroid},
                                      {kAlohaCamera, Robot::kAloha}}) {
      if (camera.name() == name) return ObservationReader(info, robot);
    }
  }
  return WithReason(
      absl::FailedPreconditionError(absl::StrCat(
          "policy ", info.name(),
          ": its cameras are none of LIBERO's, DROID's or ALOHA's")),
      "ROBOT_UNKNOWN");
}

ObservationReader::ObservationReader(const v1::PolicyInfo& info, Robot robot)
    : info_(std::make_shared<const v1::PolicyInfo>(info)),
      robot_(robot),
      state_dim_(0) {
  for (const v1::Block& block : info_->state()) state_dim_ += block.size();
}

absl::StatusOr<InferenceRequest> ObservationReader::Read(
    std::string_view message, std::shared_ptr<const void> storage) const {
  const absl::StatusOr<Map> map = DecodeMap(message);
  if (!map.ok()) return map.status();
  auto own = std::make_shared<Storage>();
  own->message = std::move(storage);
  own->info = info_;
  InferenceRequest request;
  request.policy = info_->name();
  if (absl::Status s = ReadImages(*map, *own, request.observation); !s.ok()) {
    return s;
  }
  auto state = robot_ == Robot::kDroid ? ReadDroidState(*map) : ReadState(*map);
  if (!state.ok()) return state.status();
  request.observation.state = *std::move(state);
  if (absl::Status s = ReadPrompt(*map, *own, request.observation); !s.ok()) {
    return s;
  }
  request.bytes = message.size();
  for (const auto& image : own->images) request.bytes += image.size();
  request.storage = std::move(own);
  return request;
}

absl::StatusOr<std::vector<double>> ObservationReader::ReadState(
    const Map& map) const {
  const char* key = robot_ == Robot::kAloha ? kAlohaState : kLiberoState;
  auto numbers = NeedNumbers(map, key);
  if (!numbers.ok()) return numbers.status();
  if (numbers->shape != std::vector<std::size_t>{state_dim_}) {
    return WrongLength(key, numbers->shape, state_dim_);
  }
  return std::move(numbers->values);
}

absl::StatusOr<std::vector<double>> ObservationReader::ReadDroidState(
    const Map& map) const {
  auto joints = NeedNumbers(map, kDroidJoints);
  if (!joints.ok()) return joints.status();
  const auto gripper = NeedNumbers(map, kDroidGripper);
  if (!gripper.ok()) return gripper.status();
  if (joints->shape != std::vector<std::size_t>{state_dim_ - 1}) {
    return WrongLength(kDroidJoints, joints->shape, state_dim_ - 1);
  }
  if (gripper->shape.size() > 1 || gripper->values.size() != 1) {
    return WrongLength(kDroidGripper, gripper->shape, 1);
  }
  joints->values.push_back(gripper->values.front());
  return std::move(joints->values);
}

absl::Status ObservationReader::ReadPrompt(const Map& map, Storage& storage,
                                           Observation& out) const {
  const Value* value = Find(map, "prompt");
  if (value == nullptr) return absl::OkStatus();
  if (const auto* text = std::get_if<std::string_view>(&value->of)) {
    out.prompt = *text;
    return absl::OkStatus();
  }
  const auto* bytes = std::get_if<Bytes>(&value->of);
  if (bytes != nullptr && robot_ == Robot::kDroid) {
    out.prompt = bytes->bytes;
    return absl::OkStatus();
  }
  const auto* array = std::get_if<NdArray>(&value->of);
  if (array == nullptr) return BadPrompt(*value);
  auto text = ToText(*array, "prompt");
  if (!text.ok()) return text.status();
  storage.prompt = *std::move(text);
  out.prompt = storage.prompt;
  return absl::OkStatus();
}

absl::Status ObservationReader::CheckCameraNames(const Map& images) const {
  for (const Entry& entry : images) {
    const bool known =
        entry.kind == KeyKind::kText &&
        std::any_of(info_->cameras().begin(), info_->cameras().end(),
                    [&](const v1::Camera& camera) {
                      return camera.name() == entry.key;
                    });
    if (known) continue;
    return InvalidField(
        absl::StrCat(kAlohaImages, "/", ShownKey(entry.key)), "CAMERA_UNKNOWN",
        absl::StrCat("no such camera, want one of ",
                     absl::StrJoin(info_->cameras(), ", ",
                                   [](std::string* out, const auto& camera) {
                                     out->append(camera.name());
                                   })));
  }
  return absl::OkStatus();
}

absl::Status ObservationReader::ReadImages(const Map& map, Storage& storage,
                                           Observation& out) const {
  const Map* images = &map;
  std::string prefix;
  if (robot_ == Robot::kAloha) {
    const auto value = Need(map, kAlohaImages);
    if (!value.ok()) return value.status();
    images = std::get_if<Map>(&(*value)->of);
    if (images == nullptr) {
      return InvalidField(
          kAlohaImages, "IMAGE_TYPE",
          absl::StrCat("got ", Describe(**value), ", want a map of cameras"));
    }
    if (absl::Status s = CheckCameraNames(*images); !s.ok()) return s;
    prefix = absl::StrCat(kAlohaImages, "/");
  }
  const Layout layout =
      robot_ == Robot::kAloha ? Layout::kChw : Layout::kHwcOrChw;
  for (const v1::Camera& camera : info_->cameras()) {
    const std::string field = prefix + camera.name();
    const Value* value = Find(*images, camera.name());
    if (value == nullptr && camera.use() == v1::CAMERA_USE_REQUIRED) {
      return InvalidField(field, "CAMERA_MISSING",
                          "a required camera is missing");
    }
    if (value == nullptr || camera.use() == v1::CAMERA_USE_IGNORED) continue;
    auto image = ReadImage(*value, layout, field, storage.images);
    if (!image.ok()) return image.status();
    image->name = camera.name();
    out.images.push_back(*image);
  }
  return absl::OkStatus();
}

}  // namespace piserve::server::websocket
