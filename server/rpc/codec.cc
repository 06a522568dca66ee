// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/codec.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "grpcpp/impl/codegen/proto_utils.h"
#include "grpcpp/support/proto_buffer_reader.h"
#include "model/error.h"
#include "server/rpc/wire_check.h"

namespace piserve::server::rpc {
namespace {

// Arrays travel little-endian and are copied as they lie in memory.
static_assert(std::endian::native == std::endian::little);

absl::Status CheckLength(absl::string_view field, const std::string& value) {
  if (value.size() <= kMaxIdBytes) return absl::OkStatus();
  return InvalidField(
      field, "TOO_LONG",
      absl::StrCat("got ", value.size(), " bytes, want at most ", kMaxIdBytes));
}

absl::Status CheckIds(const v1::ObservationRequest& o) {
  for (const auto& [field, value] : {std::pair<const char*, const std::string&>{
                                         "request_id", o.request_id()},
                                     {"robot_id", o.robot_id()},
                                     {"episode_id", o.episode_id()},
                                     {"traceparent", o.traceparent()}}) {
    if (absl::Status s = CheckLength(field, value); !s.ok()) return s;
  }
  if (o.supersede_older() && o.robot_id().empty()) {
    return InvalidField("supersede_older", "NEEDS_ROBOT_ID",
                        "got true and no robot_id, want a robot_id with it");
  }
  return absl::OkStatus();
}

absl::StatusOr<batching::Class> ToClass(v1::RequestClass value) {
  switch (value) {
    case v1::REQUEST_CLASS_UNSPECIFIED:
    case v1::REQUEST_CLASS_CONTROL:
      return batching::Class::kControl;
    case v1::REQUEST_CLASS_EVALUATION:
      return batching::Class::kEvaluation;
    case v1::REQUEST_CLASS_BULK:
      return batching::Class::kBulk;
    default:
      return InvalidField("class", "UNKNOWN_ENUM_VALUE",
                          absl::StrCat("got ", static_cast<int>(value),
                                       ", want CONTROL, EVALUATION or BULK"));
  }
}

absl::StatusOr<ImageEncoding> ToEncoding(v1::ImageEncoding value, int index) {
  switch (value) {
    case v1::IMAGE_ENCODING_RGB8:
      return ImageEncoding::kRgb8;
    case v1::IMAGE_ENCODING_JPEG:
      return ImageEncoding::kJpeg;
    case v1::IMAGE_ENCODING_PNG:
      return ImageEncoding::kPng;
    default:
      return InvalidField(absl::StrCat("images[", index, "].encoding"),
                          "UNKNOWN_ENUM_VALUE",
                          absl::StrCat("got ", static_cast<int>(value),
                                       ", want RGB8, JPEG or PNG"));
  }
}

// Sides beyond an int are beyond every limit; they stay so.
int ToSide(std::uint32_t px) {
  return static_cast<int>(
      std::min<std::uint32_t>(px, std::numeric_limits<int>::max()));
}

// Durations beyond an int64 of microseconds (292,000 years) are cut to it.
absl::Duration ToDuration(std::uint64_t us) {
  return absl::Microseconds(static_cast<std::int64_t>(
      std::min<std::uint64_t>(us, std::numeric_limits<std::int64_t>::max())));
}

absl::Status FillImages(const v1::ObservationRequest& from, Observation& to) {
  to.images.reserve(from.images_size());
  for (int i = 0; i < from.images_size(); ++i) {
    const v1::Image& image = from.images(i);
    const auto encoding = ToEncoding(image.encoding(), i);
    if (!encoding.ok()) return encoding.status();
    to.images.push_back({.name = image.name(),
                         .encoding = *encoding,
                         .width = ToSide(image.width()),
                         .height = ToSide(image.height()),
                         .data = image.data()});
  }
  return absl::OkStatus();
}

// Bytes that an array of this shape holds; nullopt if that is beyond any
// message.
std::optional<std::uint64_t> FloatBytes(const v1::Array& array) {
  std::uint64_t bytes = sizeof(float);
  for (const std::uint32_t side : array.shape()) {
    bytes *= side;  // both below 2^32
    if (bytes > std::numeric_limits<std::uint32_t>::max()) return std::nullopt;
  }
  return bytes;
}

absl::StatusOr<std::vector<float>> ToFloats(const v1::Array& array,
                                            const char* field) {
  if (array.dtype() != v1::DATA_TYPE_FLOAT32) {
    return InvalidField(absl::StrCat(field, ".dtype"), "UNKNOWN_ENUM_VALUE",
                        absl::StrCat("got ", static_cast<int>(array.dtype()),
                                     ", want FLOAT32"));
  }
  if (array.shape_size() != 2) {
    return InvalidField(
        absl::StrCat(field, ".shape"), "WRONG_SHAPE",
        absl::StrCat("got ", array.shape_size(), " dimensions, want 2"));
  }
  if (FloatBytes(array) != array.data().size()) {
    return InvalidField(
        absl::StrCat(field, ".data"), "WRONG_SIZE",
        absl::StrCat("got ", array.data().size(), " bytes, want ",
                     absl::StrJoin(array.shape(), " * "), " * 4"));
  }
  std::vector<float> values(array.data().size() / sizeof(float));
  if (!values.empty()) {
    std::memcpy(values.data(), array.data().data(), array.data().size());
  }
  const auto bad = std::find_if_not(values.begin(), values.end(),
                                    [](float v) { return std::isfinite(v); });
  if (bad != values.end()) {
    return InvalidField(absl::StrCat(field, ".data"), "NOT_FINITE",
                        absl::StrCat("element ", bad - values.begin(), " is ",
                                     *bad, ", want finite numbers"));
  }
  return values;
}

absl::Status FillStart(const v1::ObservationRequest& from,
                       InferenceRequest& to) {
  if (from.has_seed()) to.start = std::uint64_t{from.seed()};
  if (!from.has_noise()) return absl::OkStatus();
  auto noise = ToFloats(from.noise(), "noise");
  if (!noise.ok()) return noise.status();
  to.start = *std::move(noise);
  to.noise_shape.assign(from.noise().shape().begin(),
                        from.noise().shape().end());
  return absl::OkStatus();
}

absl::Status CheckSteps(const v1::ObservationRequest& o) {
  if (o.has_num_steps() && o.num_steps() == 0) {
    return InvalidField("num_steps", "ZERO_STEPS", "got 0, want at least 1");
  }
  if (o.has_action_prefix()) {
    return InvalidField("action_prefix", "NOT_SUPPORTED",
                        "this server does not act on it, want it absent");
  }
  return absl::OkStatus();
}

void FillStages(const InferenceReply& from, v1::InferResult& to) {
  for (const StageDuration& stage : from.stages) {
    v1::StageTime* time = to.add_stages();
    time->set_stage(stage.stage);
    time->set_duration_us(static_cast<std::uint64_t>(
        std::max<std::int64_t>(0, absl::ToInt64Microseconds(stage.duration))));
  }
}

}  // namespace

absl::Status Parse(grpc::ByteBuffer& buffer, google::protobuf::Message* message,
                   std::string* request_id) {
  {
    grpc::ProtoBufferReader reader(&buffer);
    absl::Status status =
        reader.status().ok()
            ? CheckWire(reader, *message->GetDescriptor(), request_id)
            : InvalidField("message", "MALFORMED_MESSAGE", "no bytes came");
    if (!status.ok()) return status;
  }
  grpc::ProtoBufferReader reader(&buffer);
  if (message->ParseFromZeroCopyStream(&reader)) return absl::OkStatus();
  return InvalidField("message", "MALFORMED_MESSAGE",
                      "the bytes are not a protobuf message of this type");
}

grpc::ByteBuffer Serialize(const google::protobuf::Message& message) {
  grpc::ByteBuffer buffer;
  bool own_buffer = false;
  // Fails only beyond 2 GiB.
  (void)grpc::SerializationTraits<google::protobuf::Message>::Serialize(
      message, &buffer, &own_buffer);
  return buffer;
}

absl::StatusOr<InferenceRequest> ToInferenceRequest(
    const v1::ObservationRequest& observation,
    std::shared_ptr<const void> storage) {
  const v1::ObservationRequest& o = observation;
  if (absl::Status s = CheckIds(o); !s.ok()) return s;
  const auto priority = ToClass(o.class_());
  if (!priority.ok()) return priority.status();

  InferenceRequest request;
  request.policy = o.policy();
  request.model_digest = o.model_digest();
  request.request_id = o.request_id();
  request.robot_id = o.robot_id();
  request.episode_id = o.episode_id();
  request.traceparent = o.traceparent();
  request.sequence = o.sequence();
  request.priority = *priority;
  request.supersede_older = o.supersede_older();
  request.age = ToDuration(o.age_us());
  if (o.max_age_us() > 0) request.max_age = ToDuration(o.max_age_us());

  if (o.has_prompt()) request.observation.prompt = o.prompt();
  request.observation.state.assign(o.state().begin(), o.state().end());
  if (absl::Status s = FillImages(o, request.observation); !s.ok()) return s;
  if (absl::Status s = FillStart(o, request); !s.ok()) return s;
  if (absl::Status s = CheckSteps(o); !s.ok()) return s;
  if (o.has_num_steps()) request.num_steps = o.num_steps();
  request.storage = std::move(storage);
  return request;
}

v1::InferResult ToInferResult(const InferenceReply& reply,
                              absl::string_view request_id) {
  v1::InferResult result;
  result.set_request_id(request_id.data(), request_id.size());
  v1::Array* actions = result.mutable_actions();
  actions->set_dtype(v1::DATA_TYPE_FLOAT32);
  actions->add_shape(static_cast<std::uint32_t>(reply.horizon));
  actions->add_shape(static_cast<std::uint32_t>(reply.dim));
  actions->set_data(reply.actions.data(), reply.actions.size() * sizeof(float));
  if (reply.seed.has_value()) result.set_seed(*reply.seed);
  result.set_policy(reply.policy);
  result.set_model_digest(reply.model_digest);
  result.set_deadline_us(static_cast<std::uint64_t>(std::max<std::int64_t>(
      0, absl::ToInt64Microseconds(reply.deadline_served))));
  result.set_wave_rows(static_cast<std::uint32_t>(reply.wave_rows));
  result.set_graph_rows(static_cast<std::uint32_t>(reply.graph_rows));
  result.set_num_steps(static_cast<std::uint32_t>(reply.num_steps));
  FillStages(reply, result);
  return result;
}

}  // namespace piserve::server::rpc
