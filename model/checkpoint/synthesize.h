// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "model/checkpoint/weights.h"
#include "model/variant.h"

namespace piserve::checkpoint {

// Writes a synthetic checkpoint as openpi's converter would: model.safetensors
// with the dead expert lm_head and the note about the tied embedding, and
// variant.json beside it. Makes the folder; replaces old files. A full-size one
// takes 7 GB and about a minute. No norm stats are written.
//
// FAILED_PRECONDITION if the variant contradicts itself or the folder cannot be
// written, UNAVAILABLE if the disk is full.
absl::Status WriteSyntheticCheckpoint(const Variant& variant,
                                      std::uint64_t seed, DType dtype,
                                      const std::string& folder);

}  // namespace piserve::checkpoint
