// SPDX-License-Identifier: Apache-2.0
#include "server/recording/recording_codec.h"

#include <utility>
#include <variant>
#include <vector>

#include "server/public_message.h"
#include "server/rpc/codec.h"
#include "server/rpc/status_codec.h"

namespace piserve::server {
namespace {

std::uint64_t Microseconds(absl::Duration d) {
  return static_cast<std::uint64_t>(absl::ToInt64Microseconds(d));
}

v1::RequestClass ToWire(batching::Class priority) {
  switch (priority) {
    case batching::Class::kControl:
      return v1::REQUEST_CLASS_CONTROL;
    case batching::Class::kEvaluation:
      return v1::REQUEST_CLASS_EVALUATION;
    case batching::Class::kBulk:
      return v1::REQUEST_CLASS_BULK;
  }
  return v1::REQUEST_CLASS_UNSPECIFIED;
}

v1::ImageEncoding ToWire(ImageEncoding encoding) {
  switch (encoding) {
    case ImageEncoding::kRgb8:
      return v1::IMAGE_ENCODING_RGB8;
    case ImageEncoding::kJpeg:
      return v1::IMAGE_ENCODING_JPEG;
    case ImageEncoding::kPng:
      return v1::IMAGE_ENCODING_PNG;
  }
  return v1::IMAGE_ENCODING_UNSPECIFIED;
}

void FillObservation(const Observation& from, v1::ObservationRequest& to) {
  // One byte that is not UTF-8 would spoil the whole file. All other text has
  // been checked by now, or is the server's own.
  if (from.prompt.has_value() && IsUtf8(*from.prompt)) {
    to.set_prompt(std::string(*from.prompt));
  }
  to.mutable_state()->Assign(from.state.begin(), from.state.end());
  for (const ImageView& view : from.images) {
    v1::Image* image = to.add_images();
    image->set_name(std::string(view.name));
    image->set_encoding(ToWire(view.encoding));
    image->set_width(view.width);
    image->set_height(view.height);
    image->set_data(view.data.data(), view.data.size());
  }
}

void FillStart(const InferenceRequest& from, v1::ObservationRequest& to) {
  if (const auto* seed = std::get_if<std::uint64_t>(&from.start)) {
    to.set_seed(*seed);
  } else if (const auto* noise = std::get_if<std::vector<float>>(&from.start)) {
    v1::Array* array = to.mutable_noise();
    array->set_dtype(v1::DATA_TYPE_FLOAT32);
    array->mutable_shape()->Assign(from.noise_shape.begin(),
                                   from.noise_shape.end());
    array->set_data(noise->data(), noise->size() * sizeof(float));
  }
}

void FillRequest(const InferenceRequest& from, v1::ObservationRequest& to) {
  to.set_policy(from.policy);
  to.set_model_digest(from.model_digest);
  to.set_request_id(from.request_id);
  to.set_robot_id(from.robot_id);
  to.set_episode_id(from.episode_id);
  to.set_traceparent(from.traceparent);
  to.set_sequence(from.sequence);
  to.set_class_(ToWire(from.priority));
  to.set_supersede_older(from.supersede_older);
  to.set_age_us(Microseconds(from.age));
  if (from.max_age != absl::InfiniteDuration()) {
    to.set_max_age_us(Microseconds(from.max_age));
  }
  if (from.num_steps.has_value()) to.set_num_steps(*from.num_steps);
  FillObservation(from.observation, to);
  FillStart(from, to);
}

}  // namespace

v1::Recording ToRecording(std::int64_t received_unix_us,
                          const InferenceRequest& request,
                          const absl::StatusOr<InferenceReply>& reply) {
  v1::Recording recording;
  recording.set_received_unix_us(received_unix_us);
  v1::ObservationRequest& observation = *recording.mutable_observation();
  FillRequest(request, observation);
  if (!reply.ok()) {
    *recording.mutable_error() = rpc::ToError(reply.status());
    return recording;
  }
  *recording.mutable_result() = rpc::ToInferResult(*reply, request.request_id);
  if (reply->seed.has_value() && !observation.has_noise()) {
    observation.set_seed(*reply->seed);
  }
  return recording;
}

}  // namespace piserve::server
