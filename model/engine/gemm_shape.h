// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <compare>
#include <string>

namespace piserve::engine {

// What follows the product before it is rounded once to the output's dtype.
enum class Epilogue { kNone, kBias, kGeluBias };

// Whether D = alpha X W^T (+ ...) replaces the output or is added to it.
enum class Output { kReplace, kAccumulate };

enum class GemmType { kBf16, kBf16ToFp32 };

// Y [m, n] = X [m, k] W^T with W [n, k] as a linear layer stores it; bf16
// operands, FP32 accumulation.
struct GemmShape {
  int m = 0;
  int n = 0;
  int k = 0;
  Epilogue epilogue = Epilogue::kNone;
  Output output = Output::kReplace;
  GemmType type = GemmType::kBf16;

  auto operator<=>(const GemmShape&) const = default;
};

std::string DebugString(const GemmShape& shape);

}  // namespace piserve::engine
