// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>

namespace piserve::load {

// Actions that are a hash of the observation, so that a client can tell by
// itself whether a reply answers its own request or another one.
//
// Hashed is what passes from the wire to the policy unchanged:
//   pixels  224x224 RGB8 images are not resized
//   noise   given noise is handed through bit by bit
//   state   on the grid k / 64, in [-1, 1], when the policy's norm stats are
//           those of the identity (quantiles -1 and 1, or mean 0 and std 1):
//           normalising then errs by less than 1e-5, and it is rounded back to
//           the grid
// Tokens are not hashed: a client has no tokenizer. The actions come back
// within 1e-5 under the same norm stats if no action is relative to the state
// (pi05_libero); they lie on the grid k / 256 in [-1, 1], so that rounding
// finds them exactly.

struct HashedRow {
  // HashBytes of the pixels of base, left wrist and right wrist camera; empty
  // where the camera is masked.
  std::array<std::optional<std::uint64_t>, 3> cameras;
  std::span<const float> state;  // as sent; zeros at its end do not count
  std::span<const float> noise;  // [H, model action_dim]
};

namespace row_hash_internal {

inline std::uint64_t Mix(std::uint64_t hash, std::uint64_t word) {
  hash = (hash ^ word) * 0x9e3779b97f4a7c15u;
  return hash ^ (hash >> 32);
}

// Murmur3's finaliser: every bit of `x` moves every bit of the result.
inline std::uint64_t Scatter(std::uint64_t x) {
  x = (x ^ (x >> 33)) * 0xff51afd7ed558ccdu;
  x = (x ^ (x >> 33)) * 0xc4ceb9fe1a85ec53u;
  return x ^ (x >> 33);
}

}  // namespace row_hash_internal

// Eight bytes at a time, little-endian; the last ones zero-padded.
inline std::uint64_t HashBytes(std::span<const std::uint8_t> bytes) {
  std::uint64_t hash = 0xcbf29ce484222325u ^ bytes.size();
  for (std::size_t i = 0; i < bytes.size(); i += 8) {
    std::uint64_t word = 0;
    std::memcpy(&word, &bytes[i], std::min<std::size_t>(8, bytes.size() - i));
    hash = row_hash_internal::Mix(hash, word);
  }
  return hash;
}

inline std::uint64_t RowDigest(const HashedRow& row) {
  using row_hash_internal::Mix;
  std::uint64_t hash = 0x70692d73657276u;
  for (const std::optional<std::uint64_t>& camera : row.cameras) {
    hash = camera.has_value() ? Mix(Mix(hash, 1), *camera) : Mix(hash, 0);
  }
  for (std::size_t i = 0; i < row.state.size(); ++i) {
    const long step = std::lround(row.state[i] * 64.0f);
    if (step != 0) {
      hash = Mix(Mix(hash, i), static_cast<std::uint64_t>(step));
    }
  }
  return Mix(hash,
             HashBytes({reinterpret_cast<const std::uint8_t*>(row.noise.data()),
                        row.noise.size_bytes()}));
}

// Action `dim` at `step` of the chunk: k / 256 with k in [-256, 256).
inline float HashAction(std::uint64_t digest, int step, int dim) {
  const std::uint64_t place =
      (static_cast<std::uint64_t>(step) << 32) | static_cast<unsigned>(dim);
  const std::uint64_t bits =
      row_hash_internal::Scatter(digest ^ row_hash_internal::Scatter(~place));
  return (static_cast<int>(bits >> 55) - 256) / 256.0f;
}

}  // namespace piserve::load
