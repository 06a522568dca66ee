// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/transform/tokenizer.h"

namespace piserve::transform {

inline constexpr std::size_t kMaxPromptBytes = 1024;

// INVALID_ARGUMENT at the field "prompt" unless it is UTF-8, at most
// kMaxPromptBytes and without NUL.
absl::Status CheckPrompt(std::string_view prompt);

// As Python's str.strip() (white space of Unicode), then "_" and "\n" to " ".
std::string CleanPrompt(std::string_view prompt);

// The bin of [-1, 1) in 256 that holds a normalised state value, in float64:
// below -1 it is -1, from 1 on and for NaN it is 255.
int DigitizeState(double value);

// Pi0: bos, the prompt, and a line feed that is encoded on its own.
// Source: openpi models/tokenizer.py PaligemmaTokenizer.tokenize.
absl::StatusOr<std::vector<std::int32_t>> TokenizePi0(
    const Tokenizer& tokenizer, std::string_view prompt);

// Pi0.5: bos and "Task: {prompt}, State: {bins};\nAction: ".
//   state  normalised, before padding
absl::StatusOr<std::vector<std::int32_t>> TokenizePi05(
    const Tokenizer& tokenizer, std::string_view prompt,
    std::span<const double> state);

}  // namespace piserve::transform
