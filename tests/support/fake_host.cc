// SPDX-License-Identifier: Apache-2.0
#include "tests/support/fake_host.h"

#include <cstdio>
#include <cstdlib>
#include <utility>

#include "model/checkpoint/norm_stats.h"
#include "model/policy_config.h"
#include "model/transform/tokenizer.h"

namespace piserve::testing {
namespace {

constexpr int kImage = 224;

template <typename T>
T OrDie(absl::StatusOr<T> value) {
  if (!value.ok()) {
    std::fprintf(stderr, "%s\n", value.status().ToString().c_str());
    std::abort();
  }
  return *std::move(value);
}

PolicyConfig ConfigOf(const std::string& name, const Variant& variant) {
  PolicyConfig config = *FindPolicyConfig(name);
  config.action_horizon = variant.action_horizon;
  config.max_token_len = variant.max_token_len;
  return config;
}

}  // namespace

Variant FakeVariant() {
  Variant variant = Pi05Variant();
  variant.vocab = 1024;
  variant.action_horizon = 10;
  return variant;
}

server::HostedPolicy HostOf(const std::string& name,
                            std::unique_ptr<Policy> policy,
                            const std::string& source_folder,
                            const std::string& policy_config) {
  const Variant& variant = policy->capabilities().variant;
  server::HostedPolicy host;
  host.name = name;
  host.device = policy->device_facts().has_value() ? "cuda:0" : "cpu";
  host.config = ConfigOf(policy_config, variant);
  host.pipeline = OrDie(transform::Pipeline::Create(
      host.config, variant, checkpoint::UnitNormStats(variant.action_dim),
      OrDie(transform::Tokenizer::Load(source_folder +
                                       "/tests/golden/tokenizer/tiny.model"))));
  host.model_digest = std::string(64, 'f');
  host.policy = std::move(policy);
  return host;
}

server::InferenceRequest LiberoRequest(absl::Time received, std::uint8_t grey) {
  struct Bytes {
    std::string image;
  };
  auto bytes = std::make_shared<Bytes>();
  bytes->image.assign(kImage * kImage * 3, static_cast<char>(grey));
  server::InferenceRequest request;
  request.received = received;
  request.observation.prompt = "put the bowl on the plate";
  request.observation.state.assign(8, 0.0);
  for (const char* camera : {"observation/image", "observation/wrist_image"}) {
    request.observation.images.push_back({.name = camera,
                                          .encoding = ImageEncoding::kRgb8,
                                          .width = kImage,
                                          .height = kImage,
                                          .data = bytes->image});
  }
  request.bytes = 2 * bytes->image.size();
  request.storage = std::move(bytes);
  const Variant variant = FakeVariant();
  request.noise_shape = {static_cast<std::uint32_t>(variant.action_horizon),
                         static_cast<std::uint32_t>(variant.action_dim)};
  request.start =
      std::vector<float>(variant.action_horizon * variant.action_dim, 0.0f);
  return request;
}

}  // namespace piserve::testing
