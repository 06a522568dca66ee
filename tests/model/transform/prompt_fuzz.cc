// SPDX-License-Identifier: Apache-2.0
// Any bytes as a prompt, in both formats: what passes the check is cleaned and
// tokenised. Bytes that do not pass must still be cleaned without harm.
#include <cstdint>
#include <cstdlib>

#include "model/transform/prompt.h"

namespace {

using piserve::transform::CheckPrompt;
using piserve::transform::CleanPrompt;
using piserve::transform::TokenizePi0;
using piserve::transform::TokenizePi05;
using piserve::transform::Tokenizer;

const Tokenizer& TinyTokenizer() {
  static const auto* const tokenizer =
      Tokenizer::Load("tests/golden/tokenizer/tiny.model")->release();
  return *tokenizer;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data,
                                      std::size_t size) {
  const std::string_view prompt(reinterpret_cast<const char*>(data), size);
  const std::string clean = CleanPrompt(prompt);
  if (clean.size() > prompt.size()) abort();
  if (!CheckPrompt(prompt).ok()) return 0;
  if (!CheckPrompt(clean).ok()) abort();  // cleaning keeps UTF-8 whole
  const double state[] = {-2.0, -1.0, 0.0, 0.5, 1.0};
  const auto pi0 = TokenizePi0(TinyTokenizer(), prompt);
  const auto pi05 = TokenizePi05(TinyTokenizer(), prompt, state);
  if (!pi0.ok() || !pi05.ok()) abort();
  // A byte becomes at most one token: EstimateCost relies on it.
  if (pi0->size() > prompt.size() + 2) abort();
  if (pi05->size() > prompt.size() + 26 + 4 * 5) abort();
  return 0;
}
