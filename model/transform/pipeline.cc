// SPDX-License-Identifier: Apache-2.0
#include "model/transform/pipeline.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cfloat>
#include <cmath>
#include <cstdint>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "model/error.h"
#include "model/transform/absolute_actions.h"
#include "model/transform/image_decode.h"
#include "model/transform/normalize.h"
#include "model/transform/prompt.h"
#include "model/transform/resize.h"
#include "model/transform/sha256.h"

namespace piserve::transform {
namespace {

std::string ImageField(std::size_t index) {
  return absl::StrCat("images[", index, "]");
}

const CameraSpec* FindCamera(const RobotSpec& robot, std::string_view name) {
  const auto found =
      std::find_if(robot.cameras.begin(), robot.cameras.end(),
                   [name](const CameraSpec& c) { return c.name == name; });
  return found == robot.cameras.end() ? nullptr : &*found;
}

std::string CameraNames(const RobotSpec& robot) {
  return absl::StrJoin(robot.cameras, ", ",
                       [](std::string* out, const CameraSpec& camera) {
                         out->append(camera.name);
                       });
}

ImageSize CanvasOf(const Variant& variant) {
  return {.width = variant.vision.image, .height = variant.vision.image};
}

absl::Status CheckDimensions(const PolicyConfig& config, const Variant& variant,
                             const RobotSpec& robot) {
  const int widest = std::max(robot.state_dim(), robot.action_dim());
  if (widest > variant.action_dim) {
    return absl::FailedPreconditionError(
        absl::StrCat("policy ", config.name, ": the robot has ", widest,
                     " dimensions, the model takes ", variant.action_dim));
  }
  const std::size_t mask = MakeBoolMask(config.absolute_actions).size();
  if (mask > std::min(robot.state_dim(), robot.action_dim())) {
    return absl::FailedPreconditionError(absl::StrCat(
        "policy ", config.name, ": absolute_actions spans ", mask,
        " dimensions, the robot has a state of ", robot.state_dim(),
        " and actions of ", robot.action_dim()));
  }
  return absl::OkStatus();
}

absl::Status CheckPrompts(const PolicyConfig& config, const Variant& variant,
                          const Tokenizer& tokenizer) {
  if (config.discrete_state_input && !config.pi05) {
    return absl::FailedPreconditionError(
        absl::StrCat("policy ", config.name,
                     ": discrete_state_input is set, but only pi0.5 has the "
                     "state in its prompt"));
  }
  if (tokenizer.vocab_size() > variant.vocab) {
    return absl::FailedPreconditionError(
        absl::StrCat("tokenizer: got ", tokenizer.vocab_size(),
                     " pieces, the model embeds ", variant.vocab));
  }
  if (!config.default_prompt.has_value()) return absl::OkStatus();
  if (absl::Status status = CheckPrompt(*config.default_prompt); !status.ok()) {
    return absl::FailedPreconditionError(
        absl::StrCat("policy ", config.name, ": default ", status.message()));
  }
  return absl::OkStatus();
}

absl::Status CheckParts(const PolicyConfig& config, const Variant& variant,
                        const NormStats& stats, const Tokenizer& tokenizer) {
  if (absl::Status status = CheckVariant(variant); !status.ok()) return status;
  if (config.pi05 != variant.pi05) {
    return absl::FailedPreconditionError(absl::StrCat(
        "policy ", config.name, ": is ", config.pi05 ? "pi0.5" : "pi0",
        ", the weights are ", variant.pi05 ? "pi0.5" : "pi0"));
  }
  const RobotSpec robot = SpecOf(config);
  if (absl::Status status = CheckDimensions(config, variant, robot);
      !status.ok()) {
    return status;
  }
  if (absl::Status status =
          CheckStats(stats.state, config.norm, robot.state_dim(),
                     variant.action_dim, "state");
      !status.ok()) {
    return status;
  }
  if (absl::Status status =
          CheckStats(stats.actions, config.norm, robot.action_dim(),
                     variant.action_dim, "actions");
      !status.ok()) {
    return status;
  }
  return CheckPrompts(config, variant, tokenizer);
}

// The model computes with float32 at best.
absl::Status CheckNormalised(std::span<const double> state) {
  for (std::size_t i = 0; i < state.size(); ++i) {
    if (!(std::abs(state[i]) <= FLT_MAX)) {
      return InvalidField(
          absl::StrCat("state[", i, "]"), "STATE_OUT_OF_RANGE",
          absl::StrCat("got a value that normalises to ", state[i],
                       ", want one that float32 holds"));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<std::uint8_t>> Decode(const ImageView& image,
                                                 ImageSize size,
                                                 absl::string_view field) {
  return image.encoding == ImageEncoding::kJpeg
             ? DecodeJpeg(image.data, size, field)
             : DecodePng(image.data, size, field);
}

// Decodes and resizes into `to`.
absl::Status PrepareImage(const ImageView& image, ImageSize canvas,
                          absl::string_view field, std::span<std::uint8_t> to) {
  const auto size = CheckImage(image, field);
  if (!size.ok()) return size.status();
  if (image.encoding == ImageEncoding::kRgb8) {
    const auto* pixels =
        reinterpret_cast<const std::uint8_t*>(image.data.data());
    ResizeWithPad({pixels, image.data.size()}, *size, canvas, to);
    return absl::OkStatus();
  }
  const auto pixels = Decode(image, *size, field);
  if (!pixels.ok()) return pixels.status();
  ResizeWithPad(*pixels, *size, canvas, to);
  return absl::OkStatus();
}

// Decodes and resizes to the end of `to`.
absl::Status AppendImage(const ImageView& image, ImageSize canvas,
                         absl::string_view field,
                         std::vector<std::uint8_t>* to) {
  if (image.encoding == ImageEncoding::kRgb8 && image.width == canvas.width &&
      image.height == canvas.height) {
    if (auto size = CheckImage(image, field); !size.ok()) return size.status();
    // As bytes of one type, which are moved as a block.
    const auto* bytes =
        reinterpret_cast<const std::uint8_t*>(image.data.data());
    to->insert(to->end(), bytes, bytes + image.data.size());
    return absl::OkStatus();
  }
  const std::size_t begin = to->size();
  to->resize(begin + std::size_t{3} * canvas.width * canvas.height);
  return PrepareImage(image, canvas, field, std::span(*to).subspan(begin));
}

void AppendNumbers(const std::vector<double>& numbers, std::string* out) {
  absl::StrAppend(out, numbers.size(), ":");
  for (const double x : numbers) {
    absl::StrAppend(out, absl::Hex(std::bit_cast<std::uint64_t>(x)), ",");
  }
}

// The statistics that `mode` reads.
void AppendStats(const FieldStats& stats, NormMode mode, std::string* out) {
  const bool quantile = mode == NormMode::kQuantile;
  AppendNumbers(quantile ? *stats.q01 : stats.mean, out);
  AppendNumbers(quantile ? *stats.q99 : stats.std, out);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Pipeline>> Pipeline::Create(
    const PolicyConfig& config, const Variant& variant, NormStats stats,
    std::unique_ptr<const Tokenizer> tokenizer, PipelineOptions options) {
  if (absl::Status status = CheckParts(config, variant, stats, *tokenizer);
      !status.ok()) {
    return status;
  }
  return std::unique_ptr<Pipeline>(new Pipeline(
      config, variant, std::move(stats), std::move(tokenizer), options));
}

Pipeline::Pipeline(const PolicyConfig& config, const Variant& variant,
                   NormStats stats, std::unique_ptr<const Tokenizer> tokenizer,
                   PipelineOptions options)
    : config_(config),
      variant_(variant),
      stats_(std::move(stats)),
      tokenizer_(std::move(tokenizer)),
      options_(options),
      robot_(SpecOf(config_)),
      absolute_mask_(MakeBoolMask(config_.absolute_actions)),
      checksum_(Checksum()) {}

absl::Status Pipeline::Validate(const Observation& observation) const {
  if (absl::Status status = ValidateState(observation); !status.ok()) {
    return status;
  }
  if (absl::Status status = ValidatePrompt(observation); !status.ok()) {
    return status;
  }
  return ValidateImages(observation);
}

absl::Status Pipeline::ValidateState(const Observation& observation) const {
  if (observation.state.size() != state_dim()) {
    return InvalidField("state", "STATE_LENGTH",
                        absl::StrCat("got ", observation.state.size(),
                                     " numbers, want ", state_dim()));
  }
  for (std::size_t i = 0; i < observation.state.size(); ++i) {
    if (!std::isfinite(observation.state[i])) {
      return InvalidField(
          absl::StrCat("state[", i, "]"), "STATE_NOT_FINITE",
          absl::StrCat("got ", observation.state[i], ", want a finite number"));
    }
  }
  return absl::OkStatus();
}

absl::Status Pipeline::ValidatePrompt(const Observation& observation) const {
  if (observation.prompt.has_value()) return CheckPrompt(*observation.prompt);
  if (config_.default_prompt.has_value()) return absl::OkStatus();
  return InvalidField("prompt", "PROMPT_MISSING",
                      "got none, want one: the policy has no default");
}

absl::Status Pipeline::ValidateImages(const Observation& observation) const {
  std::vector<bool> seen(robot_.cameras.size());
  for (std::size_t i = 0; i < observation.images.size(); ++i) {
    const ImageView& image = observation.images[i];
    const CameraSpec* camera = FindCamera(robot_, image.name);
    const std::string name_field = absl::StrCat(ImageField(i), ".name");
    if (camera == nullptr) {
      return InvalidField(name_field, "CAMERA_UNKNOWN",
                          absl::StrCat("got an unknown camera, want one of ",
                                       CameraNames(robot_)));
    }
    const std::size_t index = camera - robot_.cameras.data();
    if (seen[index]) {
      return InvalidField(name_field, "CAMERA_DOUBLED",
                          absl::StrCat("got ", std::string(camera->name),
                                       " again, want it once"));
    }
    seen[index] = true;
    if (!camera->slot.has_value()) continue;
    if (absl::Status status = ValidateImage(image, ImageField(i));
        !status.ok()) {
      return status;
    }
  }
  for (std::size_t i = 0; i < seen.size(); ++i) {
    const CameraSpec& camera = robot_.cameras[i];
    if (camera.use == CameraUse::kRequired && !seen[i]) {
      return InvalidField("images", "CAMERA_MISSING",
                          absl::StrCat("got no ", std::string(camera.name),
                                       ", want it: it is required"));
    }
  }
  return absl::OkStatus();
}

absl::Status Pipeline::ValidateImage(const ImageView& image,
                                     absl::string_view field) const {
  const auto size = CheckImage(image, field);
  if (!size.ok()) return size.status();
  const ImageSize fit = FitInside(*size, CanvasOf(variant_));
  if (fit.width > 0 && fit.height > 0) return absl::OkStatus();
  return InvalidField(field, "IMAGE_RATIO",
                      absl::StrCat("got ", size->width, "x", size->height,
                                   " pixels, too flat to be scaled to ",
                                   variant_.vision.image, " a side"));
}

InputCost Pipeline::EstimateCost(const Observation& observation) const {
  InputCost cost;
  for (const ImageView& image : observation.images) {
    const CameraSpec* camera = FindCamera(robot_, image.name);
    if (camera != nullptr && camera->slot.has_value()) ++cost.cameras;
  }
  cost.cameras = std::min(cost.cameras, Variant::kCameras);
  // A byte becomes at most one token. Beside the prompt there is bos and, for
  // pi0, a line feed; for pi0.5 "Task: , State: ;\nAction: " and up to four
  // bytes for each state value and its space.
  const std::size_t frame =
      config_.discrete_state_input ? 26 + 4 * robot_.state_dim() : 2;
  const std::size_t prompt = observation.prompt.has_value()
                                 ? observation.prompt->size()
                                 : config_.default_prompt.value_or("").size();
  cost.prompt_tokens = static_cast<int>(std::min<std::size_t>(
      frame + prompt, std::size_t(variant_.max_token_len)));
  const std::size_t side = variant_.vision.image;
  cost.bytes = Variant::kCameras * side * side * 3 +
               cost.prompt_tokens * sizeof(std::int32_t) +
               (variant_.action_dim + robot_.state_dim()) * sizeof(double);
  return cost;
}

absl::StatusOr<std::vector<std::int32_t>> Pipeline::Tokenize(
    const Observation& observation,
    std::span<const double> normalised_state) const {
  const std::string_view prompt = observation.prompt.has_value()
                                      ? *observation.prompt
                                      : *config_.default_prompt;
  auto tokens = config_.discrete_state_input
                    ? TokenizePi05(*tokenizer_, prompt, normalised_state)
                    : TokenizePi0(*tokenizer_, prompt);
  if (!tokens.ok() || tokens->size() <= variant_.max_token_len) return tokens;
  if (options_.long_prompt == LongPrompt::kRefuse) {
    return InvalidField(
        "prompt", "PROMPT_TOO_LONG",
        absl::StrCat("got ", tokens->size(), " tokens, want at most ",
                     variant_.max_token_len));
  }
  tokens->resize(variant_.max_token_len);
  return tokens;
}

absl::Status Pipeline::PrepareImages(const Observation& observation,
                                     ModelInput* input) const {
  const ImageSize canvas = CanvasOf(variant_);
  const std::size_t image_bytes = std::size_t{3} * canvas.width * canvas.height;
  std::array<std::optional<std::size_t>, Variant::kCameras> image_of;
  for (std::size_t i = 0; i < observation.images.size(); ++i) {
    const std::optional<int> slot =
        FindCamera(robot_, observation.images[i].name)->slot;
    if (slot.has_value()) image_of[*slot] = i;
  }
  // Appends slot by slot, so that no pixel is written twice.
  std::vector<std::uint8_t>& pixels = input->pixels;
  pixels.reserve(Variant::kCameras * image_bytes);
  for (int slot = 0; slot < Variant::kCameras; ++slot) {
    input->camera_mask[slot] = image_of[slot].has_value();
    if (!image_of[slot].has_value()) {
      pixels.resize(pixels.size() + image_bytes);
      continue;
    }
    const std::size_t i = *image_of[slot];
    if (absl::Status status =
            AppendImage(observation.images[i], canvas, ImageField(i), &pixels);
        !status.ok()) {
      return status;
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<ModelInput> Pipeline::Prepare(
    const Observation& observation) const {
  if (absl::Status status = Validate(observation); !status.ok()) return status;
  ModelInput input;
  input.robot_state = observation.state;
  TransformState(config_, input.robot_state);
  input.state = input.robot_state;
  NormalizeInPlace(stats_.state, config_.norm, input.state);
  if (absl::Status status = CheckNormalised(input.state); !status.ok()) {
    return status;
  }
  // Tokens before padding: pi0.5's prompt holds the robot's dimensions only.
  // Images last: they cost most.
  auto tokens = Tokenize(observation, input.state);
  if (!tokens.ok()) return tokens.status();
  input.tokens = *std::move(tokens);
  input.state.resize(variant_.action_dim);
  if (absl::Status status = PrepareImages(observation, &input); !status.ok()) {
    return status;
  }
  return input;
}

absl::StatusOr<std::vector<double>> Pipeline::Finish(
    std::span<const float> model_actions, const ModelInput& input) const {
  const std::size_t width = variant_.action_dim;
  const std::size_t horizon = variant_.action_horizon;
  if (model_actions.size() != horizon * width) {
    return absl::InvalidArgumentError(
        absl::StrCat("model actions: got ", model_actions.size(),
                     " numbers, want ", horizon, "x", width));
  }
  if (input.robot_state.size() != state_dim()) {
    return absl::InvalidArgumentError(
        absl::StrCat("robot state: got ", input.robot_state.size(),
                     " numbers, want ", state_dim()));
  }
  std::vector<double> actions;
  actions.reserve(horizon * action_dim());
  for (std::size_t step = 0; step < horizon; ++step) {
    const auto model_action = model_actions.subspan(step * width, width);
    std::vector<double> action(width);
    Unnormalize(stats_.actions, config_.norm, model_action, action);
    MakeAbsolute(absolute_mask_, input.robot_state, action);
    action.resize(action_dim());
    TransformAction(config_, action);
    actions.insert(actions.end(), action.begin(), action.end());
  }
  return actions;
}

std::string Pipeline::Checksum() const {
  // Every line that is added or changes its meaning raises the version.
  std::string text = "piserve preprocessing 1\n";
  absl::StrAppend(&text, "robot ", static_cast<int>(config_.robot),
                  "\nadapt_to_pi ", config_.adapt_to_pi, "\nimage ",
                  variant_.vision.image, "\naction_dim ", variant_.action_dim,
                  "\nmax_token_len ", variant_.max_token_len,
                  "\ndiscrete_state_input ", config_.discrete_state_input,
                  "\nlong_prompt ", static_cast<int>(options_.long_prompt),
                  "\ntokenizer ", tokenizer_->sha256(), "\nabsolute_actions ",
                  absl::StrJoin(config_.absolute_actions, ","), "\nnorm ",
                  static_cast<int>(config_.norm), "\nstate ");
  AppendStats(stats_.state, config_.norm, &text);
  absl::StrAppend(&text, "\nactions ");
  AppendStats(stats_.actions, config_.norm, &text);
  if (config_.default_prompt.has_value()) {
    absl::StrAppend(&text, "\ndefault_prompt ", *config_.default_prompt);
  }
  return Sha256Hex(text);
}

}  // namespace piserve::transform
