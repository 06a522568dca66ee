// SPDX-License-Identifier: Apache-2.0
// No Abseil header here: see sentencepiece_model.h.
#include "model/transform/sentencepiece_model.h"

#include <sentencepiece_processor.h>

#include <utility>

namespace piserve::transform {

class SentencePieceModel::Impl : public sentencepiece::SentencePieceProcessor {
};

std::unique_ptr<const SentencePieceModel> SentencePieceModel::Parse(
    std::string_view serialized, std::string* error) {
  auto impl = std::make_unique<Impl>();
  if (const auto status = impl->LoadFromSerializedProto(serialized);
      !status.ok()) {
    *error = status.ToString();
    return nullptr;
  }
  return std::unique_ptr<const SentencePieceModel>(
      new SentencePieceModel(std::move(impl)));
}

SentencePieceModel::SentencePieceModel(std::unique_ptr<const Impl> impl)
    : impl_(std::move(impl)) {}

SentencePieceModel::~SentencePieceModel() = default;

std::optional<std::vector<int>> SentencePieceModel::Encode(
    std::string_view text) const {
  std::vector<int> ids;
  if (!impl_->Encode(text, &ids).ok()) return std::nullopt;
  return ids;
}

int SentencePieceModel::bos_id() const { return impl_->bos_id(); }

int SentencePieceModel::vocab_size() const { return impl_->GetPieceSize(); }

}  // namespace piserve::transform
