// SPDX-License-Identifier: Apache-2.0
#include "server/websocket/observation.h"

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/error.h"
#include "tests/server/websocket/packing.h"

namespace piserve::server::websocket {
namespace {

using packing::AlohaInfo;
using packing::Array;
using packing::Bin;
using packing::BytesOf;
using packing::Double;
using packing::Doubles;
using packing::DroidInfo;
using packing::Grey;
using packing::GreyPlanes;
using packing::Int;
using packing::LiberoInfo;
using packing::LiberoMessage;
using packing::ListOf;
using packing::MapOf;
using packing::Pairs;
using packing::Str;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;

absl::StatusOr<InferenceRequest> Read(const v1::PolicyInfo& info,
                                      std::string message) {
  const auto reader = ObservationReader::Create(info);
  EXPECT_TRUE(reader.ok()) << reader.status();
  auto kept = std::make_shared<const std::string>(std::move(message));
  return reader->Read(*kept, kept);
}

void ExpectRefused(const v1::PolicyInfo& info, const std::string& message,
                   const char* field, const char* reason) {
  const absl::Status status = Read(info, message).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  EXPECT_EQ(FieldOf(status), field) << status;
  EXPECT_EQ(ReasonOf(status), reason) << status;
}

std::string DroidMessage(const std::string& gripper,
                         const std::string& prompt) {
  return MapOf(
      {{Str("observation/exterior_image_1_left"), Grey(4, 4, 1)},
       {Str("observation/wrist_image_left"), Grey(4, 4, 2)},
       {Str("observation/joint_position"), Doubles({1, 2, 3, 4, 5, 6, 7})},
       {Str("observation/gripper_position"), gripper},
       {Str("prompt"), prompt}});
}

std::string AlohaMessage(const Pairs& images) {
  return MapOf({{Str("state"), Doubles(std::vector<double>(14, 0.5))},
                {Str("images"), MapOf(images)}});
}

TEST(ObservationReaderTest, LiberoIsReadWithoutACopy) {
  const auto message = std::make_shared<const std::string>(LiberoMessage());
  const auto request =
      ObservationReader::Create(LiberoInfo())->Read(*message, message);
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(request->policy, "fake");
  EXPECT_EQ(request->bytes, message->size());
  EXPECT_EQ(request->observation.prompt, "pick up the block");
  EXPECT_THAT(request->observation.state, ElementsAre(0, 1, 2, 3, 4, 5, 6, 7));
  ASSERT_THAT(request->observation.images, SizeIs(2));
  const ImageView& base = request->observation.images[0];
  EXPECT_EQ(base.name, "observation/image");
  EXPECT_EQ(base.encoding, ImageEncoding::kRgb8);
  EXPECT_EQ(base.height, 4);
  EXPECT_EQ(base.width, 5);
  EXPECT_GT(base.data.data(), message->data());
  EXPECT_LT(base.data.data(), message->data() + message->size());
}

TEST(ObservationReaderTest, ARequestOutlivesItsReaderAndKeepsTheMessage) {
  absl::StatusOr<InferenceRequest> request =
      Read(LiberoInfo(), LiberoMessage());
  ASSERT_TRUE(request.ok());
  EXPECT_EQ(request->observation.images[1].name, "observation/wrist_image");
  EXPECT_THAT(request->observation.images[1].data, Each('\7'));
}

TEST(ObservationReaderTest, UnusedKeysAreDropped) {
  const std::string extra = LiberoMessage("noise", Doubles({1, 2, 3}));
  const auto request = Read(LiberoInfo(), extra);
  ASSERT_TRUE(request.ok());
  EXPECT_TRUE(std::holds_alternative<std::monostate>(request->start));
  EXPECT_TRUE(Read(LiberoInfo(), LiberoMessage("x", ListOf({Str("y")}))).ok());
}

TEST(ObservationReaderTest, WhatIsMissingIsNamed) {
  ExpectRefused(LiberoInfo(), LiberoMessage("observation/image"),
                "observation/image", "CAMERA_MISSING");
  ExpectRefused(LiberoInfo(), LiberoMessage("observation/state"),
                "observation/state", "KEY_MISSING");
  const absl::Status status =
      Read(LiberoInfo(), LiberoMessage("observation/state")).status();
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("observation/image, observation/wrist_image, prompt"));
}

TEST(ObservationReaderTest, AStateOfAnotherShapeIsRefused) {
  const char* key = "observation/state";
  const auto with = [&](const std::string& state) {
    return LiberoMessage(key, state);
  };
  ExpectRefused(LiberoInfo(), with(Doubles({1, 2})), key, "STATE_LENGTH");
  ExpectRefused(LiberoInfo(), with(Array("<f8", {1, 8}, std::string(64, '\0'))),
                key, "STATE_LENGTH");
  ExpectRefused(LiberoInfo(), with(Double(1)), key, "STATE_LENGTH");
  ExpectRefused(LiberoInfo(), with(Doubles(std::vector<double>(2000))), key,
                "STATE_LENGTH");
  ExpectRefused(LiberoInfo(), with(Str("12345678")), key, "STATE_TYPE");
  EXPECT_TRUE(
      Read(LiberoInfo(), with(ListOf(std::vector<std::string>(8, Int(1)))))
          .ok());
}

TEST(ObservationReaderTest, AnImageOfAnotherKindIsRefused) {
  const char* key = "observation/image";
  ExpectRefused(LiberoInfo(), LiberoMessage(key, Str("x")), key, "IMAGE_TYPE");
  ExpectRefused(LiberoInfo(), LiberoMessage(key, "\xc0"), key, "IMAGE_TYPE");
  ExpectRefused(LiberoInfo(), LiberoMessage(key, Bin("GIF89a")), key,
                "IMAGE_TYPE");
  ExpectRefused(LiberoInfo(), LiberoMessage(key, Array("|u1", {4}, "abcd")),
                key, "IMAGE_SHAPE");
  ExpectRefused(
      LiberoInfo(),
      LiberoMessage(key, Array("<f8", {1, 1, 3}, BytesOf<double>({0, 0, 2}))),
      key, "IMAGE_RANGE");
}

TEST(ObservationReaderTest, PictureFilesGoAsTheyAre) {
  const auto jpeg = Read(
      LiberoInfo(), LiberoMessage("observation/image", Bin("\xff\xd8rest")));
  ASSERT_TRUE(jpeg.ok()) << jpeg.status();
  EXPECT_EQ(jpeg->observation.images[0].encoding, ImageEncoding::kJpeg);
  EXPECT_EQ(jpeg->observation.images[0].data, "\xff\xd8rest");
  EXPECT_EQ(jpeg->observation.images[0].width, 0);
  const auto png =
      Read(LiberoInfo(), LiberoMessage("observation/image", Bin("\x89PNGx")));
  ASSERT_TRUE(png.ok());
  EXPECT_EQ(png->observation.images[0].encoding, ImageEncoding::kPng);
}

TEST(ObservationReaderTest, APromptIsStrOrAnArrayOfOneText) {
  const auto prompt_of = [](const std::string& value) {
    return Read(LiberoInfo(), LiberoMessage("prompt", value));
  };
  const std::string text = BytesOf<std::uint32_t>({'g', 'o', 0});
  EXPECT_EQ(prompt_of(Array("<U3", {}, text))->observation.prompt, "go");
  EXPECT_EQ(prompt_of(Array("<U3", {1}, text))->observation.prompt, "go");
  EXPECT_EQ(prompt_of(Str(""))->observation.prompt, "");
  EXPECT_EQ(Read(LiberoInfo(), LiberoMessage("prompt"))->observation.prompt,
            std::nullopt);
  for (const std::string& value :
       {std::string("\xc0"), Int(1), Bin("go"), ListOf({Str("go")})}) {
    ExpectRefused(LiberoInfo(), LiberoMessage("prompt", value), "prompt",
                  "PROMPT_TYPE");
  }
  ExpectRefused(LiberoInfo(), LiberoMessage("prompt", Array("<U1", {3}, text)),
                "prompt", "TEXT_TYPE");
}

TEST(ObservationReaderTest, DroidsStateIsJointsAndGripper) {
  for (const std::string& gripper :
       {Doubles({0.25}), Array("<f8", {}, BytesOf<double>({0.25})),
        Double(0.25), ListOf({Double(0.25)})}) {
    const auto request = Read(DroidInfo(), DroidMessage(gripper, Str("go")));
    ASSERT_TRUE(request.ok()) << request.status();
    EXPECT_THAT(request->observation.state,
                ElementsAre(1, 2, 3, 4, 5, 6, 7, 0.25));
  }
  EXPECT_EQ(
      Read(DroidInfo(), DroidMessage(Double(0), Bin("go")))->observation.prompt,
      "go");
}

TEST(ObservationReaderTest, DroidsGripperIsOneNumber) {
  const char* key = "observation/gripper_position";
  ExpectRefused(DroidInfo(), DroidMessage(Doubles({1, 2}), Str("go")), key,
                "STATE_LENGTH");
  ExpectRefused(
      DroidInfo(),
      DroidMessage(Array("<f8", {1, 1}, std::string(8, '\0')), Str("go")), key,
      "STATE_LENGTH");
  ExpectRefused(DroidInfo(), DroidMessage("\xc3", Str("go")), key,
                "STATE_TYPE");
}

TEST(ObservationReaderTest, DroidsJointsAreSeven) {
  std::string message = DroidMessage(Double(0), Str("go"));
  const auto at = message.find(Doubles({1, 2, 3, 4, 5, 6, 7}));
  message.replace(at, Doubles({1, 2, 3, 4, 5, 6, 7}).size(), Doubles({1}));
  ExpectRefused(DroidInfo(), message, "observation/joint_position",
                "STATE_LENGTH");
}

TEST(ObservationReaderTest, AlohasCamerasArePlanesAndLowIsDropped) {
  const auto request = Read(
      AlohaInfo(), AlohaMessage({{Str("cam_low"), Str("not looked at")},
                                 {Str("cam_right_wrist"), GreyPlanes(2, 4)},
                                 {Str("cam_high"), GreyPlanes(4, 2)}}));
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(request->observation.prompt, std::nullopt);
  ASSERT_THAT(request->observation.images, SizeIs(2));
  EXPECT_EQ(request->observation.images[0].name, "cam_high");
  EXPECT_EQ(request->observation.images[0].height, 4);
  EXPECT_EQ(request->observation.images[1].name, "cam_right_wrist");
  EXPECT_EQ(request->observation.images[1].width, 4);
  EXPECT_THAT(request->observation.state, SizeIs(14));
}

TEST(ObservationReaderTest, AlohasImagesAreAMapOfKnownCameras) {
  ExpectRefused(AlohaInfo(), AlohaMessage({}), "images/cam_high",
                "CAMERA_MISSING");
  ExpectRefused(AlohaInfo(),
                AlohaMessage({{Str("cam_high"), GreyPlanes(2, 2)},
                              {Str("cam\n"), GreyPlanes(2, 2)}}),
                "images/cam\\n", "CAMERA_UNKNOWN");
  ExpectRefused(AlohaInfo(),
                AlohaMessage({{Bin("cam_high"), GreyPlanes(2, 2)}}),
                "images/cam_high", "CAMERA_UNKNOWN");
  ExpectRefused(AlohaInfo(), AlohaMessage({{Str("cam_high"), Grey(4, 4)}}),
                "images/cam_high", "IMAGE_SHAPE");
  ExpectRefused(AlohaInfo(), MapOf({{Str("images"), GreyPlanes(2, 2)}}),
                "images", "IMAGE_TYPE");
  ExpectRefused(AlohaInfo(), MapOf({}), "images", "KEY_MISSING");
}

TEST(ObservationReaderTest, APolicyOfAnotherRobotIsRefused) {
  const auto reader = ObservationReader::Create(
      packing::InfoOf({{"head", v1::CAMERA_USE_REQUIRED}}, {3}));
  EXPECT_EQ(reader.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(ReasonOf(reader.status()), "ROBOT_UNKNOWN");
}

}  // namespace
}  // namespace piserve::server::websocket
