// SPDX-License-Identifier: Apache-2.0
#include "model/transform/prompt.h"

#include <algorithm>
#include <cmath>
#include <cstddef>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "model/error.h"

namespace piserve::transform {
namespace {

struct CodePoint {
  char32_t value = 0;
  int bytes = 0;  // 0: no UTF-8 here
};

bool IsContinuation(char byte) {
  return (static_cast<unsigned char>(byte) & 0xC0) == 0x80;
}

// The code point at the start of `text`, which is not empty. Overlong forms,
// surrogates and values past U+10FFFF are no UTF-8.
CodePoint Decode(std::string_view text) {
  constexpr char32_t kSmallest[] = {0, 0, 0x80, 0x800, 0x10000};
  const unsigned char lead = text[0];
  const int bytes = lead < 0x80   ? 1
                    : lead < 0xC0 ? 0
                    : lead < 0xE0 ? 2
                    : lead < 0xF0 ? 3
                    : lead < 0xF8 ? 4
                                  : 0;
  if (bytes == 0 || text.size() < bytes) return {};
  if (bytes == 1) return {lead, 1};
  char32_t value = lead & (0x7F >> bytes);
  for (int i = 1; i < bytes; ++i) {
    if (!IsContinuation(text[i])) return {};
    value = (value << 6) | (text[i] & 0x3F);
  }
  const bool surrogate = value >= 0xD800 && value < 0xE000;
  if (value < kSmallest[bytes] || surrogate || value > 0x10FFFF) return {};
  return {value, bytes};
}

// Python's str.isspace.
bool IsSpace(char32_t c) {
  return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 ||
         c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) ||
         c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
         c == 0x3000;
}

// Bytes of white space at the start, 0 if there is none.
int LeadingSpace(std::string_view text) {
  if (text.empty()) return 0;
  const CodePoint c = Decode(text);
  return IsSpace(c.value) ? c.bytes : 0;
}

int TrailingSpace(std::string_view text) {
  if (text.empty()) return 0;
  std::size_t start = text.size() - 1;
  while (start > 0 && text.size() - start < 4 && IsContinuation(text[start])) {
    --start;
  }
  const int bytes = LeadingSpace(text.substr(start));
  return bytes == text.size() - start ? bytes : 0;
}

absl::StatusOr<std::vector<std::int32_t>> EncodeWithBos(
    const Tokenizer& tokenizer, std::string_view text) {
  auto tokens = tokenizer.Encode(text);
  if (tokens.ok()) tokens->insert(tokens->begin(), tokenizer.bos_id());
  return tokens;
}

}  // namespace

absl::Status CheckPrompt(std::string_view prompt) {
  if (prompt.size() > kMaxPromptBytes) {
    return InvalidField("prompt", "PROMPT_TOO_LONG",
                        absl::StrCat("got ", prompt.size(),
                                     " bytes, want at most ", kMaxPromptBytes));
  }
  for (std::size_t at = 0; at < prompt.size();) {
    const CodePoint c = Decode(prompt.substr(at));
    if (c.bytes == 0) {
      return InvalidField("prompt", "PROMPT_NOT_UTF8",
                          absl::StrCat("byte ", at, ": got no UTF-8"));
    }
    if (c.value == 0) {
      return InvalidField("prompt", "PROMPT_HAS_NUL",
                          absl::StrCat("byte ", at, ": got NUL, want text"));
    }
    at += c.bytes;
  }
  return absl::OkStatus();
}

std::string CleanPrompt(std::string_view prompt) {
  while (const int bytes = LeadingSpace(prompt)) prompt.remove_prefix(bytes);
  while (const int bytes = TrailingSpace(prompt)) prompt.remove_suffix(bytes);
  std::string clean(prompt);
  std::replace(clean.begin(), clean.end(), '_', ' ');
  std::replace(clean.begin(), clean.end(), '\n', ' ');
  return clean;
}

int DigitizeState(double value) {
  if (std::isnan(value)) return 255;
  // Multiplying by 128 is exact, so this equals openpi's np.digitize over
  // np.linspace(-1, 1, 257)[:-1].
  return static_cast<int>(
      std::clamp(std::floor(value * 128.0) + 128.0, -1.0, 255.0));
}

absl::StatusOr<std::vector<std::int32_t>> TokenizePi0(
    const Tokenizer& tokenizer, std::string_view prompt) {
  auto tokens = EncodeWithBos(tokenizer, CleanPrompt(prompt));
  if (!tokens.ok()) return tokens;
  const auto line_feed = tokenizer.Encode("\n");
  if (!line_feed.ok()) return line_feed;
  tokens->insert(tokens->end(), line_feed->begin(), line_feed->end());
  return tokens;
}

absl::StatusOr<std::vector<std::int32_t>> TokenizePi05(
    const Tokenizer& tokenizer, std::string_view prompt,
    std::span<const double> state) {
  std::vector<int> bins(state.size());
  std::transform(state.begin(), state.end(), bins.begin(), DigitizeState);
  return EncodeWithBos(tokenizer,
                       absl::StrCat("Task: ", CleanPrompt(prompt), ", State: ",
                                    absl::StrJoin(bins, " "), ";\nAction: "));
}

}  // namespace piserve::transform
