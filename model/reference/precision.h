// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace piserve::reference {

// What the network computes in (docs/pi0.md 0).
//
//   kBFloat16  as openpi serves: bf16 activations with fp32 islands, every
//              rounding where openpi has it
//   kFloat32   everything in fp32
enum class Precision { kBFloat16, kFloat32 };

// "bfloat16" or "float32".
constexpr const char* NameOf(Precision precision) {
  return precision == Precision::kBFloat16 ? "bfloat16" : "float32";
}

// What weights are before they are used.
//
//   kAsFile    the file's values
//   kBf16Mode  rounded as BF16 mode rounds them: all of paligemma_with_expert
//              to bf16, the outer projections as in the file (docs/pi0.md 2.1)
enum class WeightRounding { kAsFile, kBf16Mode };

// How a prefix with masked cameras and prompt padding is computed.
//
//   kCompact  one row after another, its valid tokens only: nothing masked is
//             ever computed, and a row cannot depend on its neighbours
//   kPadded   all rows at once with openpi's masks
enum class Layout { kCompact, kPadded };

}  // namespace piserve::reference
