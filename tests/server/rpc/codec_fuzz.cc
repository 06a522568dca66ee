// SPDX-License-Identifier: Apache-2.0
// Bytes of an InferRequest -> wire check -> parser -> codec -> refusal. What is
// let through must be parsed, and hold what the codec promises.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "grpcpp/support/slice.h"
#include "server/rpc/codec.h"
#include "server/rpc/status_codec.h"

namespace {

using piserve::server::InferenceRequest;
namespace rpc = piserve::server::rpc;
namespace v1 = piserve::v1;

void Require(bool condition) {
  if (!condition) std::abort();
}

// A refusal must survive its own encoding.
void CheckRefusal(const absl::Status& status) {
  Require(status.code() == absl::StatusCode::kInvalidArgument);
  v1::Error parsed;
  Require(parsed.ParseFromString(rpc::ToError(status).SerializeAsString()));
  Require(!rpc::ToGrpcStatus(status).error_details().empty());
}

void CheckRequest(const InferenceRequest& request,
                  const v1::ObservationRequest& observation) {
  Require(request.request_id.size() <= rpc::kMaxIdBytes);
  Require(request.age >= absl::ZeroDuration());
  Require(request.max_age > absl::ZeroDuration());
  Require(request.observation.images.size() == observation.images_size());
  for (const auto& image : request.observation.images) {
    Require(image.width >= 0 && image.height >= 0);
  }
  if (const auto* noise = std::get_if<std::vector<float>>(&request.start)) {
    Require(noise->size() * sizeof(float) == observation.noise().data().size());
    Require(request.noise_shape.size() == 2);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data,
                                      std::size_t size) {
  const grpc::Slice slice(data, size);
  grpc::ByteBuffer buffer(&slice, 1);
  auto message = std::make_shared<v1::InferRequest>();
  std::string id;
  if (absl::Status s = rpc::Parse(buffer, message.get(), &id); !s.ok()) {
    CheckRefusal(s);
    return 0;
  }
  Require(id == message->observation().request_id());
  const auto request = rpc::ToInferenceRequest(message->observation(), message);
  if (!request.ok()) {
    CheckRefusal(request.status());
    return 0;
  }
  CheckRequest(*request, message->observation());
  return 0;
}
