// SPDX-License-Identifier: Apache-2.0
#include "model/transform/tokenizer.h"

#include <fstream>
#include <sstream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "model/transform/sentencepiece_model.h"
#include "model/transform/sha256.h"

namespace piserve::transform {

absl::StatusOr<std::unique_ptr<const Tokenizer>> Tokenizer::Load(
    const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream bytes;
  // Unlike an iterator, this does not throw where reading fails, as of a
  // folder.
  if (!(bytes << in.rdbuf())) {
    return absl::NotFoundError(absl::StrCat(
        "tokenizer ", path, ": cannot be read, want a SentencePiece model"));
  }
  auto tokenizer = Parse(bytes.view());
  if (!tokenizer.ok()) {
    return absl::Status(tokenizer.status().code(),
                        absl::StrCat(path, ": ", tokenizer.status().message()));
  }
  return tokenizer;
}

absl::StatusOr<std::unique_ptr<const Tokenizer>> Tokenizer::Parse(
    std::string_view model) {
  std::string error;
  auto parsed = SentencePieceModel::Parse(model, &error);
  if (parsed == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("tokenizer: no SentencePiece model: ", error));
  }
  if (parsed->bos_id() < 0) {
    return absl::InvalidArgumentError(
        "tokenizer: the model has no bos piece, want one");
  }
  return std::unique_ptr<const Tokenizer>(
      new Tokenizer(std::move(parsed), Sha256Hex(model)));
}

Tokenizer::Tokenizer(std::unique_ptr<const SentencePieceModel> model,
                     std::string sha256)
    : model_(std::move(model)), sha256_(std::move(sha256)) {}

Tokenizer::~Tokenizer() = default;

absl::StatusOr<std::vector<std::int32_t>> Tokenizer::Encode(
    std::string_view text) const {
  std::optional<std::vector<int>> ids = model_->Encode(text);
  if (!ids.has_value()) {
    return absl::InternalError("tokenizer: SentencePiece failed");
  }
  return std::vector<std::int32_t>(ids->begin(), ids->end());
}

int Tokenizer::bos_id() const { return model_->bos_id(); }

int Tokenizer::vocab_size() const { return model_->vocab_size(); }

}  // namespace piserve::transform
