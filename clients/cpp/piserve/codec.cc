// SPDX-License-Identifier: Apache-2.0
#include "clients/cpp/piserve/codec.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <memory>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "clients/cpp/piserve/status.h"
#include "google/protobuf/io/coded_stream.h"
#include "google/protobuf/io/zero_copy_stream_impl_lite.h"
#include "google/protobuf/wire_format_lite.h"
#include "grpcpp/support/slice.h"

namespace piserve::client {
namespace {

static_assert(std::endian::native == std::endian::little,
              "arrays travel little-endian");

void EncodeNoise(const Noise& noise, v1::Array* array) {
  array->set_dtype(v1::DATA_TYPE_FLOAT32);
  array->add_shape(noise.horizon);
  array->add_shape(noise.action_dim);
  array->set_data(noise.values.data(), noise.values.size() * sizeof(float));
}

// All but the pixels.
void EncodeImageHead(const ImageIn& image, v1::Image* out) {
  out->set_name(image.name);
  out->set_encoding(image.encoding);
  out->set_width(image.width);
  out->set_height(image.height);
}

// All but the images and the age.
void EncodeFields(const ObservationIn& observation,
                  v1::ObservationRequest* request) {
  request->set_policy(observation.policy);
  request->set_model_digest(observation.model_digest);
  request->set_request_id(observation.request_id);
  request->set_robot_id(observation.robot_id);
  request->set_episode_id(observation.episode_id);
  request->set_sequence(observation.sequence);
  request->set_class_(observation.request_class);
  request->set_supersede_older(observation.supersede_older);
  if (observation.max_age.has_value()) {
    // The wire's 0 is no limit, and less than that would be a long one.
    request->set_max_age_us(std::max<std::int64_t>(
        1, absl::ToInt64Microseconds(*observation.max_age)));
  }
  request->set_traceparent(observation.traceparent);
  if (observation.prompt.has_value()) request->set_prompt(*observation.prompt);
  request->mutable_state()->Add(observation.state.begin(),
                                observation.state.end());
  if (const auto* noise = std::get_if<Noise>(&observation.start)) {
    EncodeNoise(*noise, request->mutable_noise());
  } else if (const auto* seed =
                 std::get_if<std::uint64_t>(&observation.start)) {
    request->set_seed(*seed);
  }
  if (observation.num_steps.has_value()) {
    request->set_num_steps(*observation.num_steps);
  }
}

// Opens a field of `size` bytes, which are to follow.
void OpenField(int number, std::size_t size, std::string* out) {
  using google::protobuf::internal::WireFormatLite;
  google::protobuf::io::StringOutputStream stream(out);
  google::protobuf::io::CodedOutputStream coded(&stream);
  coded.WriteTag(WireFormatLite::MakeTag(
      number, WireFormatLite::WIRETYPE_LENGTH_DELIMITED));
  coded.WriteVarint32(size);
}

// What stands before an image's pixels.
std::string ImageHead(const ImageIn& image) {
  v1::Image head;
  EncodeImageHead(image, &head);
  std::string inner = head.SerializeAsString();
  OpenField(v1::Image::kDataFieldNumber, image.data.size(), &inner);
  std::string out;
  OpenField(v1::ObservationRequest::kImagesFieldNumber,
            inner.size() + image.data.size(), &out);
  return out + inner;
}

// In one piece: several large ones would be given back to the kernel, by
// glibc's own limits, and cost their pages anew with every call.
// The bytes where they lie; they stay as long as the slice.
grpc::Slice SliceOf(const Bytes& bytes) {
  using Holder = std::shared_ptr<const std::string>;
  auto* holder = new Holder(bytes.shared());
  return grpc::Slice(
      const_cast<char*>(bytes.str().data()), bytes.size(),
      [](void* data) { delete static_cast<Holder*>(data); }, holder);
}

absl::Status BadReply(absl::string_view message) {
  return WithReason(absl::InternalError(message), kReasonBadReply);
}

absl::Status DecodeActions(const v1::Array& array, ActionChunk* chunk) {
  if (array.dtype() != v1::DATA_TYPE_FLOAT32 || array.shape_size() != 2) {
    return BadReply(absl::StrCat("actions: got dtype ", array.dtype(),
                                 " and shape [",
                                 absl::StrJoin(array.shape(), ", "),
                                 "], want float32 [horizon, action_dim]"));
  }
  const std::uint64_t count =
      static_cast<std::uint64_t>(array.shape(0)) * array.shape(1);
  // Divided, as the product with sizeof(float) may be too large for its type.
  if (count == 0 || array.data().size() % sizeof(float) != 0 ||
      array.data().size() / sizeof(float) != count) {
    return BadReply(
        absl::StrCat("actions: got ", array.data().size(), " bytes of shape [",
                     absl::StrJoin(array.shape(), ", "),
                     "], want at least one value, and 4 bytes for each"));
  }
  chunk->horizon = array.shape(0);
  chunk->action_dim = array.shape(1);
  chunk->values.resize(count);
  std::memcpy(chunk->values.data(), array.data().data(), array.data().size());
  const bool finite = std::all_of(chunk->values.begin(), chunk->values.end(),
                                  [](float x) { return std::isfinite(x); });
  return finite ? absl::OkStatus()
                : BadReply("actions: got NaN or infinity, want finite values");
}

}  // namespace

void EncodeObservation(const ObservationIn& observation,
                       v1::ObservationRequest* request) {
  EncodeFields(observation, request);
  for (const ImageIn& image : observation.images) {
    v1::Image* out = request->add_images();
    EncodeImageHead(image, out);
    out->set_data(image.data.str());
  }
}

void EncodeAge(const ObservationIn& observation,
               std::chrono::steady_clock::time_point now,
               v1::ObservationRequest* request) {
  if (!observation.captured_at.has_value()) return;
  const absl::Duration age = absl::FromChrono(now - *observation.captured_at);
  request->set_age_us(
      std::max<std::int64_t>(0, absl::ToInt64Microseconds(age)));
}

grpc::ByteBuffer EncodeRequest(const ObservationIn& observation,
                               std::chrono::steady_clock::time_point now) {
  v1::ObservationRequest fields;
  EncodeFields(observation, &fields);
  EncodeAge(observation, now, &fields);
  const std::string text = fields.SerializeAsString();
  std::vector<std::string> heads;
  std::size_t size = text.size();
  for (const ImageIn& image : observation.images) {
    heads.push_back(ImageHead(image));
    size += heads.back().size() + image.data.size();
  }
  std::string open;
  OpenField(v1::InferRequest::kObservationFieldNumber, size, &open);
  std::vector<grpc::Slice> slices = {grpc::Slice(open + text)};
  for (std::size_t i = 0; i < heads.size(); ++i) {
    slices.emplace_back(heads[i]);
    slices.push_back(SliceOf(observation.images[i].data));
  }
  return grpc::ByteBuffer(slices.data(), slices.size());
}

absl::StatusOr<ActionChunk> DecodeResult(const v1::InferResult& result,
                                         const std::string& request_id) {
  if (result.request_id() != request_id) {
    return BadReply(absl::StrCat("request_id: got '", result.request_id(),
                                 "', want '", request_id, "'"));
  }
  ActionChunk chunk;
  if (absl::Status status = DecodeActions(result.actions(), &chunk);
      !status.ok()) {
    return status;
  }
  chunk.request_id = result.request_id();
  if (result.has_seed()) chunk.seed = result.seed();
  chunk.policy = result.policy();
  chunk.model_digest = result.model_digest();
  chunk.deadline_served = absl::Microseconds(result.deadline_us());
  chunk.wave_rows = result.wave_rows();
  chunk.graph_rows = result.graph_rows();
  chunk.num_steps = result.num_steps();
  for (const v1::StageTime& stage : result.stages()) {
    chunk.stages.emplace_back(stage.stage(),
                              absl::Microseconds(stage.duration_us()));
  }
  return chunk;
}

}  // namespace piserve::client
