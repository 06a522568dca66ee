// SPDX-License-Identifier: Apache-2.0
#include "clients/cpp/cli/observation_source.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "clients/cpp/piserve/observation_check.h"
#include "tests/clients/cpp/fake_service.h"

namespace piserve::client {
namespace {

using ::testing::ElementsAre;

std::string Write(const std::string& name, const std::string& content) {
  const std::string path =
      (std::filesystem::path(::testing::TempDir()) / name).string();
  std::ofstream(path, std::ios::binary) << content;
  return path;
}

ObservationSpec WithVariation(std::uint64_t variation) {
  ObservationSpec spec;
  spec.variation = variation;
  return spec;
}

ObservationSpec WithPrompt(const std::string& prompt) {
  ObservationSpec spec;
  spec.prompt = prompt;
  return spec;
}

TEST(ReadImage, ToldByFirstBytesAndSentAsItIs) {
  const std::string jpeg("\xff\xd8\xff\xe0 and so on");
  const auto image = ReadImage("base=" + Write("x.png", jpeg));
  ASSERT_TRUE(image.ok()) << image.status();
  EXPECT_EQ(image->name, "base");
  EXPECT_EQ(image->encoding, v1::IMAGE_ENCODING_JPEG);
  EXPECT_EQ(image->data.str(), jpeg);
  EXPECT_EQ(ReadImage("b=" + Write("y", "\x89PNG\r\n\x1a\n"))->encoding,
            v1::IMAGE_ENCODING_PNG);
}

TEST(ReadImage, RawNeedsItsSize) {
  const std::string path = Write("raw", "abcdef");
  const auto image = ReadImage("base=" + path + "@2x1");
  ASSERT_TRUE(image.ok()) << image.status();
  EXPECT_EQ(image->encoding, v1::IMAGE_ENCODING_RGB8);
  EXPECT_EQ(image->width, 2);
  EXPECT_EQ(image->height, 1);
  EXPECT_TRUE(absl::IsInvalidArgument(ReadImage("base=" + path).status()));
}

TEST(ReadImage, MissingFilesAndNamesAreToldApart) {
  EXPECT_TRUE(absl::IsNotFound(ReadImage("base=/nowhere/x").status()));
  EXPECT_TRUE(absl::IsInvalidArgument(ReadImage("x.jpg").status()));
}

TEST(ReadFile, AFolderIsNoEmptyFile) {
  EXPECT_TRUE(absl::IsInternal(ReadFile(::testing::TempDir()).status()));
  EXPECT_EQ(*ReadFile(Write("empty", "")), "");
}

TEST(ReadNoise, MustHaveThePolicysShape) {
  v1::PolicyInfo info;
  info.add_noise_shape(1);
  info.add_noise_shape(2);
  const auto noise =
      ReadNoise(Write("n", std::string("\0\0\0\x3f\0\0\x80\xbf", 8)), info);
  ASSERT_TRUE(noise.ok()) << noise.status();
  EXPECT_THAT(noise->values, ElementsAre(0.5f, -1.0f));
  EXPECT_TRUE(
      absl::IsInvalidArgument(ReadNoise(Write("m", "1234567"), info).status()));
}

TEST(MakeObservation, FitsThePolicy) {
  FakeService service;
  auto observation = MakeObservation(service.info, {});
  ASSERT_TRUE(observation.ok()) << observation.status();
  EXPECT_TRUE(CheckObservation(*observation, service.info).ok());
  EXPECT_EQ(observation->images.size(), 2u);
  EXPECT_EQ(observation->images[0].data.size(), 224u * 224 * 3);
  EXPECT_TRUE(observation->prompt.has_value());
}

TEST(MakeObservation, PatternsDifferByCameraAndVariation) {
  FakeService service;
  const auto one = *MakeObservation(service.info, {});
  const auto two = *MakeObservation(service.info, WithVariation(1));
  EXPECT_NE(one.images[0].data.str(), one.images[1].data.str());
  EXPECT_NE(one.images[0].data.str(), two.images[0].data.str());
  EXPECT_NE(one.images[1].data.str(), two.images[0].data.str());
}

TEST(MakeObservation, ADefaultPromptIsLeftToThePolicy) {
  FakeService service;
  service.info.set_default_prompt("fold the towel");
  EXPECT_FALSE(MakeObservation(service.info, {})->prompt.has_value());
  EXPECT_EQ(MakeObservation(service.info, WithPrompt(""))->prompt, "");
}

TEST(MakeObservation, StateMustBeNumbers) {
  FakeService service;
  ObservationSpec spec;
  spec.state = {"1", "-2.5", "3e-1"};
  EXPECT_THAT(MakeObservation(service.info, spec)->state,
              ElementsAre(1, -2.5, 0.3));
  spec.state = {"one"};
  EXPECT_TRUE(
      absl::IsInvalidArgument(MakeObservation(service.info, spec).status()));
}

}  // namespace
}  // namespace piserve::client
