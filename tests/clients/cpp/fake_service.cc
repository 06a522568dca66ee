// SPDX-License-Identifier: Apache-2.0
#include "tests/clients/cpp/fake_service.h"

#include "absl/strings/str_cat.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "grpcpp/security/server_credentials.h"
#include "grpcpp/server_builder.h"

namespace piserve::client {
namespace {

void AddCamera(const std::string& name, v1::CameraUse use,
               v1::PolicyInfo* info) {
  v1::Camera* camera = info->add_cameras();
  camera->set_name(name);
  camera->set_use(use);
}

void SetBlock(const std::string& name, int size, v1::Block* block) {
  block->set_name(name);
  block->set_unit("rad");
  block->set_size(size);
}

}  // namespace

FakeService::FakeService() {
  on_infer = [](grpc::ServerContext*, const v1::InferRequest& request,
                v1::InferResponse* response) {
    *response->mutable_result() =
        FakeResult(request.observation().request_id());
    return grpc::Status::OK;
  };
  info.set_name("fake");
  info.set_model_digest("digest-1");
  AddCamera("base", v1::CAMERA_USE_REQUIRED, &info);
  AddCamera("wrist", v1::CAMERA_USE_OPTIONAL, &info);
  SetBlock("joints", 2, info.add_state());
  SetBlock("gripper", 1, info.add_state());
  SetBlock("joints", 3, info.add_action());
  info.set_action_horizon(2);
  info.set_preprocessing_checksum("sum-1");
  Start();
}

FakeService::~FakeService() { Stop(); }

void FakeService::Start() {
  grpc::ServerBuilder builder;
  builder.AddListeningPort(absl::StrCat("127.0.0.1:", port_),
                           grpc::InsecureServerCredentials(), &port_);
  builder.RegisterService(this);
  server_ = builder.BuildAndStart();
}

void FakeService::Stop() {
  if (server_ == nullptr) return;
  server_->Shutdown(std::chrono::system_clock::now());
  server_->Wait();
  server_ = nullptr;
}

std::string FakeService::address() const {
  return absl::StrCat("127.0.0.1:", port_);
}

std::vector<v1::InferRequest> FakeService::requests() {
  std::lock_guard<std::mutex> lock(mutex_);
  return requests_;
}

std::vector<absl::Duration> FakeService::budgets() {
  std::lock_guard<std::mutex> lock(mutex_);
  return budgets_;
}

std::vector<std::string> FakeService::credentials() {
  std::lock_guard<std::mutex> lock(mutex_);
  return credentials_;
}

int FakeService::info_calls() {
  std::lock_guard<std::mutex> lock(mutex_);
  return info_calls_;
}

grpc::Status FakeService::Infer(grpc::ServerContext* context,
                                const v1::InferRequest* request,
                                v1::InferResponse* response) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    requests_.push_back(*request);
    budgets_.push_back(absl::FromChrono(context->deadline() -
                                        std::chrono::system_clock::now()));
    const auto found = context->client_metadata().find("authorization");
    credentials_.push_back(
        found == context->client_metadata().end()
            ? ""
            : std::string(found->second.data(), found->second.size()));
  }
  return on_infer(context, *request, response);
}

grpc::Status FakeService::InferStream(grpc::ServerContext*, Stream* stream) {
  return on_stream(stream);
}

grpc::Status FakeService::GetPolicyInfo(grpc::ServerContext*,
                                        const v1::GetPolicyInfoRequest*,
                                        v1::GetPolicyInfoResponse* response) {
  std::lock_guard<std::mutex> lock(mutex_);
  ++info_calls_;
  if (!hides_policy) *response->add_policies() = info;
  return grpc::Status::OK;
}

ObservationIn FakeObservation() {
  ObservationIn observation;
  observation.prompt = "pick up the fork";
  observation.state = {0.1, 0.2, 0.3};
  observation.images = {{.name = "base",
                         .encoding = v1::IMAGE_ENCODING_RGB8,
                         .width = 1,
                         .height = 2,
                         .data = "abcdef"}};
  return observation;
}

v1::InferResult FakeResult(const std::string& request_id) {
  v1::InferResult result;
  result.set_request_id(request_id);
  result.set_policy("fake");
  result.set_model_digest("digest-1");
  const float values[] = {0, 1, 2, 3, 4, 5};
  v1::Array* actions = result.mutable_actions();
  actions->set_dtype(v1::DATA_TYPE_FLOAT32);
  actions->add_shape(2);
  actions->add_shape(3);
  actions->set_data(values, sizeof values);
  return result;
}

grpc::Status Refusal(
    grpc::StatusCode code, const std::string& message,
    const std::vector<const google::protobuf::Message*>& details) {
  google::rpc::Status status;
  status.set_code(code);
  status.set_message(message);
  for (const google::protobuf::Message* detail : details) {
    status.add_details()->PackFrom(*detail);
  }
  return grpc::Status(code, message, status.SerializeAsString());
}

grpc::Status RefusalWithRetry(grpc::StatusCode code, absl::Duration delay) {
  google::rpc::RetryInfo retry;
  const std::int64_t nanos = absl::ToInt64Nanoseconds(delay);
  retry.mutable_retry_delay()->set_seconds(nanos / 1'000'000'000);
  retry.mutable_retry_delay()->set_nanos(nanos % 1'000'000'000);
  return Refusal(code, "try later", {&retry});
}

}  // namespace piserve::client
