// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace piserve::transform {

// A SentencePiece model behind standard types: the library's own header puts
// std::string_view into namespace absl, so the file that includes it may
// include no Abseil, and neither may this one. Thread-safe.
class SentencePieceModel {
 public:
  // nullptr and a reason in *error if `serialized` is no model.
  static std::unique_ptr<const SentencePieceModel> Parse(
      std::string_view serialized, std::string* error);

  ~SentencePieceModel();

  // nullopt only if the library fails.
  std::optional<std::vector<int>> Encode(std::string_view text) const;

  int bos_id() const;  // negative if the model has none
  int vocab_size() const;

 private:
  class Impl;
  explicit SentencePieceModel(std::unique_ptr<const Impl> impl);

  const std::unique_ptr<const Impl> impl_;
};

}  // namespace piserve::transform
