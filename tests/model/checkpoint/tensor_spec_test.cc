// SPDX-License-Identifier: Apache-2.0
#include "model/checkpoint/tensor_spec.h"

#include <map>

#include "gtest/gtest.h"
#include "model/checkpoint/safetensors.h"
#include "tests/support/golden.h"

namespace piserve::checkpoint {
namespace {

std::int64_t ElementsOf(const TensorSpec& spec) {
  std::int64_t elements = 1;
  for (const std::int64_t dim : spec.shape) elements *= dim;
  return elements;
}

std::int64_t ElementsIn(const std::vector<TensorSpec>& specs) {
  std::int64_t elements = 0;
  for (const TensorSpec& spec : specs) elements += ElementsOf(spec);
  return elements;
}

// The counts are docs/pi0.md 1.6; the dead head is the one tensor more.
TEST(TensorSpecTest, Pi0HasTheReleasedTensorsAndParameters) {
  const std::vector<TensorSpec> specs = TensorSpecs(Pi0Variant());
  EXPECT_EQ(specs.size(), 776);
  EXPECT_EQ(ElementsIn(specs), 3'238'048'528);
  EXPECT_EQ(ElementsIn(specs) + ElementsOf(DeadExpertHead(Pi0Variant())),
            3'501'372'176);
}

TEST(TensorSpecTest, Pi05HasTheReleasedTensorsAndParameters) {
  const std::vector<TensorSpec> specs = TensorSpecs(Pi05Variant());
  EXPECT_EQ(specs.size(), 811);
  EXPECT_EQ(ElementsIn(specs), 3'353'433'872);
  EXPECT_EQ(ElementsIn(specs) + ElementsOf(DeadExpertHead(Pi05Variant())),
            3'616'757'520);
}

TEST(TensorSpecTest, NamesAreSortedAndUnique) {
  const std::vector<TensorSpec> specs = TensorSpecs(Pi05Variant());
  for (std::size_t i = 1; i < specs.size(); ++i) {
    EXPECT_LT(specs[i - 1].name, specs[i].name);
  }
}

}  // namespace
}  // namespace piserve::checkpoint
