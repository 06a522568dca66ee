// SPDX-License-Identifier: Apache-2.0
#include "model/transform/pipeline.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <thread>

#include "model/error.h"
#include "tests/support/golden_policy.h"

namespace piserve::transform {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

std::unique_ptr<const Tokenizer> TinyTokenizer() {
  return *Tokenizer::Load(test::GoldenPath("tokenizer/tiny.model"));
}

// A pipeline of one golden policy, and an observation of its that is fine.
class PipelineTest : public testing::Test {
 protected:
  explicit PipelineTest(const std::string& policy = "pi0_aloha_towel",
                        PipelineOptions options = {})
      : golden_(policy),
        pipeline_(*Pipeline::Create(golden_.config(), golden_.variant(),
                                    golden_.stats(), TinyTokenizer(), options)),
        owner_(golden_.observation(0)),
        observation_(owner_.view()) {}

  // Expects a refusal of `observation_` that Validate already gives.
  void ExpectInvalid(const std::string& field, const std::string& reason) {
    for (const absl::Status& status :
         {pipeline_->Validate(observation_),
          pipeline_->Prepare(observation_).status()}) {
      EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
      EXPECT_EQ(FieldOf(status), field) << status;
      EXPECT_EQ(ReasonOf(status), reason) << status;
    }
  }

  ImageView& Camera(std::string_view name) {
    for (ImageView& image : observation_.images) {
      if (image.name == name) return image;
    }
    throw std::runtime_error("no such camera");
  }

  std::string FieldOfCamera(std::string_view name) {
    const auto index = &Camera(name) - observation_.images.data();
    return "images[" + std::to_string(index) + "]";
  }

  void Drop(std::string_view name) {
    std::erase_if(observation_.images,
                  [name](const ImageView& i) { return i.name == name; });
  }

  const test::GoldenPolicy golden_;
  const std::unique_ptr<Pipeline> pipeline_;
  const test::GoldenObservation owner_;
  Observation observation_;
};

TEST_F(PipelineTest, TheGoldenObservationIsValid) {
  EXPECT_TRUE(pipeline_->Validate(observation_).ok());
}

TEST_F(PipelineTest, AStateOfTheWrongLengthIsRefused) {
  observation_.state.pop_back();
  ExpectInvalid("state", "STATE_LENGTH");
  observation_.state.clear();
  ExpectInvalid("state", "STATE_LENGTH");
  observation_.state.assign(32, 0.0);
  ExpectInvalid("state", "STATE_LENGTH");
}

TEST_F(PipelineTest, AStateThatIsNotFiniteIsRefused) {
  observation_.state[3] = kNaN;
  ExpectInvalid("state[3]", "STATE_NOT_FINITE");
  observation_.state[3] = -std::numeric_limits<double>::infinity();
  ExpectInvalid("state[3]", "STATE_NOT_FINITE");
}

TEST_F(PipelineTest, AStateThatFloat32CannotHoldIsRefused) {
  observation_.state[2] = 1e300;
  const absl::Status status = pipeline_->Prepare(observation_).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(FieldOf(status), "state[2]");
  EXPECT_EQ(ReasonOf(status), "STATE_OUT_OF_RANGE");
}

TEST_F(PipelineTest, AnUnknownCameraIsRefusedWithoutEchoingItsName) {
  Camera("cam_left_wrist").name = "<script>";
  const auto found = std::find_if(
      observation_.images.begin(), observation_.images.end(),
      [](const ImageView& image) { return image.name == "<script>"; });
  const auto index = found - observation_.images.begin();
  ExpectInvalid("images[" + std::to_string(index) + "].name", "CAMERA_UNKNOWN");
  EXPECT_EQ(pipeline_->Validate(observation_).message().find("script"),
            absl::string_view::npos);
}

TEST_F(PipelineTest, ADoubledCameraIsRefusedAlsoIfItIsIgnored) {
  for (const char* name : {"cam_high", "cam_low"}) {
    observation_ = owner_.view();
    observation_.images.push_back(Camera(name));
    ExpectInvalid("images[4].name", "CAMERA_DOUBLED");
  }
}

TEST_F(PipelineTest, AMissingRequiredCameraIsRefused) {
  Drop("cam_high");
  ExpectInvalid("images", "CAMERA_MISSING");
  observation_.images.clear();
  ExpectInvalid("images", "CAMERA_MISSING");
}

TEST_F(PipelineTest, AMissingOptionalCameraIsBlackAndMasked) {
  Drop("cam_left_wrist");
  const auto input = pipeline_->Prepare(observation_);
  ASSERT_TRUE(input.ok()) << input.status();
  EXPECT_EQ(input->camera_mask, (std::array<bool, 3>{true, false, true}));
  EXPECT_EQ(pipeline_->EstimateCost(observation_).cameras, 2);
  const auto begin = input->pixels.begin() + input->pixels.size() / 3;
  EXPECT_TRUE(std::all_of(begin, begin + input->pixels.size() / 3,
                          [](std::uint8_t p) { return p == 0; }));
}

TEST_F(PipelineTest, AnIgnoredCameraIsNotEvenLookedAt) {
  Camera("cam_low").encoding = ImageEncoding::kPng;
  Camera("cam_low").data = "no image";
  EXPECT_TRUE(pipeline_->Prepare(observation_).ok());
}

TEST_F(PipelineTest, AnImageWhoseBytesDoNotFitIsRefused) {
  Camera("cam_high").data.remove_suffix(1);
  ExpectInvalid(FieldOfCamera("cam_high") + ".data", "IMAGE_BYTES");
}

TEST_F(PipelineTest, AFlatImageIsRefused) {
  const std::string bytes(std::size_t{3} * 3 * 1000, 'a');
  ImageView& image = Camera("cam_high");
  image.width = 1000;
  image.height = 3;
  image.data = bytes;
  ExpectInvalid(FieldOfCamera("cam_high"), "IMAGE_RATIO");
}

TEST_F(PipelineTest, ATruncatedJpegIsRefusedWhenItIsDecoded) {
  // Its markers are in order, its last scan is short.
  const std::string bytes = test::ReadFile(
      PISERVE_SOURCE_DIR "/tests/fuzz/corpus/image_fuzz/truncated_closed.jpg");
  ImageView& image = Camera("cam_high");
  image = {.name = "cam_high", .encoding = ImageEncoding::kJpeg, .data = bytes};
  EXPECT_TRUE(pipeline_->Validate(observation_).ok());
  const absl::Status status = pipeline_->Prepare(observation_).status();
  EXPECT_EQ(ReasonOf(status), "IMAGE_CORRUPT");
  EXPECT_EQ(FieldOf(status), FieldOfCamera("cam_high") + ".data");
}

TEST_F(PipelineTest, EncodedImagesEqualTheirPixels) {
  const std::string bytes = test::ReadFile(
      PISERVE_SOURCE_DIR "/tests/fuzz/corpus/image_fuzz/interlaced.png");
  Camera("cam_high") = {
      .name = "cam_high", .encoding = ImageEncoding::kPng, .data = bytes};
  const auto from_png = pipeline_->Prepare(observation_);
  ASSERT_TRUE(from_png.ok()) << from_png.status();
  std::string ramp;  // what make_images.py drew
  for (int i = 0; i < 64; ++i) ramp += std::string(3, static_cast<char>(i * 4));
  Camera("cam_high") = {
      .name = "cam_high", .width = 8, .height = 8, .data = ramp};
  const auto from_pixels = pipeline_->Prepare(observation_);
  ASSERT_TRUE(from_pixels.ok()) << from_pixels.status();
  EXPECT_EQ(from_png->pixels, from_pixels->pixels);
}

TEST_F(PipelineTest, ABadPromptIsRefused) {
  observation_.prompt = std::string_view("a\xff");
  ExpectInvalid("prompt", "PROMPT_NOT_UTF8");
  const std::string long_prompt(1025, 'a');
  observation_.prompt = long_prompt;
  ExpectInvalid("prompt", "PROMPT_TOO_LONG");
}

TEST_F(PipelineTest, APromptOfTooManyTokensIsRefused) {
  const std::string prompt(500, 'q');
  observation_.prompt = prompt;
  EXPECT_TRUE(pipeline_->Validate(observation_).ok());
  const absl::Status status = pipeline_->Prepare(observation_).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ReasonOf(status), "PROMPT_TOO_LONG");
  EXPECT_EQ(FieldOf(status), "prompt");
}

TEST_F(PipelineTest, TheDefaultPromptStandsInOnlyForAnAbsentOne) {
  observation_.prompt = "fold the towel";
  const auto given = pipeline_->Prepare(observation_);
  observation_.prompt.reset();
  const auto absent = pipeline_->Prepare(observation_);
  observation_.prompt = "";
  const auto empty = pipeline_->Prepare(observation_);
  ASSERT_TRUE(given.ok() && absent.ok() && empty.ok());
  EXPECT_EQ(given->tokens, absent->tokens);
  EXPECT_NE(given->tokens, empty->tokens);
}

TEST_F(PipelineTest, SizesOfFinishAreChecked) {
  const auto input = pipeline_->Prepare(observation_);
  ASSERT_TRUE(input.ok());
  std::vector<float> actions = golden_.model_actions(0, "fp32");
  const auto reply = pipeline_->Finish(actions, *input);
  ASSERT_TRUE(reply.ok());
  EXPECT_EQ(reply->size(),
            pipeline_->action_horizon() * pipeline_->action_dim());
  EXPECT_EQ(pipeline_->Finish(actions, ModelInput()).status().code(),
            absl::StatusCode::kInvalidArgument);
  actions.pop_back();
  EXPECT_EQ(pipeline_->Finish(actions, *input).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_F(PipelineTest, ThreadsShareOnePipeline) {
  const auto alone = pipeline_->Prepare(observation_);
  ASSERT_TRUE(alone.ok());
  std::vector<std::thread> threads;
  std::vector<int> equal(4);
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 20; ++i) {
        const auto input = pipeline_->Prepare(observation_);
        equal[t] += input.ok() && input->pixels == alone->pixels &&
                    input->tokens == alone->tokens &&
                    input->state == alone->state;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(equal, (std::vector<int>{20, 20, 20, 20}));
}

class NoDefaultPromptTest : public PipelineTest {
 protected:
  NoDefaultPromptTest() : PipelineTest("pi0_libero") {}
};

TEST_F(NoDefaultPromptTest, AnAbsentPromptIsRefused) {
  observation_.prompt.reset();
  ExpectInvalid("prompt", "PROMPT_MISSING");
}

class TruncatingTest : public PipelineTest {
 protected:
  TruncatingTest()
      : PipelineTest("pi0_libero", {.long_prompt = LongPrompt::kTruncate}) {}
};

TEST_F(TruncatingTest, ALongPromptIsCutAsOpenpiDoes) {
  const std::string prompt(500, 'q');
  observation_.prompt = prompt;
  const auto input = pipeline_->Prepare(observation_);
  ASSERT_TRUE(input.ok()) << input.status();
  EXPECT_EQ(input->tokens.size(), 48);
}

// Creation: the parts must fit each other.
class CreateTest : public testing::Test {
 protected:
  absl::Status Create() const {
    return Pipeline::Create(config_, variant_, stats_, TinyTokenizer())
        .status();
  }

  void ExpectRefused(const std::string& said) const {
    const absl::Status status = Create();
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_NE(std::string(status.message()).find(said), std::string::npos)
        << status;
  }

  const test::GoldenPolicy golden_{"pi05_droid"};
  PolicyConfig config_ = golden_.config();
  Variant variant_ = golden_.variant();
  NormStats stats_ = golden_.stats();
};

TEST_F(CreateTest, TheGoldenPartsFit) { EXPECT_TRUE(Create().ok()); }

TEST_F(CreateTest, AnotherKindOfModelIsRefused) {
  variant_.pi05 = false;
  ExpectRefused("pi0");
}

TEST_F(CreateTest, StatsOfAnotherRobotAreRefused) {
  stats_.state.q01->pop_back();
  ExpectRefused("state.q01");
}

TEST_F(CreateTest, MissingQuantilesAreRefused) {
  stats_.actions.q99.reset();
  ExpectRefused("actions");
}

TEST_F(CreateTest, AModelTooNarrowForTheRobotIsRefused) {
  variant_.action_dim = 7;
  ExpectRefused("8 dimensions");
}

TEST_F(CreateTest, AMaskLongerThanTheRobotIsRefused) {
  config_.absolute_actions = {9};
  ExpectRefused("absolute_actions");
}

TEST_F(CreateTest, ATokenizerOfTooManyPiecesIsRefused) {
  variant_.vocab = 1000;
  ExpectRefused("1024 pieces");
}

TEST_F(CreateTest, StateInPi0sPromptIsRefused) {
  config_.pi05 = variant_.pi05 = false;
  ExpectRefused("discrete_state_input");
}

TEST_F(CreateTest, ABadDefaultPromptIsRefused) {
  config_.default_prompt = "\xff";
  ExpectRefused("default prompt");
}

TEST_F(CreateTest, TheChecksumFollowsWhatShapesPreprocessing) {
  const auto checksum = [this](PipelineOptions options = {}) {
    return (*Pipeline::Create(config_, variant_, stats_, TinyTokenizer(),
                              options))
        ->preprocessing_checksum();
  };
  const std::string before = checksum();
  EXPECT_EQ(before.size(), 64);
  EXPECT_EQ(checksum(), before);
  EXPECT_NE(checksum({.long_prompt = LongPrompt::kTruncate}), before);

  config_.name = "renamed";   // shapes nothing
  stats_.state.mean[0] += 1;  // quantiles are used
  EXPECT_EQ(checksum(), before);

  (*stats_.state.q01)[0] = std::nextafter((*stats_.state.q01)[0], 9.0);
  const std::string nudged = checksum();
  EXPECT_NE(nudged, before);
  config_.default_prompt = "";
  EXPECT_NE(checksum(), nudged);
}

}  // namespace
}  // namespace piserve::transform
