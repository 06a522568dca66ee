// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace piserve::transform {

class SentencePieceModel;

// PaliGemma's SentencePiece tokenizer. Immutable, hence thread-safe.
class Tokenizer {
 public:
  // NOT_FOUND if the file cannot be read, else as Parse.
  static absl::StatusOr<std::unique_ptr<const Tokenizer>> Load(
      const std::string& path);

  // From the bytes of a model file. INVALID_ARGUMENT if they are none, or if
  // the model has no bos piece.
  static absl::StatusOr<std::unique_ptr<const Tokenizer>> Parse(
      std::string_view model);

  ~Tokenizer();

  // Ids of `text`, without bos and eos. What is no UTF-8 becomes U+FFFD.
  absl::StatusOr<std::vector<std::int32_t>> Encode(std::string_view text) const;

  int bos_id() const;
  int vocab_size() const;

  // Of the model file, lower-case hex.
  const std::string& sha256() const { return sha256_; }

 private:
  Tokenizer(std::unique_ptr<const SentencePieceModel> model,
            std::string sha256);

  const std::unique_ptr<const SentencePieceModel> model_;
  const std::string sha256_;
};

}  // namespace piserve::transform
