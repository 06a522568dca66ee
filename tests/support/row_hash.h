// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>

#include "clients/cpp/load/row_hash.h"
#include "model/policy.h"

namespace piserve::testing {

// The digest of a row as a policy sees it. Equal to what `policy_load --verify
// hash` computes of the request, on the conditions in clients/cpp/load/
// row_hash.h.
inline std::uint64_t DigestOf(const SlotRow& row) {
  load::HashedRow hashed;
  const std::size_t image = row.pixels.size() / Variant::kCameras;
  for (int camera = 0; camera < Variant::kCameras; ++camera) {
    if (row.camera_mask[camera] == 0) continue;
    hashed.cameras[camera] =
        load::HashBytes(row.pixels.subspan(camera * image, image));
  }
  hashed.state = row.state;
  hashed.noise = row.noise;
  return load::RowDigest(hashed);
}

// The digest of all of a row but its noise, the prompt's tokens included.
inline std::uint64_t BlindDigestOf(SlotRow row) {
  row.noise = {};
  const auto tokens = row.tokens.first(*row.token_count);
  return DigestOf(row) ^
         load::HashBytes({reinterpret_cast<const std::uint8_t*>(tokens.data()),
                          tokens.size_bytes()});
}

// What a hash policy answers to a row of that digest: [H, action_dim],
// normalised.
inline void WriteHashActions(std::uint64_t digest, int action_dim,
                             std::span<float> actions) {
  for (std::size_t i = 0; i < actions.size(); ++i) {
    actions[i] = load::HashAction(digest, i / action_dim, i % action_dim);
  }
}

}  // namespace piserve::testing
