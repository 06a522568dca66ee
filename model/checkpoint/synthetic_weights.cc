// SPDX-License-Identifier: Apache-2.0
#include "model/checkpoint/synthetic_weights.h"

#include <bit>
#include <cmath>
#include <map>

#include "absl/strings/str_cat.h"
#include "model/checkpoint/digest.h"
#include "model/checkpoint/json.h"

namespace piserve::checkpoint {
namespace {

bool Contains(std::string_view name, std::string_view part) {
  return name.find(part) != std::string_view::npos;
}

struct Moments {
  float mean = 0;
  double std = 0;
};

// docs/synthetic.md, "Mean and standard deviation": the first row that fits.
Moments MomentsOf(const TensorSpec& spec) {
  const std::string_view name = spec.name;
  if (name.ends_with("norm.dense.bias")) return {0, 0.15};
  if (name.ends_with(".bias")) return {0, 0.1};
  const bool vision = Contains(name, "vision_tower");
  if (spec.shape.size() == 1) return {vision ? 1.0f : 0.0f, 0.1};
  if (name.ends_with("position_embedding.weight")) return {0, 0.5};

  double fan_in = 1;
  for (std::size_t i = 1; i < spec.shape.size(); ++i) fan_in *= spec.shape[i];
  const auto scaled = [&](double gain) {
    return Moments{0, gain / std::sqrt(fan_in)};
  };
  const bool query = name.ends_with(".q_proj.weight");
  const bool key = name.ends_with(".k_proj.weight");
  if (vision && (query || key)) return scaled(1.75);
  if (Contains(name, "language_model") && (query || key)) return scaled(1.75);
  if (Contains(name, "gemma_expert")) {
    if (query) return scaled(1.5);
    if (key) return scaled(2.5);
    if (name.ends_with(".o_proj.weight")) return scaled(2);
  }
  if (name.ends_with("norm.dense.weight")) return scaled(0.5);
  return scaled(1);
}

std::size_t ElementsOf(const TensorSpec& spec) {
  std::size_t elements = 1;
  for (const std::int64_t dim : spec.shape) elements *= dim;
  return elements;
}

// Fills a new buffer of T with convert(value of element i).
template <typename T, typename Convert>
Tensor Generate(const SyntheticRule& rule, std::size_t elements,
                Convert convert) {
  auto buffer = std::make_shared_for_overwrite<T[]>(elements);
  for (std::size_t i = 0; i < elements; ++i) {
    buffer[i] = convert(SyntheticValue(rule, i));
  }
  Tensor tensor;
  tensor.data = std::as_bytes(std::span<const T>(buffer.get(), elements));
  tensor.owner = std::move(buffer);
  return tensor;
}

class SyntheticWeights : public Weights {
 public:
  SyntheticWeights(const Variant& variant, std::uint64_t seed, DType dtype,
                   std::string digest)
      : variant_(variant),
        seed_(seed),
        dtype_(dtype),
        digest_(std::move(digest)) {
    for (TensorSpec& spec : TensorSpecs(variant)) {
      std::string name = spec.name;
      specs_.emplace(std::move(name), std::move(spec));
    }
  }

  const Variant& variant() const override { return variant_; }

  absl::StatusOr<Tensor> Find(std::string_view name) const override {
    const auto it = specs_.find(name);
    if (it == specs_.end()) {
      return absl::NotFoundError(
          absl::StrCat("tensor ", Quoted(name), ": unknown to this variant"));
    }
    return MakeSyntheticTensor(it->second, seed_, dtype_);
  }

  std::optional<SyntheticRule> Rule(std::string_view name) const override {
    const auto it = specs_.find(name);
    if (it == specs_.end()) return std::nullopt;
    return SyntheticRuleOf(it->second, seed_);
  }

  const std::string& digest() const override { return digest_; }

 private:
  const Variant variant_;
  const std::uint64_t seed_;
  const DType dtype_;
  const std::string digest_;
  std::map<std::string, TensorSpec, std::less<>> specs_;
};

}  // namespace

std::uint64_t NameHash(std::string_view name) {
  std::uint64_t hash = 0xcbf29ce484222325;
  for (const char c : name) {
    hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  }
  return hash;
}

std::uint64_t SyntheticBits(std::uint64_t name_hash, std::uint64_t seed,
                            std::uint64_t index) {
  std::uint64_t z =
      name_hash + seed * 0x9E3779B97F4A7C15 + index * 0xD1342543DE82EF95;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
  return z ^ (z >> 31);
}

SyntheticRule SyntheticRuleOf(const TensorSpec& spec, std::uint64_t seed) {
  const Moments moments = MomentsOf(spec);
  return {.name_hash = NameHash(spec.name),
          .seed = seed,
          .mean = moments.mean,
          .amp = static_cast<float>(std::sqrt(12.0) * moments.std)};
}

// Compiled without contraction (CMakeLists.txt): u * amp is rounded before the
// mean is added.
float SyntheticValue(const SyntheticRule& rule, std::uint64_t index) {
  const std::uint64_t z = SyntheticBits(rule.name_hash, rule.seed, index);
  const float u = static_cast<float>(z >> 40) * 0x1p-24f - 0.5f;
  return rule.mean + u * rule.amp;
}

std::uint16_t RoundToBFloat16(float value) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  return static_cast<std::uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

Tensor MakeSyntheticTensor(const TensorSpec& spec, std::uint64_t seed,
                           DType dtype) {
  const SyntheticRule rule = SyntheticRuleOf(spec, seed);
  const std::size_t elements = ElementsOf(spec);
  Tensor tensor =
      dtype == DType::kFloat32
          ? Generate<float>(rule, elements, [](float value) { return value; })
          : Generate<std::uint16_t>(rule, elements, RoundToBFloat16);
  tensor.name = spec.name;
  tensor.dtype = dtype;
  tensor.shape = spec.shape;
  return tensor;
}

absl::StatusOr<std::unique_ptr<Weights>> MakeSyntheticWeights(
    const Variant& variant, std::uint64_t seed, DType dtype) {
  if (absl::Status s = CheckVariant(variant); !s.ok()) return s;
  const std::string identity =
      absl::StrCat("synthetic ", DebugString(variant), " seed ", seed,
                   dtype == DType::kFloat32 ? " F32" : " BF16");
  absl::StatusOr<std::string> digest =
      Sha256(std::as_bytes(std::span(identity)));
  if (!digest.ok()) return digest.status();
  return std::make_unique<SyntheticWeights>(variant, seed, dtype,
                                            *std::move(digest));
}

}  // namespace piserve::checkpoint
