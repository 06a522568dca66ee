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

// What a hash policy answers to `row`: [H, action_dim], normalised.
inline void WriteHashActions(const SlotRow& row, int action_dim,
                             std::span<float> actions) {
  const std::uint64_t digest = DigestOf(row);
  for (std::size_t i = 0; i < actions.size(); ++i) {
    actions[i] = load::HashAction(digest, i / action_dim, i % action_dim);
  }
}

}  // namespace piserve::testing
